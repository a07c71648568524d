"""`snakemake --profile slurm` on a real SLURM cluster on this machine (tests/cluster.py), where one can be started."""

from collections import Counter

import pytest

from cluster import Cluster, install, obstacle
from conftest import assert_same_results, snakemake

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
    started = Cluster.start()
    yield started
    started.stop()


def test_the_study_runs_on_a_cluster_with_the_same_bytes(cluster, finished, fresh):
    folder, _, _ = fresh
    snakemake(folder, "--profile", "slurm", *QUICK)
    assert_same_results(finished[0], folder)
    # What loads a model was a job with a card, and nothing else was a job.
    jobs = cluster.jobs()
    rules = Counter(job["rule"].removeprefix("rule_").split("_wildcards_")[0] for job in jobs)
    assert rules == {"instruct": 1, "sample": 1, "refine": 1, "evaluate": 6}
    assert {(job["state"], job["gpus"]) for job in jobs} == {("COMPLETED", "gres:gpu:1")}
    # Stages write to the same logs as elsewhere; of a job that ended well, no other log stays.
    assert {path.parent.name for path in folder.glob("logs/evaluate/tiny/*/*.log")} == {"base"}
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
