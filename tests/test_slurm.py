"""`snakemake --profile slurm` on a real SLURM cluster on this machine (tests/cluster.py), where one can be started."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from cluster import Cluster, install, obstacle
from conftest import REAL_JOBS, artifact, assert_same_results, loads, make_study, nothing_to_do, planned_jobs, snakemake


@pytest.fixture(autouse=True)
def real_jobs(monkeypatch):
    """Jobs are processes of Snakemake's, to be found and killed as those of users are."""
    monkeypatch.setenv(REAL_JOBS, "1")


STUDENT = "tiny/oracle-boxes-100-seed0"
# What SLURM knows of a job that evaluates a checkpoint: Snakemake's name for the group, and its rules.
EVALUATIONS = "evaluate_evaluate"
# The profile's polls are for jobs of minutes; here jobs last seconds.
QUICK = [
    "--slurm-init-seconds-before-status-checks",
    "6",
    "--seconds-between-status-checks",
    "1",
    "--latency-wait",
    "5",
]


@pytest.fixture(scope="module")
def cluster():
    reason = obstacle() or install()
    if reason:
        pytest.skip(reason)
    try:
        started = Cluster.start()
    except OSError as error:  # a container that may make no devices, a host whose name is no address of its own
        pytest.skip(f"no SLURM cluster can be started on this machine: {error}")
    yield started
    started.stop()


def test_jobs_on_nodes_have_their_cores_and_gpus_and_no_hub(fresh):
    folder, path, config = fresh
    config["threads"] = {"train": 64, "generate": 65, "evaluate": 66}
    path.write_text(yaml.safe_dump(config))
    planned = planned_jobs(snakemake(folder, "-n", "-p", "--profile", "slurm"))
    blocks = [block for block in planned if "resources:" in block]
    on_nodes = {block.split(":")[0]: block for block in blocks if "login=0" in block}
    assert sorted(on_nodes) == ["evaluate", "instruct", "refine", "sample"]
    threads = {rule: int(re.search(r"threads: (\d+)", block)[1]) for rule, block in on_nodes.items()}
    assert threads == {"instruct": 64, "refine": 64, "sample": 65, "evaluate": 66}
    for block in on_nodes.values():
        assert "gpu=1" in block and "nodes=1" in block and "HF_HUB_OFFLINE=1 " in block
    assert len(blocks) > len(on_nodes) and all("login=1" in block for block in blocks if "login=0" not in block)


@pytest.mark.parametrize("together", [True, False])
def test_evaluations_of_one_job_ask_together_for_no_more_time_than_there_is(fresh, together):
    folder, _, _ = fresh
    # For GPUs without a known memory no time can be estimated, so that each job asks for all there is.
    cluster = f'cluster={{"longest_hours": 2, "evaluate_together": {str(together).lower()}}}'
    minutes: dict[str, list[int]] = {}
    for block in planned_jobs(snakemake(folder, "-n", "-p", "--profile", "slurm", "--config", cluster)):
        if found := re.match(r"(evaluate|sample):.*names=([^,]*).*runtime=(\d+)", block, re.DOTALL):
            job = found[2].rpartition("/")[0] if found[1] == "evaluate" else found[1]
            minutes.setdefault(job, []).append(int(found[3]))
    assert minutes.pop("sample") == [120]
    assert len(minutes) == 3
    assert [*minutes.values()] == [[60, 60] if together else [120, 120]] * 3


def groups(folder: Path, *arguments: str) -> list[list[str]]:
    """The names of the evaluations of each job on a cluster that a dry run plans."""
    _, *found = snakemake(folder, "-n", "--profile", "slurm", *arguments).stdout.split("Group job evaluate ")
    # What belongs to a group is indented.
    return sorted(sorted(re.findall(r"^ {8}wildcards: names=([^,]*)", text, re.MULTILINE)) for text in found)


