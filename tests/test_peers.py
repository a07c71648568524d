"""bench/peers.py on a tiny model: what it counts, and that its commands run and end with the promised line."""

import json
import shutil
import sys

import pytest
import yaml

from conftest import REPOSITORY, run
from selfrefine.files import read_json, read_jsonl, write_jsonl

sys.path.append(str(REPOSITORY / "bench/comparison"))

import products  # noqa: E402
import workers  # noqa: E402


@pytest.fixture(scope="module")
def results(tiny_model, tmp_path_factory):
    """A results/ as the quickstart's first steps leave it, with the tiny model and eight short questions."""
    folder = tmp_path_factory.mktemp("results")
    study = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    (student,), (teacher,) = study["study"]["students"], study["study"]["teachers"]
    shutil.copytree(tiny_model, folder / "models" / study["students"][student]["model"])
    items = [
        {"id": f"{i:016x}", "kind": "math", "question": f"Box {i} is red today.", "choices": [], "answer": str(i)}
        for i in range(8)
    ]
    write_jsonl(folder / "benchmarks/asdiv/train.jsonl", items)
    for task in study["study"]["evaluate"]:
        write_jsonl(
            folder / f"lm_eval/{task}/docs.jsonl", [{"id": item["id"], "prompt": item["question"]} for item in items]
        )
    demonstrations = [
        {"id": f"{i['id']}-cot-0", "item": i["id"], "text": "red " * 8 + "The answer is A."} for i in items
    ]
    write_jsonl(folder / f"demonstrations/{teacher}/asdiv.jsonl", demonstrations)
    return folder


def last_line(results, *arguments) -> dict:
    outcome = run(sys.executable, "bench/peers.py", *arguments, "--quick", "--threads", "1", "--results", results)
    return json.loads(outcome.stdout.splitlines()[-1])


def test_a_layers_products_hold_all_weights_of_the_linear_layers(tiny_model):
    from selfrefine.models import load_model

    model = load_model(tiny_model, "float32")
    shape = products.Shape.read(read_json(tiny_model / "config.json"))
    linear = sum(p.numel() for name, p in model.named_parameters() if "_proj." in name)
    assert shape.weights() == linear
    assert shape.head_weights() == model.lm_head.weight.numel()


def test_limits_follow_from_the_seconds_of_the_products(monkeypatch):
    shape = products.Shape(hidden=8, inner=16, heads=2, groups=1, head=4, vocabulary=32, layers=3)
    assert shape.weights() == 3 * (8 * 8 + 2 * 4 * 8 + 8 * 8 + 3 * 16 * 8)
    monkeypatch.setattr(products, "_seconds", lambda products, rows, layers, dtype, backward: {"linear": 2.0})
    assert products.decode_limit(shape, 64, "float32")["linear"]["tokens_per_second"] == 32
    # Twice two seconds: the layers, and the head at the positions that are learned.
    assert products.training_limit(shape, 100, 0.5, "float32")["linear"]["tokens_per_second"] == 25


def test_every_product_of_a_step_is_timed_forward_and_backward():
    wanted = {(8, 4): 2, (4, 8): 1}
    once = products._seconds(wanted, 16, 3, "float32", backward=False)
    both = products._seconds(wanted, 16, 3, "float32", backward=True)
    assert once.keys() == both.keys() >= {"linear"}
    assert min(*once.values(), *both.values()) > 0


def test_a_peer_that_is_not_there_is_named_with_what_brings_it(monkeypatch):
    peer = workers.PEERS["ctranslate2"]
    monkeypatch.setenv(peer.variable, sys.executable)
    lacking = workers.Peer("ctranslate2", "ctranslate2", ("no_such_module",), peer.packages, peer.variable)
    assert "pip install ctranslate2" in lacking.missing() and "CTRANSLATE2_PYTHON" in lacking.missing()
    monkeypatch.setenv(peer.variable, "/no/such/python")
    assert "/no/such/python" in lacking.missing()
    assert workers.PEERS["transformers"].missing() == ""


def test_a_worker_that_cannot_load_says_why(tmp_path):
    task = {"folder": "", "manifest": "", "compute": "float8", "threads": 1, "batch": 2}
    task |= {"scratch": str(tmp_path), "study": str(tmp_path)}
    with pytest.raises(workers.Failed, match="float8"):
        workers.Worker(workers.PEERS["transformers"], task)


def test_generation_ends_with_rates_limits_and_ratios(results):
    facts = last_line(results, "generation", "--peers", "transformers")
    assert facts["machine"]["threads"] == 1
    assert facts["machine"]["gemm_gflops"]["float32"]["linear"] > 0
    for side in ("ours", "transformers"):
        shape = facts["rates"]["shape"][side]["float32"]
        assert shape["decode"] > 0 and shape["whole"] == pytest.approx(
            64 * 64 / (64 * 63 / shape["decode"] + shape["prefill_seconds"]), rel=0.01
        )
        study = facts["rates"]["study"][side]
        # A quarter of the items: 2 of 8, five samples of each, and three benchmarks.
        assert 10 < study["sampling"]["tokens"] <= 10 * 96
        assert 6 < study["evaluations"]["tokens"] <= 6 * 96
    share = facts["limit"]["float32"]["share"]["linear"]
    decode = facts["rates"]["shape"]["ours"]["float32"]["decode"]
    assert share == pytest.approx(decode / facts["limit"]["float32"]["tokens_per_second"]["linear"], rel=0.01)
    rates = {side: facts["rates"]["study"][side]["all"]["rate"] for side in ("ours", "transformers")}
    assert facts["ratio"] == {"transformers": pytest.approx(rates["ours"] / rates["transformers"], rel=0.01)}


@pytest.mark.parametrize("stage", ["training", "preference"])
def test_training_ends_with_rates_and_ratios(results, stage):
    facts = last_line(results, stage)
    assert facts["rates"].keys() == {"ours", "trl", "trl-float32"}
    for side, row in facts["rates"].items():
        assert 0 < row["loop_seconds"] < row["whole_seconds"]
        if side != "ours":
            assert facts["ratio"][side] == pytest.approx(facts["rates"]["ours"]["rate"] / row["rate"], rel=0.01)
    assert ("limit" in facts) == (stage == "training")
    assert read_jsonl(results / "benchmarks/asdiv/train.jsonl")[0]["question"] == "Box 0 is red today."
    assert not (results / "checkpoints").exists()


def test_without_the_first_steps_it_says_what_to_run(tmp_path):
    outcome = run(sys.executable, "bench/peers.py", "training", "--results", tmp_path, check=False)
    assert outcome.returncode == 1
    assert "make quickstart" in outcome.stderr and "Traceback" not in outcome.stderr
