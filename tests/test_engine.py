"""The transformers engine on a tiny random model: seeds, batching, resumption, stop tokens."""

import json

import pytest
import torch

from selfrefine.engines import Completion, Generation, Request, complete, seed_for
from selfrefine.engines.local import SeededSampler, TransformersEngine
from selfrefine.engines.recorded import RecordedEngine
from selfrefine.errors import UserError
from selfrefine.files import Journal, write_jsonl
from selfrefine.models import load_model, load_tokenizer

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


@pytest.mark.parametrize("piece", [1, 3, 16])
def test_greedy_equals_plain_generate_one_by_one(parts, piece, monkeypatch):
    monkeypatch.setattr("selfrefine.engines.local.PIECE", piece)
    model, tokenizer = parts
    wanted = requests(temperature=0.0, samples=1)
    found = answer_all(make(parts), wanted)
    for request in wanted:
        text = tokenizer.apply_chat_template(request.messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        plain = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert found[request.id].text == tokenizer.decode(plain, skip_special_tokens=True).strip()
        assert found[request.id].prompt_tokens == ids["input_ids"].shape[1]


def test_a_seed_says_what_is_drawn_whatever_the_batch(parts):
    together = answer_all(make(parts, batch_size=8), requests())
    alone = answer_all(make(parts, batch_size=1), requests())
    assert together == alone
    assert len({c.text for c in together.values()}) > len(QUESTIONS)


def test_samples_follow_the_models_distribution():
    scores = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(4000, 1)
    drawn = SeededSampler(list(range(4000)), 1.0, 1.0)(None, scores).argmax(-1)
    shares = torch.bincount(drawn, minlength=4) / 4000
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=0.03)


def test_top_p_leaves_the_tail_out_and_temperature_sharpens():
    scores = torch.log(torch.tensor([[0.1, 0.3, 0.6]])).repeat(2000, 1)
    drawn = SeededSampler(list(range(2000)), 1.0, 0.85)(None, scores).argmax(-1)
    assert set(drawn.tolist()) == {1, 2}
    sharp = SeededSampler(list(range(2000)), 0.2, 1.0)(None, scores).argmax(-1)
    assert (sharp == 2).float().mean() > 0.95


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


def test_an_interrupted_stage_goes_on_and_ends_the_same(parts, tmp_path):
    wanted, output = requests(samples=3), tmp_path / "paths.jsonl"
    undisturbed = complete(make(parts), wanted, tmp_path / "other.jsonl", "test")
    with pytest.raises(KeyboardInterrupt):
        complete(Interrupted(*parts, {"weights": "tiny"}, 4), wanted, output, "test")
    with open(Journal(output).path, "ab") as file:
        file.write(b'[{"id": "torn')
    engine = Counting(*parts, {"weights": "tiny"}, 4)
    assert complete(engine, wanted, output, "test") == undisturbed
    assert engine.made == len(wanted) - 2 * 4 + sum(len(b) < 4 for b in engine.batches(wanted)[:2]) * 1


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
