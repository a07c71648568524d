"""Replaces one function of Snakemake's SLURM plugin (docs/slurm-plugin.md).

The plugin asks for the states of all its jobs at once and goes by the answer. It takes a job for running that was
preempted for good, that SLURM no longer lists, or that sacct calls "CANCELLED by" someone; and when SLURM gives no
answer five times in a row, it forgets all its jobs and waits for none. Here each ends: in the queue again, or as a
failure, which Snakemake tries again, and the next attempt takes what the job had kept.
"""

import importlib.metadata
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TextIO

DISTRIBUTION = "snakemake-executor-plugin-slurm"
MODULE = "snakemake_executor_plugin_slurm"
# The versions of the plugin with which tests/test_slurm.py and bench/cluster_faults.py have passed.
TESTED = ("2.8.0",)

ENDED = ("COMPLETED", "BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")
# Answers in a row that call a job preempted, or leave it out, until something is done: SLURM may queue it again itself.
PATIENCE = 3
# Why a job waits, where waiting does not help.
HOPELESS = {
    "AccountNotAllowed": "its account may not use the partition",
    "BadConstraints": "no node satisfies its constraints",
    "JobHeldAdmin": "an administrator holds it, or it could not be launched; `scontrol release` lets it go",
    "JobHeldUser": "it is held; `scontrol release` lets it go",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is inactive",
    "PartitionNodeLimit": "it asks for more than the partition gives",
    "PartitionTimeLimit": "it asks for more time than the partition allows; set cluster.longest_hours to its limit",
    "QOSMaxWallDurationPerJobLimit": "it asks for more time than the account may; lower cluster.longest_hours",
}

# The states of jobs by id, and the seconds that the answer took; None for both where SLURM gave none.
Answer = tuple[dict[str, str] | None, float | None]


def install(stream: TextIO) -> None:
    """Replaces the plugin's function by `JobStates`; leaves it, and says so, with a version that is not tested."""
    version = importlib.metadata.version(DISTRIBUTION)
    if version not in TESTED:
        print(
            f"{DISTRIBUTION} {version}: tested is {', '.join(TESTED)}, so its handling of preempted and forgotten jobs "
            "is left as it is (docs/slurm-plugin.md)",
            file=stream,
            flush=True,
        )
        return
    plugin: Any = sys.modules[MODULE]
    plugin.query_job_status = JobStates(plugin.query_job_status, stream)


class JobStates:
    """The plugin's `query_job_status`, and what becomes of jobs about which it says nothing useful."""

    def __init__(self, ask: Callable[[str, Any], Awaitable[Answer]], stream: TextIO):
        self._ask = ask
        self._stream = stream
        self._known: dict[str, str] = {}
        # By job, how many answers in a row called it preempted or left it out.
        self._unclear: dict[str, int] = {}
        self._told: set[tuple[str, str]] = set()
        self._silent = False

    async def __call__(self, command: str, logger: Any) -> Answer:
        """The state of each job; what SLURM said last where it does not answer now."""
        found, seconds = await self._ask(command, logger)
        if found is None:
            if not self._silent:
                self._say(f"SLURM does not answer ({command.split()[0]}); its jobs go on, and it is asked again")
            self._silent = True
            return dict(self._known), 0.0
        self._silent = False
        # sacct writes "CANCELLED by" and who.
        found = {job: state.split()[0] for job, state in found.items()}
        self._known = {job: self._settled(job, found.get(job)) for job in {**self._known, **found}}
        if "PENDING" in self._known.values():
            self._name_hopeless()
        return dict(self._known), seconds

    def _settled(self, job: str, state: str | None) -> str:
        """The state that the plugin gets, for the one that SLURM gives; None for a job that it does not list."""
        known = self._known.get(job, "")
        # NODE_FAIL may be left again: a job that asks for it is queued again.
        if known in ENDED and state in (None, "PREEMPTED"):
            return known
        if state is not None and state != "PREEMPTED":
            self._unclear.pop(job, None)
            return state
        self._unclear[job] = self._unclear.get(job, 0) + 1
        if self._unclear[job] < PATIENCE:
            return state or known
        if state is None:
            self._say(
                f"SLURM no longer lists job {job}: it counts as failed; if it ended well, the next attempt takes its "
                "result"
            )
            return "CANCELLED"
        del self._unclear[job]
        return self._queued_again(job)

    def _queued_again(self, job: str) -> str:
        again = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        if again.returncode == 0:
            self._say(f"job {job} was preempted and is queued again")
            return "PENDING"
        self._say(f"job {job} was preempted and cannot be queued again ({again.stderr.strip()}): it counts as failed")
        return "CANCELLED"

    def _name_hopeless(self) -> None:
        """Names each job that waits for what will not come, once."""
        command = ["squeue", "--me", "--states=PENDING", "--noheader", "--format=%i|%r|%k"]
        listed = subprocess.run(command, capture_output=True, text=True)
        for line in listed.stdout.splitlines():
            job, reason, rule = line.split("|", 2)
            if job in self._known and reason in HOPELESS and (job, reason) not in self._told:
                self._told.add((job, reason))
                self._say(f"job {job} ({rule}) will not start ({reason}): {HOPELESS[reason]}")

    def _say(self, text: str) -> None:
        print(f"    … {text}", file=self._stream, flush=True)
