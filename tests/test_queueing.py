"""What is told of jobs that SLURM preempted, forgot, or did not answer about; no cluster is needed."""

import asyncio
import io
import subprocess
import sys

import pytest

from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "rules"))

from queueing import PATIENCE, Queue  # noqa: E402


@pytest.fixture
def slurm(monkeypatch):
    """A SLURM whose answers are written down: `states` to give next, `requeues` whether it can, `reasons` of what waits."""

    class Slurm:
        states: list = []
        requeues = True
        reasons = ""
        asked: list = []

        async def ask(self, command, logger):
            found = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            return (None, None) if found is None else (dict(found), 0.1)

        def run(self, command, **_):
            self.asked.append(command)
            if command[0] == "squeue":
                return subprocess.CompletedProcess(command, 0, self.reasons, "")
            return subprocess.CompletedProcess(command, 0 if self.requeues else 1, "", "Invalid job id specified")

    slurm = Slurm()
    slurm.asked = []
    monkeypatch.setattr("queueing.subprocess.run", slurm.run)
    return slurm


def looks(slurm, number: int) -> tuple[list[dict], str]:
    """What the plugin is told at each of so many looks, and what the user is."""
    stream = io.StringIO()
    queue = Queue(slurm.ask, stream)
    return [asyncio.run(queue("squeue --name run", None))[0] for _ in range(number)], stream.getvalue()


def test_what_is_plain_passes_through(slurm):
    slurm.states = [{"1": "RUNNING", "2": "COMPLETED"}, {"1": "CANCELLED by 0", "2": "COMPLETED"}]
    told, said = looks(slurm, 2)
    assert told == [{"1": "RUNNING", "2": "COMPLETED"}, {"1": "CANCELLED", "2": "COMPLETED"}]
    assert (said, slurm.asked) == ("", [])


def test_a_job_that_stays_preempted_is_queued_again(slurm):
    slurm.states = [{"1": "PREEMPTED"}]
    told, said = looks(slurm, PATIENCE)
    assert [now["1"] for now in told] == ["PREEMPTED"] * (PATIENCE - 1) + ["PENDING"]
    assert slurm.asked[0] == ["scontrol", "requeue", "1"]
    assert "job 1" in said and "is queued again" in said


def test_a_job_that_slurm_queues_again_itself_is_left_alone(slurm):
    slurm.states = [{"1": "PREEMPTED"}, {"1": "PENDING"}, {"1": "PREEMPTED"}, {"1": "RUNNING"}]
    told, _ = looks(slurm, 4)
    assert [now["1"] for now in told] == ["PREEMPTED", "PENDING", "PREEMPTED", "RUNNING"]
    assert ["scontrol", "requeue", "1"] not in slurm.asked


def test_a_job_that_cannot_be_queued_again_has_failed(slurm):
    slurm.states, slurm.requeues = [{"1": "PREEMPTED"}], False
    told, said = looks(slurm, 3 * PATIENCE)
    assert told[PATIENCE - 1 :] == [{"1": "CANCELLED"}] * (2 * PATIENCE + 1)
    assert said.count("cannot be queued again (Invalid job id specified): it counts as failed") == 1


def test_a_job_that_slurm_forgot_has_failed_unless_it_had_ended(slurm):
    slurm.states = [{"1": "RUNNING", "2": "COMPLETED", "3": "FAILED"}, {}]
    told, said = looks(slurm, 1 + PATIENCE)
    assert [now["1"] for now in told] == ["RUNNING"] * PATIENCE + ["CANCELLED"]
    assert {(now["2"], now["3"]) for now in told} == {("COMPLETED", "FAILED")}
    assert "SLURM no longer lists job 1" in said and "job 2" not in said


def test_slurms_last_word_counts_while_it_does_not_answer(slurm):
    slurm.states = [None, None, {"1": "RUNNING"}, None, None, {"1": "COMPLETED"}]
    told, said = looks(slurm, 6)
    assert told == [{}, {}, *[{"1": "RUNNING"}] * 3, {"1": "COMPLETED"}]
    assert said.count("SLURM does not answer (squeue)") == 2


def test_a_job_that_will_never_start_is_named_once(slurm):
    slurm.states = [{"1": "PENDING", "2": "PENDING"}]
    slurm.reasons = "1|PartitionTimeLimit|rule_sample\n2|Resources|rule_refine\n9|JobHeldUser|another's\n"
    _, said = looks(slurm, 3)
    assert said.count("job 1 (rule_sample) will not start (PartitionTimeLimit)") == 1
    assert "set cluster.longest_hours" in said and "job 2" not in said and "job 9" not in said