def test_evaluations_of_one_checkpoint_are_one_job_whatever_is_made_already(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder, symlinks=True)
    path = folder / "config/tiny.yaml"
    config = yaml.safe_load(path.read_text())
    config["benchmarks"]["far"]["stop"] = ["Question:"]
    path.write_text(yaml.safe_dump(config))
    far = [[f"{STUDENT}/boxes-cot-round1/far"], [f"{STUDENT}/far"]]
    assert groups(folder) == [["tiny/base/far"], *far]
    # The other one is to be made, too.
    shutil.rmtree(artifact(folder, "evaluate/tiny/base/boxes"))
    assert groups(folder) == [["tiny/base/boxes", "tiny/base/far"], *far]
    assert groups(folder, "--config", 'cluster={"evaluate_together": false}') == []


def make_small(folder: Path, model: Path) -> Path:
    """One checkpoint to evaluate: each job takes half a minute more than elsewhere."""
    folder.mkdir()
    path, config = make_study(folder, model)
    config["study"] |= {"arms": ["refine"]}
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return folder


def started(cluster: Cluster, already: set[str]) -> dict[str, dict[str, str]]:
    """The jobs that a cluster has had beside those already known, by id, each with the name of its rule alone."""
    jobs = {job["id"]: job for job in cluster.jobs() if job["id"] not in already}
    for job in jobs.values():
        job["rule"] = job["rule"].removeprefix("rule_").split("_wildcards_")[0]
    return jobs


def test_the_study_runs_on_a_cluster_with_the_same_bytes(cluster, tmp_path, tiny_model):
    here, folder = (make_small(tmp_path / name, tiny_model) for name in ("here", "there"))
    already = set(started(cluster, set()))
    snakemake(here)
    snakemake(folder, "--profile", "slurm", *QUICK)
    assert_same_results(here, folder)
    # What loads a model was a job with a GPU, and nothing else was a job; the evaluations of a checkpoint are one.
    jobs = started(cluster, already)
    assert sorted(job["rule"] for job in jobs.values()) == [EVALUATIONS, "instruct", "refine", "sample"]
    assert {job["state"] for job in jobs.values()} == {"COMPLETED"}
    shown = cluster.ask("scontrol", "--oneliner", "show", "jobs").stdout.splitlines()
    gpus = ["TresPerJob=gres:gpu:1" in line for line in shown if re.match(r"JobId=(\d+)", line)[1] in jobs]
    assert gpus == [True] * len(jobs)
    # Stages write to the same logs as elsewhere; of a job that ended well, no other log stays.
    assert list(folder.glob("logs/instruct/tiny/oracle-boxes-100-seed0/*.log"))
    assert not list(folder.glob("logs/slurm/**/*.log"))
    assert loads(folder) == {f"sample/{STUDENT}/boxes-100-seed0": 1, f"evaluate/{STUDENT}/boxes-cot-round1/boxes": 1}
    assert nothing_to_do(snakemake(folder, "-n", "--profile", "slurm"))
    assert nothing_to_do(snakemake(folder, "-n"))


def test_a_cluster_with_gpus_to_spare_has_a_job_for_each_evaluation(cluster, tmp_path, tiny_model):
    here, folder = (make_small(tmp_path / name, tiny_model) for name in ("here", "there"))
    already = set(started(cluster, set()))
    spread = 'cluster={"gpu_memory": 80, "evaluate_together": false}'
    snakemake(here)
    # All but the evaluations, from here.
    shutil.copytree(here / "results", folder / "results", symlinks=True)
    for name in ("store/evaluate", "store/tables", "store/claims", "tiny"):
        shutil.rmtree(folder / "results" / name)
    snakemake(folder, "--profile", "slurm", *QUICK, "--config", spread)
    assert_same_results(here, folder)
    jobs = started(cluster, already)
    assert [job["rule"] for job in jobs.values()] == ["evaluate"] * 2
    assert {job["state"] for job in jobs.values()} == {"COMPLETED"}
    assert loads(folder) == {f"evaluate/{STUDENT}/boxes-cot-round1/{task}": 1 for task in ("boxes", "far")}


def test_a_run_without_the_clusters_facts_is_refused(cluster, fresh):
    outcome = snakemake(fresh[0], "--profile", "slurm", *QUICK, "--config", "validation=0.2", check=False)
    assert outcome.returncode == 1
    assert "configuration: cluster: is missing, so jobs would ask for no GPUs" in outcome.stdout + outcome.stderr
    assert cluster.jobs("all-but-ended") == []
