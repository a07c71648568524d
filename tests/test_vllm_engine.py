"""The vllm engine with a stand-in for vLLM: options, requests, and what becomes of its answers."""

import json
import os
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from conftest import REPOSITORY, record_model, run
from selfrefine.engines.checkpoint_engines import open_checkpoint_engine, open_model_engine
from selfrefine.engines.completions import complete
from selfrefine.engines.interface import Request, seed_for
from selfrefine.engines.token_engine import read_settings
from selfrefine.engines.transformers import TransformersEngine
from selfrefine.engines.vllm import BATCH_INVARIANT, SETTINGS
from selfrefine.errors import UserError
from selfrefine.models.checkpoints import load_checkpoint, load_model
from selfrefine.schema.generation import Answering, Generation
from selfrefine.store.environment import machine_facts
from selfrefine.store.files import read_jsonl, write_jsonl
from selfrefine.store.provenance import read_record

STAND_IN = REPOSITORY / "tests/stand_in"
QUESTIONS = ["Box 010 is red today.", "Box 3 is blue today, and box 4 is not.", "Choose from A, B. Box 11 is white."]


@pytest.fixture
def vllm(monkeypatch):
    """The stand-in, imported as vllm; what it was started with is forgotten before and after."""
    monkeypatch.syspath_prepend(STAND_IN)
    for name in (*SETTINGS, BATCH_INVARIANT):
        monkeypatch.setenv(name, "")
    import vllm

    yield vllm
    del sys.modules["vllm"]


