"""bench/peers.py on a tiny model: its counts, and that its commands end with the promised line."""

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY, record_model, run
from selfrefine.store.files import read_json, write_jsonl
from selfrefine.store.hashing import sha256_of
from selfrefine.study.design import Study
from selfrefine.study.open_study import finals_of, read_configuration

sys.path.append(str(REPOSITORY / "bench/comparison"))

import before  # noqa: E402
import products  # noqa: E402
import workers  # noqa: E402
from quickstart import TASK, Quickstart  # noqa: E402


@pytest.fixture(scope="module")
def artifacts():
    """The quickstart's artifacts."""
    return finals_of(Study.read(read_configuration([])).located(REPOSITORY), keep=False).artifacts


@pytest.fixture(scope="module")
def results(artifacts, tiny_model, tmp_path_factory):
    """A results/ as the quickstart's first steps leave it, with the tiny model and eight short questions."""
    study = artifacts.study
    (student,), (teacher,) = study.study.students, study.study.teachers
    items = [
        {"id": f"{i:016x}", "kind": "math", "question": f"Box {i} is red today.", "choices": [], "answer": str(i)}
        for i in range(8)
    ]
    demonstrations = [
        {"id": f"{i['id']}-cot-0", "item": i["id"], "text": "red " * 8 + "The answer is A."} for i in items
    ]
    documents = [{"id": item["id"], "prompt": item["question"]} for item in items]
    model = artifacts.model(study.students[student].model)
    rows = {
        artifacts.items(TASK, "train"): ("items.jsonl", items),
        artifacts.demonstrations(teacher, TASK): ("demonstrations.jsonl", demonstrations),
        **{artifacts.lm_eval_task(task): ("docs.jsonl", documents) for task in study.study.evaluate},
    }
    folder = tmp_path_factory.mktemp("quickstart")
    # Paths in records go from the study's folder.
    with contextlib.chdir(folder):
        shutil.copytree(tiny_model, model.folder)
        record_model(model.folder)
        for one, (name, made) in rows.items():
            write_jsonl(one.folder / name, made)
            record_model(one.folder, stage=one.stage)
    return folder / "results"


def contents(results: Path) -> dict[str, str]:
    """The sha256 of every file."""
    return {str(path): sha256_of(path) for path in results.rglob("*") if path.is_file()}


def last_line(results, *arguments) -> dict:
    outcome = run(sys.executable, "bench/peers.py", *arguments, "--quick", "--threads", "1", "--results", results)
    return json.loads(outcome.stdout.splitlines()[-1])


def test_a_layers_products_hold_all_weights_of_the_linear_layers(tiny_model):
    from selfrefine.models.checkpoints import load_model

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
    task = {"folder": "", "checkpoint": "", "compute": "float8", "threads": 1, "batch": 2}
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
    kept = contents(results)
    facts = last_line(results, stage)
    assert facts["rates"].keys() == {"ours", "trl", "trl-float32"}
    for side, row in facts["rates"].items():
        assert 0 < row["loop_seconds"] < row["whole_seconds"]
        if side != "ours":
            assert facts["ratio"][side] == pytest.approx(facts["rates"]["ours"]["rate"] / row["rate"], rel=0.01)
    assert ("limit" in facts) == (stage == "training")
    # What the study made is only read.
    assert contents(results) == kept


def test_without_the_first_steps_it_says_what_to_run(tmp_path):
    outcome = run(sys.executable, "bench/peers.py", "training", "--results", tmp_path, check=False)
    assert outcome.returncode == 1
    assert "make quickstart" in outcome.stderr and "Traceback" not in outcome.stderr


def test_of_what_this_checkout_would_make_anew_the_latest_is_taken(artifacts, results, tmp_path):
    shutil.copytree(results, tmp_path / "results")
    (tmp_path / "scratch").mkdir()
    own = artifacts.items(TASK, "train").folder
    older, newer = (tmp_path / own.with_name(key * 12) for key in "ab")
    for number, folder in enumerate((newer, older)):
        shutil.copytree(tmp_path / own, folder)
        os.utime(folder / "record.json", (10**9 - number, 10**9 - number))

    def taken() -> Path:
        return Quickstart(tmp_path / "results", tmp_path / "scratch").train_items.parent

    assert taken() == tmp_path / own
    shutil.rmtree(tmp_path / own)
    assert taken() == newer
    (newer / "record.json").unlink()
    assert taken() == older


@pytest.mark.parametrize("trained", [False, True])
def test_a_checkout_from_before_the_store_gets_a_manifest(results, tmp_path, trained):
    """As e2542c9 reads it: every file of the checkpoint and its model, where it lies, with size and sha256."""
    (tmp_path / "theirs/scripts/selfrefine").mkdir(parents=True)
    (tmp_path / "theirs/scripts/selfrefine/checkpoints.py").touch()
    (tmp_path / "scratch").mkdir()
    study = Quickstart(results, tmp_path / "scratch")
    checkpoint = study.base
    if trained:
        (tmp_path / "trained").mkdir()
        for name in ("adapter_config.json", "adapter_model.safetensors", "training.jsonl"):
            (tmp_path / "trained" / name).write_text(name)
        model = str(study.base.relative_to(study.folder))
        checkpoint = record_model(tmp_path / "trained", stage="instruct", model=model)
    assert before.readable(checkpoint, REPOSITORY, study) == checkpoint
    for _ in range(2):
        path = before.readable(checkpoint, tmp_path / "theirs", study)
    manifest = read_json(path)
    assert sorted(manifest["files"]) == (["adapter_config.json", "adapter_model.safetensors"] if trained else [])
    model = Path(manifest["model"]["folder"])
    assert manifest["model"]["manifest_sha256"] == sha256_of(model / "manifest.json")
    described = read_json(model / "manifest.json")["files"]
    assert described.keys() == {file.name for file in study.model.iterdir()} - {"record.json"}
    for folder, files in ((path.parent, manifest["files"]), (model, described)):
        for name, entry in files.items():
            file = folder / name
            assert entry == {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    flags, record = before.flags(tmp_path / "theirs", tmp_path)
    assert flags[::2] == ["--manifest", "--log", "--provenance"] and record in flags
    assert before.flags(REPOSITORY, tmp_path) == (["--record", tmp_path / "record.json"], tmp_path / "record.json")
