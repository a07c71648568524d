"""What the plugin learns about jobs that SLURM preempted, forgot, or did not answer about; no cluster is needed."""

import asyncio
import importlib.metadata
import io
import re
import subprocess
import sys
import types

import pytest

from conftest import REPOSITORY
from selfrefine.workflow import slurm_plugin
from selfrefine.workflow.slurm_plugin import PATIENCE, TESTED, JobStates


@pytest.fixture
def slurm(monkeypatch):
    """A SLURM with canned answers: `states` to give next, `requeues` whether it can, `reasons` of what waits."""

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
    monkeypatch.setattr("selfrefine.workflow.slurm_plugin.subprocess.run", slurm.run)
    return slurm


def looks(slurm, number: int) -> tuple[list[dict], str]:
    """What the plugin is told at each of so many looks, and what the user is."""
    stream = io.StringIO()
    states = JobStates(slurm.ask, stream)
    return [asyncio.run(states("squeue --name run", None))[0] for _ in range(number)], stream.getvalue()


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


@pytest.fixture
def plugin(monkeypatch):
    """The plugin's module, with a function of its own."""
    module = types.ModuleType(slurm_plugin.MODULE)
    module.query_job_status = ask = object()
    monkeypatch.setitem(sys.modules, slurm_plugin.MODULE, module)
    return module, ask


def test_the_tested_version_has_its_function_replaced(plugin, monkeypatch):
    module, ask = plugin
    monkeypatch.setattr(importlib.metadata, "version", {slurm_plugin.DISTRIBUTION: TESTED[0]}.get)
    said = io.StringIO()
    slurm_plugin.install(said)
    assert isinstance(module.query_job_status, JobStates) and module.query_job_status._ask is ask
    assert said.getvalue() == ""


def test_another_version_is_left_as_it_is_and_one_line_says_so(plugin, monkeypatch):
    module, ask = plugin
    monkeypatch.setattr(importlib.metadata, "version", {slurm_plugin.DISTRIBUTION: "99.1.0"}.get)
    said = io.StringIO()
    slurm_plugin.install(said)
    assert module.query_job_status is ask
    assert said.getvalue().count("\n") == 1
    assert "snakemake-executor-plugin-slurm 99.1.0" in said.getvalue() and TESTED[0] in said.getvalue()


def test_the_pinned_version_is_among_the_tested_ones_and_stands_in_the_page():
    pinned = re.search(rf"^{slurm_plugin.DISTRIBUTION}==(\S+)", (REPOSITORY / "envs/dev.txt").read_text(), re.M)
    assert pinned[1] in TESTED
    page = (REPOSITORY / "docs/slurm-plugin.md").read_text()
    assert [version for version in TESTED if version not in page] == []
