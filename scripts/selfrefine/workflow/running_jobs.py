"""The jobs that run on this machine: what they make, since when, and whose lock they wait for."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from snakemake.shell import shell

from selfrefine.store.locks import holder_of, this_host

# The lock in an artifact's folder.
LOCK = ".lock"


class RunningJobs:
    """The jobs that `workflow`, Snakemake's own, runs here at the moment."""

    def __init__(self, workflow: Any):
        self._workflow = workflow

    def described(self) -> list[str]:
        """Each job in words: its rule, its record, and how long it has run."""
        lines = []
        for job in self._jobs():
            since = [time.time() - process.create_time() for process in self._of(job)[:1]]
            lines.append(_named(job) + "".join(f", running for {in_words(seconds)}" for seconds in since))
        return lines

    def waiting(self) -> Iterator[str]:
        """Each job that waits for a process which makes the same artifact, and who that process is."""
        for job in self._jobs():
            holder = holder_of(_folder(job) / LOCK)
            own = {process.pid for process in self._of(job)}
            if (
                own
                and holder
                and (holder.host != this_host() or psutil.pid_exists(holder.pid))
                and holder.pid not in own
            ):
                yield f"{_named(job)} waits for {holder}, which makes the same artifact"

    def signal(self, number: int) -> None:
        """Sends a signal to every process of every job."""
        for job in self._jobs():
            for process in reversed(self._of(job)):
                try:
                    process.send_signal(number)
                except psutil.Error:
                    continue

    def _jobs(self) -> list[Any]:
        scheduler = getattr(self._workflow, "scheduler", None)
        return sorted(scheduler.running, key=str) if scheduler else []

    def _of(self, job: Any) -> list[psutil.Process]:
        """The processes of a job that are alive, the shell that it was started by first."""
        # Snakemake keeps the shells by their jobs; a job that it runs in a thread of its own has none.
        started = shell._processes.get(getattr(job, "jobid", None))
        try:
            first = psutil.Process(started.pid) if started else None
            return [first, *first.children(recursive=True)] if first else []
        except psutil.Error:
            return []


def in_words(seconds: float) -> str:
    """A duration, to the second below two minutes and to the minute above."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _named(job: Any) -> str:
    return f"{job.rule.name} of {_folder(job)}" if hasattr(job, "rule") else str(job)


def _folder(job: Any) -> Path:
    return Path(os.fspath(next(iter(job.output), ""))).parent
