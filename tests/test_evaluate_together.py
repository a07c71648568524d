"""Evaluations of one checkpoint share a load of its weights, and each is an artifact of its own."""

import contextlib
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from conftest import assert_same_results, loads, planned_jobs, planned_rules, run, snakemake
from selfrefine.store.hashing import canonical_json
from selfrefine.store.locks import held
from selfrefine.study.artifact import Artifact
from selfrefine.study.final_artifacts import FinalArtifacts
from selfrefine.study.open_study import open_study

INSTRUCTED = "tiny/oracle-boxes-100-seed0"
CHECKPOINTS = ("tiny/base", INSTRUCTED, f"{INSTRUCTED}/boxes-cot-round1")


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A finished study to go on with; nothing is logged yet."""
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder, symlinks=True, ignore=shutil.ignore_patterns("logs"))
    return folder


def change(folder: Path, edit) -> FinalArtifacts:
    """Edits the tiny study's configuration; the study that comes of it."""
    path = folder / "config/tiny.yaml"
    config = yaml.safe_load(path.read_text())
    edit(config)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    with contextlib.chdir(folder):
        return open_study([Path("config/tiny.yaml")])


def states(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """What changes of a file that is written anew, of every artifact."""
    return {
        path: (path.stat().st_ino, path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.glob("results/store/[a-z]*/**/*")
        if path.is_file()
    }


def test_a_checkpoint_is_loaded_once_for_all_its_benchmarks(finished, fresh):
    folder, _, _ = fresh
    snakemake(folder, cores=1)
    found = loads(folder)
    # The student as it comes, the instructed one where it samples, the refined one.
    assert len(found) == 3 and set(found.values()) == {1}, found
    assert f"sample/{INSTRUCTED}/boxes-100-seed0" in found
    logs = {
        path.parent.relative_to(folder / "logs").as_posix(): path.read_text()
        for path in folder.glob("logs/evaluate/**/*.log")
    }
    assert len(logs) == 6
    for name, text in logs.items():
        assert (name in found) != ("its artifact is made already" in text), name
    assert_same_results(finished[0], folder)


def test_for_a_further_benchmark_weights_are_loaded_to_evaluate_on_it_alone(copy):
    """The training split is held apart from it, too; what follows from an equal split is linked."""

    def add(config: dict) -> None:
        config["benchmarks"]["near"] = json.loads(json.dumps(config["benchmarks"]["far"]))
        config["benchmarks"]["near"]["splits"]["test"]["size"] = 14
        config["benchmarks"]["near"]["title"] = "Near"
        config["study"]["evaluate"].append("near")

    change(copy, add)
    before = states(copy)
    planned = planned_rules(snakemake(copy, "-n"))
    made = {rule: planned[rule] for rule in planned if rule not in ("plot", "layout")}
    assert made == {
        "evaluate": 7,
        "prepare": 2,
        "listing": 5,
        **dict.fromkeys(("fetch", "export_task"), 1),
        **dict.fromkeys(("demonstrate", "instruct", "sample", "pair", "refine"), 1),
        "ask": 2,
        **dict.fromkeys(("configuration", "sources", "tables", "claims", "flips", "summarise", "page", "show"), 1),
    }
    snakemake(copy, cores=1)
    assert loads(copy) == {f"evaluate/{checkpoint}/near": 1 for checkpoint in CHECKPOINTS}
    after = states(copy)
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize(
    ("cluster", "shared"),
    [
        (None, {"sample", "evaluate"}),
        ({"gpu_memory": 80}, {"evaluate"}),
        ({"gpu_memory": 80, "evaluate_together": False}, set()),
    ],
    ids=["here", "a cluster", "a cluster with GPUs to spare"],
)
def test_what_a_job_takes_along_follows_from_where_it_runs(fresh, cluster, shared):
    folder, _, _ = fresh
    change(folder, lambda config: config.update({"cluster": cluster} if cluster else {}))
    jobs = [(job.split(":")[0], job) for job in planned_jobs(snakemake(folder, "-n", "-p"))]
    jobs = [(rule, job) for rule, job in jobs if rule in ("sample", "evaluate")]
    assert len(jobs) == 7
    for rule, block in jobs:
        also = json.loads(re.search(r"--also '([^']*)'", block)[1])
        own = Path(re.search(r"--record (\S+)", block)[1])
        assert len(also) == ((2 if rule == "sample" else 1) if rule in shared else 0), block
        for other in also:
            record = Path(other["record"])
            assert record != own
            assert record.parents[2].relative_to("results/store/evaluate") == own.parents[2].relative_to(
                f"results/store/{rule}"
            )


def test_where_gpus_are_to_spare_each_evaluation_is_a_job_that_loads(finished, fresh):
    folder, _, _ = fresh
    change(folder, lambda config: config.update(cluster={"evaluate_together": False}))
    snakemake(folder, cores=1)
    names = [f"evaluate/{checkpoint}/{task}" for checkpoint in CHECKPOINTS for task in ("boxes", "far")]
    assert loads(folder) == dict.fromkeys([f"sample/{INSTRUCTED}/boxes-100-seed0", *names], 1)
    assert_same_results(finished[0], folder)


# Runs a stage that a number of batches after its start, if it makes more, is killed; says how many it made.
KILLED = """
import os, runpy, signal, sys
last, *sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(sys.argv[0])
from selfrefine.engines import transformers as engine
from selfrefine.engines.transformers import TransformersEngine
engine.GROUP = 1  # a group is no more than a batch
made, generate = 0, TransformersEngine.generate
def counted(self, batch):
    global made
    if made == int(last):
        os.kill(os.getpid(), signal.SIGKILL)
    made += 1
    return generate(self, batch)
TransformersEngine.generate = counted
runpy.run_path(sys.argv[0], run_name="__main__")
print("batches:", made)
"""


@pytest.fixture
def small_batches(copy) -> tuple[Path, Artifact, Artifact]:
    """(folder, evaluation on 20 items, evaluation on 10) of a student that answers four at a time, to be made."""
    finals = change(copy, lambda config: config["students"]["tiny"].update(batch_size=4))
    return copy, *(finals.artifacts.evaluation("tiny/base", task) for task in ("boxes", "far"))


def evaluate(folder: Path, own: Artifact, *others: Artifact, last: int = 99, check: bool = True):
    """Evaluates as the workflow would, with others taken along; killed after so many batches."""
    also = [
        {
            "record": str(one.record),
            "task": str(one.inputs["task"][0].record),
            "settings": one.settings,
            "code": one.code,
        }
        for one in others
    ]
    inputs = [part for flag in ("checkpoint", "task") for part in (f"--{flag}", own.inputs[flag][0].record)]
    command = ["scripts/evaluate.py", "--settings", canonical_json(own.settings), *inputs]
    command += ["--also", json.dumps(also), "--code", own.code, "--record", own.record]
    return run(sys.executable, "-c", KILLED, str(last), *command, cwd=folder, check=check)


@pytest.mark.parametrize(
    ("last", "kept"),
    [(3, {"boxes": 3}), (5, {"far": 0}), (7, {"far": 2})],
    ids=["in its own", "between two", "in what it took along"],
)
def test_a_kill_loses_one_batch(small_batches, tmp_path, last, kept):
    folder, boxes, far = small_batches
    other = tmp_path / "other"
    shutil.copytree(folder, other, symlinks=True)
    assert "batches: 8" in evaluate(other, boxes, far).stdout
    assert evaluate(folder, boxes, far, last=last, check=False).returncode == -9
    assert (folder / boxes.record).exists() == ("boxes" not in kept)
    journals = {path.parts[-3]: path for path in folder.glob("results/store/evaluate/tiny/base/**/*.partial")}
    # The first line says which weights answered.
    assert {task: len(path.read_text().splitlines()) - 1 for task, path in journals.items()} == kept
    made = 0
    for own, along in ((boxes, far), (far, boxes)):
        made += int(evaluate(folder, own, along).stdout.split("batches:")[1])
    assert made == 8 - last
    for one in (boxes, far):
        assert (folder / one.file).read_bytes() == (other / one.file).read_bytes()
        assert not list((folder / one.folder).glob("*.partial")) and not (folder / one.folder / ".lock").exists()


def test_what_another_process_is_at_is_left_to_it(small_batches):
    folder, boxes, far = small_batches
    with held(folder / far.folder / ".lock"):
        outcome = evaluate(folder, boxes, far)
    assert "batches: 5" in outcome.stdout
    assert (folder / boxes.record).exists() and not (folder / far.record).exists()


def test_what_cannot_be_made_along_is_left_to_its_own_job(small_batches):
    folder, boxes, far = small_batches
    docs = folder / far.inputs["task"][0].folder / "docs.jsonl"
    docs.write_bytes(docs.read_bytes()[:-1])
    outcome = evaluate(folder, boxes, far)
    assert f"{far.record}: not made along with {boxes.record}: its own job will say more" in outcome.stdout
    assert (folder / boxes.record).exists() and not (folder / far.record).exists()
    own = evaluate(folder, far, check=False)
    assert own.returncode == 1
    assert f"error: {docs.relative_to(folder)}: has " in own.stderr and "verify --set-aside" in own.stderr


def test_what_is_not_exported_yet_is_left_to_its_own_job(small_batches):
    folder, boxes, far = small_batches
    shutil.rmtree(folder / far.inputs["task"][0].folder)
    outcome = evaluate(folder, boxes, far)
    assert "batches: 5" in outcome.stdout and "not made along" not in outcome.stdout
    assert not (folder / far.record).exists()


def test_what_is_made_loads_nothing(copy):
    finals = change(copy, lambda config: None)
    boxes, far = (finals.artifacts.evaluation("tiny/base", task) for task in ("boxes", "far"))
    shutil.rmtree(copy / far.folder)
    assert "batches: 0" in evaluate(copy, boxes, far).stdout
    assert not (copy / far.record).exists()