@pytest.fixture(scope="session")
def adapted(base_checkpoint, tiny_model, tmp_path_factory) -> Path:
    """The record of a checkpoint with an adapter that changes every answer."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adapted")
    torch.manual_seed(1)
    settings = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(load_model(tiny_model, "float32"), settings).save_pretrained(folder)
    return record_model(folder, stage="instruct", model=str(base_checkpoint))


def requests(temperature=0.0, samples=1, max_tokens=12):
    generation = Generation(max_tokens=max_tokens, temperature=temperature, top_p=0.9)
    return [
        Request(f"q{i}-{k}", [{"role": "user", "content": text}], generation, seed_for(f"q{i}", 0, "cot", k))
        for i, text in enumerate(QUESTIONS)
        for k in range(samples)
    ]


def open_engine(checkpoint, dtype="float32", **options):
    return open_checkpoint_engine(checkpoint, Answering(engine="vllm", dtype=dtype, batch_size=None), 0.5, **options)


def answer_all(engine, wanted):
    return {r.id: c for batch in engine.batches(wanted) for r, c in zip(batch, engine.generate(batch), strict=True)}


@pytest.mark.model
@pytest.mark.parametrize("which", ["base_checkpoint", "adapted"])
def test_greedy_answers_are_those_of_the_transformers_engine(vllm, which, request):
    checkpoint = request.getfixturevalue(which)
    local, engine = TransformersEngine(*load_checkpoint(checkpoint, "float32"), 4), open_engine(checkpoint)
    wanted = requests()
    local.batches(wanted)
    # A token that one answer comes upon is made a stop token: a random model hardly ever ends by itself.
    ids = torch.tensor([local._prompts[wanted[0].id]])
    fourth = int(local.model.generate(ids, max_new_tokens=4, do_sample=False)[0, -1])
    local.stop_ids.add(fourth)
    engine.stop_ids.add(fourth)
    expected = answer_all(local, wanted)
    assert answer_all(engine, wanted) == expected
    assert expected[wanted[0].id].finish_reason == "stop" and expected[wanted[0].id].tokens <= 4
    assert "length" in {completion.finish_reason for completion in expected.values()}


def test_weights_with_an_adapter_answer_otherwise(vllm, base_checkpoint, adapted):
    wanted = requests()
    assert answer_all(open_engine(base_checkpoint), wanted) != answer_all(open_engine(adapted), wanted)


def test_prompts_are_the_templates_ids_and_each_sample_has_its_seed(vllm, base_checkpoint):
    engine, wanted = open_engine(base_checkpoint), requests(temperature=1.0, samples=3)
    answer_all(engine, wanted)
    (llm,) = vllm.STARTED
    local = TransformersEngine(*load_checkpoint(base_checkpoint, "float32"), 4)
    assert sorted(ids for ids, _ in llm.asked) == sorted(local.encode(r.messages) for r in wanted)
    assert all(ids.count(engine.tokenizer.bos_token_id) == 2 for ids, _ in llm.asked)  # one each of user and assistant
    assert {params.seed for _, params in llm.asked} == {r.seed for r in wanted}
    assert {(p.n, p.temperature, p.top_p, p.max_tokens) for _, p in llm.asked} == {(1, 1.0, 0.9, 12)}


def test_greedy_requests_have_no_seed(vllm, base_checkpoint):
    answer_all(open_engine(base_checkpoint), requests())
    assert {params.seed for _, params in vllm.STARTED[0].asked} == {None}


def test_a_sample_depends_on_its_seed_alone(vllm, base_checkpoint):
    wanted = requests(temperature=1.0, samples=3)
    together = answer_all(open_engine(base_checkpoint), wanted)
    alone = {}
    for one in reversed(wanted):
        alone |= answer_all(open_engine(base_checkpoint), [one])
    assert together == alone
    assert len({c.text for c in together.values()}) > len(QUESTIONS)


def test_nothing_stops_an_answer_but_the_engines_own_stop_tokens(vllm, base_checkpoint):
    engine = open_engine(base_checkpoint)
    answer_all(engine, requests())
    (llm,) = vllm.STARTED
    local = TransformersEngine(*load_checkpoint(base_checkpoint, "float32"), 4)
    assert engine.stop_ids == local.stop_ids != set()
    assert all(p.stop_token_ids == sorted(local.stop_ids) and p.ignore_eos for _, p in llm.asked)
    assert llm.options["generation_config"] == "vllm"
    assert llm.options["skip_tokenizer_init"]


def test_stop_tokens_and_limit_are_read_as_the_loaded_model_has_them(tiny_model, tmp_path):
    for path in tiny_model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps(generation | {"eos_token_id": [2, 7]}))
    for change in (lambda: None, (tmp_path / "generation_config.json").unlink):
        change()
        model = load_model(tmp_path, "float32")
        settings, generation = read_settings(tmp_path)
        assert generation.eos_token_id == model.generation_config.eos_token_id
        assert settings.max_position_embeddings == model.config.max_position_embeddings


@pytest.mark.parametrize(("reason", "tokens"), [("abort", [5, 6]), ("stop", [5, 6]), ("length", [5, 2])])
def test_an_answer_that_ended_for_another_reason_is_refused(vllm, base_checkpoint, monkeypatch, reason, tokens):
    answer = vllm.LLM._answer

    def ended(self, *asked):
        output = answer(self, *asked)
        output.outputs[0].token_ids, output.outputs[0].finish_reason = tokens, reason
        return output

    monkeypatch.setattr(vllm.LLM, "_answer", ended)
    engine = open_engine(base_checkpoint)
    assert engine.stop_ids == {2}
    with pytest.raises(UserError, match=f"q.-0: vLLM did not answer what was asked .it ended with '{reason}'."):
        answer_all(engine, requests())


def test_answers_to_other_prompts_are_refused(vllm, base_checkpoint, monkeypatch):
    generate = vllm.LLM.generate
    monkeypatch.setattr(vllm.LLM, "generate", lambda self, *asked, **options: generate(self, *asked, **options)[::-1])
    with pytest.raises(UserError, match="did not answer what was asked"):
        answer_all(open_engine(base_checkpoint), requests())


def test_an_over_long_prompt_is_refused_as_by_the_transformers_engine(vllm, base_checkpoint):
    long = Request("q-long", [{"role": "user", "content": "red " * 600}], Generation(max_tokens=8))
    told = []
    for engine in (open_engine(base_checkpoint), TransformersEngine(*load_checkpoint(base_checkpoint, "float32"), 4)):
        with pytest.raises(UserError, match="q-long: its prompt of .* exceed the model's 512") as refused:
            engine.batches([long])
        told.append(str(refused.value))
    assert told[0] == told[1]
    assert vllm.STARTED == []


def test_samples_of_a_prompt_stay_together_and_the_cut_depends_on_the_requests_alone(
    vllm, base_checkpoint, monkeypatch
):
    monkeypatch.setattr("selfrefine.engines.vllm.BATCH", 5)
    wanted = [*requests(samples=4, temperature=1.0), *requests(samples=1)]
    batches = open_engine(base_checkpoint).batches(wanted)
    assert [len(batch) for batch in batches] == [5, 5, 5]
    assert all(len({r.messages[0]["content"] for r in batch}) == 1 for batch in batches)
    assert open_engine(base_checkpoint).batches(wanted[::-1]) == batches
    many = requests(samples=7, temperature=1.0)
    assert [len(batch) for batch in open_engine(base_checkpoint).batches(many)] == [5, 2, 5, 2, 5, 2]


def test_each_batch_starts_from_an_empty_prefix_cache(vllm, base_checkpoint, monkeypatch):
    monkeypatch.setattr("selfrefine.engines.vllm.BATCH", 2)
    answer_all(open_engine(base_checkpoint), requests())
    (llm,) = vllm.STARTED
    assert llm.resets == 2
    assert llm.options["enable_prefix_caching"]


def test_merged_weights_are_loaded_from_scratch_space_that_is_gone_afterwards(
    vllm, adapted, tmp_path, tiny_model, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    engine = open_engine(adapted)
    answer_all(engine, requests())
    (llm,) = vllm.STARTED
    assert llm.folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []
    merged, _, _ = load_checkpoint(adapted, "float32")
    for name, weights in merged.state_dict().items():
        assert torch.equal(weights, llm.model.state_dict()[name])


def test_scratch_space_is_gone_after_a_failure(vllm, adapted, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fail(self, folder, **options):
        assert list(tmp_path.glob("*/*.safetensors"))
        raise RuntimeError("no memory")

    monkeypatch.setattr(vllm.LLM, "__init__", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        answer_all(open_engine(adapted), requests())
    assert list(tmp_path.iterdir()) == []


def test_weights_without_an_adapter_are_loaded_where_they_lie(vllm, base_checkpoint, tiny_model):
    answer_all(open_engine(base_checkpoint), requests())
    answer_all(open_model_engine(tiny_model / "record.json", "vllm", "float32", None, 0.5), requests())
    assert [llm.folder for llm in vllm.STARTED] == [tiny_model, tiny_model]


def test_room_is_kept_for_the_longest_request_known_before_the_start(vllm, base_checkpoint):
    engine = open_engine(base_checkpoint)
    (later,) = requests(max_tokens=100)[:1]
    engine.read([later])
    answer_all(engine, requests())
    answer_all(engine, [later])
    (llm,) = vllm.STARTED
    assert llm.options["max_model_len"] == engine.needed(later)
    with pytest.raises(ValueError, match="after vLLM was started"):
        engine.batches(requests(max_tokens=300))


@pytest.mark.parametrize(("gpus", "parallel"), [(0, 1), (1, 1), (2, 2)])
def test_all_gpus_of_the_job_share_the_model(vllm, base_checkpoint, monkeypatch, gpus, parallel):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    answer_all(open_engine(base_checkpoint), requests())
    options = vllm.STARTED[0].options
    assert options["tensor_parallel_size"] == parallel
    assert options["gpu_memory_utilization"] == 0.5
    # Without GPUs prompts are read whole; with them, as vLLM sees fit.
    assert options.get("enable_chunked_prefill") == (None if gpus else False)


def test_gpus_that_cannot_share_the_model_are_refused(vllm, base_checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    with pytest.raises(UserError, match="3 GPUs cannot share the model's 4 attention heads"):
        open_engine(base_checkpoint)


@pytest.mark.parametrize("wanted", [False, True])
def test_the_batch_invariant_mode_is_as_asked_for_whatever_the_environment_says(
    vllm, base_checkpoint, monkeypatch, wanted
):
    monkeypatch.setenv(BATCH_INVARIANT, str(int(not wanted)))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: (8, 0))
    answer_all(open_engine(base_checkpoint, batch_invariant=wanted), requests())
    assert os.environ[BATCH_INVARIANT] == str(int(wanted))
    assert machine_facts().get("batch_invariant", False) == wanted


@pytest.mark.parametrize(("capabilities", "found"), [([], "no GPU"), ([(9, 0), (7, 5)], "compute capability 7.5")])
def test_the_batch_invariant_mode_is_refused_where_the_gpus_have_none(
    vllm, base_checkpoint, monkeypatch, capabilities, found
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: capabilities[gpu])
    with pytest.raises(UserError, match=f"needs GPUs from compute capability 8.0, and this machine has {found}"):
        open_engine(base_checkpoint, batch_invariant=True)
    open_engine(base_checkpoint)


def test_vllm_that_is_not_installed_is_told_before_weights_are_loaded(adapted, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("selfrefine.models.checkpoints.load_model", lambda *_: pytest.fail("weights were loaded"))
    with pytest.raises(UserError, match="vLLM is not installed for .*python.*; install envs/vllm.txt there with pip"):
        open_engine(adapted)


def test_vllm_is_not_started_for_what_the_journal_holds(vllm, base_checkpoint, tmp_path):
    wanted, output = requests(temperature=1.0, samples=2), tmp_path / "paths.jsonl"
    first = complete(open_engine(base_checkpoint), wanted, output, "test")
    assert complete(open_engine(base_checkpoint), wanted, output, "test") == first
    assert len(vllm.STARTED) == 1


def test_a_journal_of_the_other_engine_is_not_used(vllm, base_checkpoint, tmp_path):
    wanted, output = requests(), tmp_path / "paths.jsonl"
    local = TransformersEngine(*load_checkpoint(base_checkpoint, "float32"), 4)
    complete(local, wanted, output, "test")
    complete(open_engine(base_checkpoint), wanted, output, "test")
    assert len(vllm.STARTED[0].asked) == len(wanted)


def test_the_same_weights_have_the_same_identity_in_either_engine(vllm, adapted):
    vllm_identity = open_engine(adapted).identity
    local = TransformersEngine(*load_checkpoint(adapted, "float32"), 4).identity
    differing = {name for name in local if local[name] != vllm_identity[name]}
    assert (local.keys(), differing) == (vllm_identity.keys(), {"engine", "code"})


ITEM = {"question": "Box 010 is red today.", "choices": ["red", "green"], "answer": "A", "kind": "choice"}


@pytest.fixture
def stage(base_checkpoint, tmp_path):
    """A command that samples with an engine: (engine, further keys of `sampling`) → the finished process."""
    write_jsonl(
        tmp_path / "train.jsonl", [{"id": f"{i:04x}", **ITEM, "question": f"Box {i} is red."} for i in range(6)]
    )

    def sample(engine: str, check: bool = True, flags: list[str] | None = None, **sampling):
        settings = {
            "engine": engine,
            "dtype": "float32",
            "prompt": {"instruction": "Choose from {labels}."},
            "sampling": {"cot": 2, "plain": 1, "generation": {"max_tokens": 8, "temperature": 1.0}} | sampling,
        }
        folder = tmp_path / engine
        return run(
            *("env", f"PYTHONPATH={STAND_IN}", "python", "scripts/sample.py", "--settings", json.dumps(settings)),
            *("--checkpoint", base_checkpoint, "--items", tmp_path / "train.jsonl", "--memory", "0.3"),
            *("--record", folder / "record.json"),
            *(flags or []),
            check=check,
        )

    return sample, tmp_path


def test_a_stage_says_with_which_engine_it_ran(stage):
    sample, folder = stage
    sample("vllm")
    rows = read_jsonl(folder / "vllm/paths.jsonl")
    record = read_record(folder / "vllm/record.json")
    assert len(rows) == 6 * 3
    assert record.settings["engine"] == "vllm"
    sample("transformers")
    others = read_jsonl(folder / "transformers/paths.jsonl")
    asked = ("id", "item", "style", "sample", "seed", "prompt_tokens")
    assert [{name: row[name] for name in asked} for row in rows] == [{n: row[n] for n in asked} for row in others]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_stage_takes_the_batch_invariant_mode_as_a_flag(stage):
    sample, folder = stage
    outcome = sample("vllm", check=False, flags=["--batch-invariant"])
    assert outcome.returncode == 1
    assert "this machine has no GPU; set `vllm.batch_invariant: false`" in outcome.stderr


def test_what_may_be_asked_later_is_refused_before_anything_is_generated(stage):
    sample, folder = stage
    outcome = sample("vllm", check=False, rationales=1, hint="red " * 600)
    assert outcome.returncode == 1
    assert "rationale-0: its prompt of" in outcome.stderr and "Processed prompts" not in outcome.stderr
    assert not Path(f"{folder / 'vllm/paths.jsonl'}.partial").exists()
