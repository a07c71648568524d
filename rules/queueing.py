"""SLURM's word on a run's jobs, mended where Snakemake's plugin would wait for ever.

The plugin (2.8.0) asks for the states of all its jobs at once and goes by the answer. It takes a job for running that was
preempted for good, that SLURM no longer lists, or that sacct calls "CANCELLED by" someone; and when SLURM gives no answer
five times in a row, it forgets all its jobs and waits for none. Here each ends: in the queue again, or as a failure, which
Snakemake tries again and which then takes what the job had kept.

This stands in for one function of the plugin, so its version is pinned exactly.
"""

import subprocess
import sys

from snakemake.exceptions import WorkflowError

PLUGIN = "snakemake_executor_plugin_slurm"
ENDED = ("COMPLETED", "BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")
# Looks at a job that is preempted, or not listed, until something is done about it: SLURM may queue it again itself.
PATIENCE = 3
# Why a job waits, where waiting does not help.
HOPELESS = {
    "AccountNotAllowed": "its account may not use the partition",
    "BadConstraints": "no node is like that",
    "JobHeldAdmin": "an administrator holds it, or it could not be launched; `scontrol release` lets it go",
    "JobHeldUser": "it is held; `scontrol release` lets it go",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is inactive",
    "PartitionNodeLimit": "it asks for more than the partition gives",
    "PartitionTimeLimit": "it asks for more time than the partition gives; set cluster.longest_hours to the partition's limit",
    "QOSMaxWallDurationPerJobLimit": "it asks for more time than the account may; lower cluster.longest_hours",
}


class Queue:
    """The plugin's question for the states of a run's jobs, with what it lacks."""

    def __init__(self, ask, stream):
        self._ask = ask
        self._stream = stream
        self._known: dict[str, str] = {}
        self._looks: dict[str, int] = {}
        self._told: set = set()
        self._silent = False

    async def __call__(self, command: str, logger) -> tuple[dict[str, str], float]:
        """(state of each job, seconds that the answer took); SLURM's last word where it does not answer now."""
        found, seconds = await self._ask(command, logger)
        if found is None:
            if not self._silent:
                self._say(f"SLURM does not answer ({command.split()[0]}); its jobs go on, and it is asked again")
            self._silent = True
            return dict(self._known), 0.0
        self._silent = False
        # sacct writes "CANCELLED by" and who.
        found = {job: state.split()[0] for job, state in found.items()}
        self._known = {job: self._mended(job, found.get(job)) for job in {**self._known, **found}}
        if "PENDING" in self._known.values():
            self._name_hopeless()
        return dict(self._known), seconds

    def _mended(self, job: str, state: str | None) -> str:
        known = self._known.get(job)
        # NODE_FAIL may be left again: a job that asks for it is queued again.
        if known in ENDED and state in (None, "PREEMPTED"):
            return known
        if state not in (None, "PREEMPTED"):
            self._looks.pop(job, None)
            return state
        self._looks[job] = self._looks.get(job, 0) + 1
        if self._looks[job] < PATIENCE:
            return state or known
        if state is None:
            self._say(
                f"SLURM no longer lists job {job}: it counts as failed; if it ended well, the next attempt takes its result"
            )
            return "CANCELLED"
        del self._looks[job]
        again = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        if again.returncode == 0:
            self._say(f"job {job} gave way to another and is queued again")
            return "PENDING"
        self._say(
            f"job {job} gave way to another and cannot be queued again ({again.stderr.strip()}): it counts as failed"
        )
        return "CANCELLED"

    def _name_hopeless(self) -> None:
        listed = subprocess.run(
            ["squeue", "--me", "--states=PENDING", "--noheader", "--format=%i|%r|%k"], capture_output=True, text=True
        )
        for line in listed.stdout.splitlines():
            job, reason, rule = line.split("|", 2)
            if job in self._known and reason in HOPELESS and (job, reason) not in self._told:
                self._told.add((job, reason))
                self._say(f"job {job} ({rule}) will not start ({reason}): {HOPELESS[reason]}")

    def _say(self, text: str) -> None:
        print(f"    … {text}", file=self._stream, flush=True)


def install() -> None:
    """Puts it in the place of the plugin's function."""
    plugin = sys.modules.get(PLUGIN)
    if plugin:
        plugin.query_job_status = Queue(plugin.query_job_status, sys.stderr)


def refuse_without_cluster(workflow, study) -> None:
    """Stops a run on a cluster of which nothing is known: its jobs would be queued without cards."""
    if workflow.executor_plugin.common_settings.non_local_exec and study.cluster is None:
        raise WorkflowError(
            "configuration: cluster: is missing, so jobs would ask for no cards; slurm/config.yaml sets it under `config`, "
            "which `--config` on the command line replaces: put settings of the study into its file instead"
        )
