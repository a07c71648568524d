"""The transformers engine on tiny random models: architectures, seeds, batching, resumption."""

import copy
import dataclasses
import json
import re

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from selfrefine.engines import decoding
from selfrefine.engines import transformers as local
from selfrefine.engines.checkpoint_engines import open_checkpoint_engine
from selfrefine.engines.completions import complete
from selfrefine.engines.interface import Completion, Request, seed_for
from selfrefine.engines.kv_cache import SlotCache, refusal
from selfrefine.engines.recorded import RecordedEngine
from selfrefine.engines.token_choice import TokenChoice, invert, largest
from selfrefine.engines.transformers import TransformersEngine
from selfrefine.errors import UserError
from selfrefine.models.checkpoints import load_model, load_tokenizer
from selfrefine.schema.generation import Answering, Generation
from selfrefine.store.files import write_jsonl
from selfrefine.store.journal import Journal

QUESTIONS = [
    "Box 010 is red today.",
    "Box 3 is blue today, and box 4 is not.",
    "red",
    "Choose from A, B. Box 11 is white.",
]


@pytest.fixture(scope="module")
def parts(tiny_model):
    return load_model(tiny_model, "float32"), load_tokenizer(tiny_model)


def make(parts, batch_size=4):
    return TransformersEngine(*parts, {"weights": "tiny"}, batch_size)


def requests(temperature=1.0, samples=2, max_tokens=8):
    generation = Generation(max_tokens=max_tokens, temperature=temperature)
    return [
        Request(f"q{i}-{k}", [{"role": "user", "content": text}], generation, seed_for(f"q{i}", 0, "cot", k))
        for i, text in enumerate(QUESTIONS)
        for k in range(samples)
    ]


def answer_all(engine, wanted):
    return {r.id: c for batch in engine.batches(wanted) for r, c in zip(batch, engine.generate(batch), strict=True)}


def plainly(model, tokenizer, request):
    """The text and prompt length of transformers' own greedy answer to one request."""
    text = tokenizer.apply_chat_template(request.messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    most = request.generation.max_tokens
    made = model.generate(**ids, max_new_tokens=most, do_sample=False)[0, ids["input_ids"].shape[1] :]
    return tokenizer.decode(made, skip_special_tokens=True).strip(), ids["input_ids"].shape[1]


def compare_with_generate(model, engine, wanted):
    found = answer_all(engine, wanted)
    for request in wanted:
        assert (found[request.id].text, found[request.id].prompt_tokens) == plainly(model, engine.tokenizer, request)
    return found


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16], ids="batch size {}".format)
def test_greedy_equals_plain_generate_one_by_one(parts, tiny_model, batch_size):
    wanted = requests(temperature=0.0, samples=1, max_tokens=24)
    compare_with_generate(load_model(tiny_model, "float32"), make(parts, batch_size), wanted)


def test_keys_as_a_gpu_keeps_them_give_the_same(parts, tiny_model, monkeypatch):
    made = []

    def untransposed(slots, length, transposed):
        made.append(SlotCache(slots, length, transposed=False))
        return made[-1]

    monkeypatch.setattr(decoding, "SlotCache", untransposed)
    wanted = requests(temperature=0.0, samples=1, max_tokens=24)
    compare_with_generate(load_model(tiny_model, "float32"), make(parts, 3), wanted)
    assert made and not any(slots.transposed for slots in made)


SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}
# By name, an architecture's own settings, and why it does not work on slots.
ARCHITECTURES = {
    "llama": ({}, None),
    "qwen2": ({}, None),
    "qwen3": ({"head_dim": 12}, None),
    "smollm3": ({"no_rope_layer_interval": 2}, None),
    "granite": ({"logits_scaling": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2}, None),
    "olmo2": ({}, None),
    "phi3": ({}, None),
    "gpt_neox": ({}, None),
    "stablelm": ({}, "cannot be replaced"),
    "mistral": ({"sliding_window": 400}, None),
    "mistral, short window": ({"sliding_window": 16}, "slides over 16 tokens"),
    "gemma": ({"head_dim": 8}, None),
    "gemma2": ({"head_dim": 8, "query_pre_attn_scalar": 8}, "scores are capped"),
    "gemma3_text": ({"head_dim": 8, "sliding_window": 16}, "slides over 16 tokens"),
    "gpt_oss": ({"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}, "sinks"),
    "lfm2": ({"layer_types": ["conv", "full_attention", "conv"], "block_auto_adjust_ff_dim": False}, "other state"),
    "mamba": ({"state_size": 4}, "."),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_answer_as_they_do_alone_or_are_left_to_transformers(name, parts, capsys):
    own, reason = ARCHITECTURES[name]
    tokenizer = parts[1]
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    settings = AutoConfig.for_model(name.split(",")[0], vocab_size=len(tokenizer), **{**SHAPE, **own}, **ids)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32).eval()
    engine = TransformersEngine(copy.deepcopy(model), tokenizer, {}, 3)
    found = refusal(engine.model, 64)
    assert (found is None) if reason is None else re.search(reason, found)
    compare_with_generate(model, engine, requests(temperature=0.0, samples=1, max_tokens=12))
    assert ("transformers' own loop" in capsys.readouterr().err) == (reason is not None)


def test_a_batch_size_that_is_missing_is_asked_for(base_checkpoint):
    with pytest.raises(UserError, match="engine transformers: give the settings a `batch_size`"):
        open_checkpoint_engine(base_checkpoint, Answering(dtype="float32", batch_size=None), 0.9)


@pytest.mark.parametrize("batch_size", [2, 3, 8], ids="batch size {}".format)
def test_a_seed_says_what_is_drawn_whatever_the_batch(parts, batch_size):
    wanted = requests(samples=6, max_tokens=40)
    several, single = make(parts, batch_size), make(parts, 1)
    for engine in (several, single):
        engine.stop_ids = set(range(0, 420, 20))
    together = answer_all(several, wanted)
    assert together == {r.id: answer_all(single, [r])[r.id] for r in wanted}
    assert len({c.text for c in together.values()}) > len(wanted) / 2
    # Slots were reused: some ended early, some were cut.
    assert {c.finish_reason for c in together.values()} == {"stop", "length"}


def test_what_all_prompts_begin_with_is_read_once_and_changes_nothing(parts):
    wanted = requests(temperature=0.0, samples=1)
    begun = "Choose from A, B. " * 6
    longer = [
        dataclasses.replace(r, messages=[{"role": "user", "content": begun + r.messages[0]["content"]}]) for r in wanted
    ]
    read = []
    engine = make(parts)
    hook = engine.model.register_forward_pre_hook(lambda _, a, kw: read.append(kw["input_ids"].shape), with_kwargs=True)
    together = answer_all(engine, longer)
    hook.remove()
    assert read[0][0] == 1 and read[1][0] == len(longer) and read[1][1] < read[0][1]
    assert together == {r.id: answer_all(make(parts), [r])[r.id] for r in longer}


def test_a_prompt_is_read_once_for_all_its_answers(parts):
    read = []
    engine = make(parts, batch_size=8)
    hook = engine.model.register_forward_pre_hook(lambda _, a, kw: read.append(kw["input_ids"].shape), with_kwargs=True)
    answer_all(engine, [r for r in requests(samples=8) if r.id.startswith("q1")])
    hook.remove()
    assert read[0][0] == 1 and read[0][1] > 1
    assert read[1] == (8, 1)


@pytest.mark.parametrize("entries", [4, 256, 300, 1000])
def test_the_largest_entry_is_the_first_of_its_size(entries):
    scores = torch.randint(-3, 4, (200, entries), generator=torch.Generator().manual_seed(0)).float()
    assert largest(scores).tolist() == [row.index(max(row)) for row in scores.tolist()]


@pytest.mark.parametrize("entries", [4, 256, 300, 1000])
def test_inverting_finds_the_entry_that_the_sum_passes_at(entries):
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(500, entries, generator=generator) * (torch.rand(500, entries, generator=generator) < 0.3)
    weights[:, 1] += 0.1
    uniform = torch.rand(500, generator=generator)
    uniform[:2] = torch.tensor([0.0, 1 - 2**-24])
    found = invert(weights, uniform)
    sums = weights.double().cumsum(-1)
    target = uniform.double() * sums[:, -1]
    rows = torch.arange(500)
    assert (weights[rows, found] > 0).all()
    slack = 1e-5 * sums[:, -1]
    assert (sums[rows, found] >= target - slack).all()
    assert (sums[rows, found] - weights[rows, found] <= target + slack).all()


def test_samples_follow_the_models_distribution():
    scores = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(4000, 1)
    drawn = TokenChoice(list(range(4000)), 1.0, 1.0)(scores, list(range(4000)))
    shares = torch.bincount(drawn, minlength=4) / 4000
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=0.03)


def test_top_p_leaves_the_tail_out_and_temperature_sharpens():
    rows = list(range(2000))
    scores = torch.log(torch.tensor([[0.1, 0.3, 0.6]])).repeat(2000, 1)
    drawn = TokenChoice(rows, 1.0, 0.85)(scores.clone(), rows)
    assert set(drawn.tolist()) == {1, 2}
    sharp = TokenChoice(rows, 0.2, 1.0)(scores.clone(), rows)
    assert (sharp == 2).float().mean() > 0.95


def test_top_p_is_the_same_among_few_and_among_all(monkeypatch):
    scores = torch.randn(300, 500, generator=torch.Generator().manual_seed(0))
    rows = list(range(300))
    few = TokenChoice(rows, 1.0, 0.9)(scores.clone(), rows)
    monkeypatch.setattr("selfrefine.engines.token_choice.LIKELIEST", 2)
    assert torch.equal(few, TokenChoice(rows, 1.0, 0.9)(scores.clone(), rows))


def test_seeds_of_neighbouring_samples_are_unrelated():
    seeds = {
        seed_for(f"item{i}", seed, style, k) for i in range(20) for seed in range(3) for style in "ab" for k in range(8)
    }
    assert len(seeds) == 20 * 3 * 2 * 8
    assert seed_for("x", 0, "cot", 1) != seed_for("x", 0, "cot", 0) + 1


def test_the_stop_token_ends_a_completion_and_is_not_in_its_text(parts):
    engine = make(parts)
    finished = engine.finish([5, 6, engine.tokenizer.eos_token_id, 7], [1, 2])
    assert (finished.finish_reason, finished.tokens) == ("stop", 3)
    assert finished.text == engine.tokenizer.decode([5, 6]).strip()
    assert engine.finish([5, 6, 7], [1, 2]).finish_reason == "length"


def test_an_over_long_prompt_is_refused_by_id(parts):
    long = Request("q-long", [{"role": "user", "content": "red " * 600}], Generation(max_tokens=8))
    with pytest.raises(UserError, match="q-long: its prompt of .* exceed the model's 512"):
        make(parts).batches([long])


class Interrupted(TransformersEngine):
    """Is killed after some batches."""

    left = 2

    def generate(self, batch):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().generate(batch)


class Counting(TransformersEngine):
    made = 0

    def generate(self, batch):
        self.made += len(batch)
        return super().generate(batch)


def test_an_interrupted_stage_goes_on_and_ends_the_same(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "GROUP", 4 * 8)
    wanted, output = requests(samples=3), tmp_path / "paths.jsonl"
    undisturbed = complete(make(parts), wanted, tmp_path / "other.jsonl", "test")
    with pytest.raises(KeyboardInterrupt):
        complete(Interrupted(*parts, {"weights": "tiny"}, 4), wanted, output, "test")
    with open(Journal(output).path, "ab") as file:
        file.write(b'[{"id": "torn')
    engine = Counting(*parts, {"weights": "tiny"}, 4)
    assert complete(engine, wanted, output, "test") == undisturbed
    assert engine.made == len(wanted) - 2 * 4


def test_a_journal_of_other_weights_or_another_request_is_not_used(parts, tmp_path):
    output = tmp_path / "paths.jsonl"
    complete(make(parts), requests(), output, "test")
    other = Counting(*parts, {"weights": "others"}, 4)
    complete(other, requests(), output, "test")
    assert other.made == len(requests())
    changed = Counting(*parts, {"weights": "others"}, 4)
    complete(changed, requests(temperature=0.5), output, "test")
    assert changed.made == len(requests())


def test_a_completion_that_never_came_is_named(tmp_path):
    class Forgetful:
        identity = {"engine": "forgetful"}

        def batches(self, requests):
            return [requests[1:]]

        def generate(self, batch):
            return [Completion("text", "stop", 1, 1) for _ in batch]

    requests = [Request(f"item{i}", [{"role": "user", "content": str(i)}], Generation()) for i in range(3)]
    with pytest.raises(UserError, match=r"1 of 3 completions are missing, item0 first; run again"):
        complete(Forgetful(), requests, tmp_path / "out.jsonl", "test")
    assert not (tmp_path / "out.jsonl").exists()


def test_recorded_replays_and_names_what_it_lacks(tmp_path):
    wanted = requests(temperature=0.0, samples=1)
    row = {"key": wanted[0].key, "text": "The answer is A.", "finish_reason": "stop", "tokens": 6, "prompt_tokens": 9}
    path = tmp_path / "recording.jsonl"
    write_jsonl(path, [{"recording": {"teacher": "t"}}, row])
    engine = RecordedEngine(path)
    assert engine.generate(wanted[:1])[0].text == "The answer is A."
    with pytest.raises(UserError, match="no completion for 3 of 4 requests, q1-0 first.*engine: transformers"):
        engine.generate(wanted)


def test_a_recording_without_its_first_line_is_refused(tmp_path):
    path = tmp_path / "recording.jsonl"
    path.write_text(json.dumps({"key": "k"}) + "\n")
    with pytest.raises(UserError, match="recording.jsonl:1: not a recording"):
        RecordedEngine(path)
