"""`snakemake --profile slurm` on a real SLURM cluster on this machine (tests/cluster.py), where one can be started."""

import re
from pathlib import Path

import pytest
import yaml

from cluster import Cluster, install, obstacle
from conftest import assert_same_results, make_study, snakemake

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


def test_jobs_on_nodes_have_their_cores_and_cards_and_no_hub(fresh):
    folder, path, config = fresh
    config["threads"] = {"train": 64, "generate": 65, "evaluate": 66}
    path.write_text(yaml.safe_dump(config))
    planned = snakemake(folder, "-n", "-p", "--profile", "slurm").stdout
    blocks = [block for block in re.split(r"\n(?=(?:local)?rule )", planned) if "resources:" in block]
    on_nodes = {block.split()[1].rstrip(":"): block for block in blocks if "login=0" in block}
    assert sorted(on_nodes) == ["evaluate", "instruct", "refine", "sample"]
    threads = {rule: int(re.search(r"threads: (\d+)", block)[1]) for rule, block in on_nodes.items()}
    assert threads == {"instruct": 64, "refine": 64, "sample": 65, "evaluate": 66}
    for block in on_nodes.values():
        assert "gpu=1" in block and "nodes=1" in block and "HF_HUB_OFFLINE=1 " in block
    assert len(blocks) > len(on_nodes) and all("login=1" in block for block in blocks if "login=0" not in block)


def make_small(folder: Path, model: Path) -> Path:
    """One job of each stage that nodes run: each takes half a minute more than elsewhere."""
    folder.mkdir()
    path, config = make_study(folder, model)
    config["study"] |= {"evaluate": ["boxes"], "arms": ["refine"]}
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return folder


def test_the_study_runs_on_a_cluster_with_the_same_bytes(cluster, tmp_path, tiny_model):
    here, folder = (make_small(tmp_path / name, tiny_model) for name in ("here", "there"))
    snakemake(here)
    snakemake(folder, "--profile", "slurm", *QUICK)
    assert_same_results(here, folder)
    # What loads a model was a job with a card, and nothing else was a job.
    jobs = cluster.jobs()
    rules = sorted(job["rule"].removeprefix("rule_").split("_wildcards_")[0] for job in jobs)
    assert rules == ["evaluate", "instruct", "refine", "sample"]
    assert {job["state"] for job in jobs} == {"COMPLETED"}
    shown = cluster.ask("scontrol", "--oneliner", "show", "jobs").stdout.splitlines()
    assert ["TresPerJob=gres:gpu:1" in line for line in shown] == [True] * len(jobs)
    # Stages write to the same logs as elsewhere; of a job that ended well, no other log stays.
    assert list(folder.glob("logs/instruct/tiny/oracle/boxes/100/0.log"))
    assert not list(folder.glob("logs/slurm/**/*.log"))
    again = snakemake(folder, "-n", "--profile", "slurm")
    assert "Nothing to be done" in again.stdout + again.stderr
    elsewhere = snakemake(folder, "-n")
    assert "Nothing to be done" in elsewhere.stdout + elsewhere.stderr


def test_a_run_without_the_clusters_facts_is_refused(cluster, fresh):
    outcome = snakemake(fresh[0], "--profile", "slurm", *QUICK, "--config", "validation=0.2", check=False)
    assert outcome.returncode == 1
    assert "configuration: cluster: is missing, so jobs would ask for no cards" in outcome.stdout + outcome.stderr
    assert cluster.jobs("all-but-ended") == []
