"""Interrupting: a first signal lets the running jobs end and says so, a second one stops them."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, TextIO

from snakemake.exceptions import WorkflowError

from selfrefine.workflow.running_jobs import RunningJobs

# Sent to the jobs by the second signal, and from the third on.
STOP, KILL = signal.SIGTERM, signal.SIGKILL
# How often the running jobs are asked whether they wait for a lock.
SECONDS = 2.0


class Interruption:
    """What Ctrl-C (SIGINT) and SIGTERM do to a run of Snakemake, once its jobs run.

    A terminal sends Ctrl-C to the jobs as well, which end by it at once. One that was sent to Snakemake alone would
    wait for them, for minutes and without a word.
    """

    def __init__(self, workflow: Any):
        self._workflow = workflow
        self._jobs = RunningJobs(workflow)
        self._stream = sys.stderr
        self._number = signal.SIGINT
        self._times = 0
        self._told: set[str] = set()

    def install(self, stream: TextIO, here: bool) -> None:
        """Takes the signals over; `here` says that the jobs run on this machine, not on the nodes of a cluster."""
        self._stream = stream
        # Snakemake cancels the jobs of a cluster at the first Ctrl-C.
        for number in (signal.SIGINT, signal.SIGTERM) if here else (signal.SIGTERM,):
            # What was started to ignore a signal (nohup, or & in a script) goes on ignoring it.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._signalled if here else self._signalled_on_nodes)
        if here:
            threading.Thread(target=self._watch, daemon=True).start()

    @property
    def begun(self) -> bool:
        """Whether a signal has come."""
        return self._times > 0

    @contextlib.contextmanager
    def as_status(self) -> Iterator[None]:
        """Has an interrupted run end with the exit status that shells give it (130 for Ctrl-C), without a traceback."""
        try:
            yield
        except KeyboardInterrupt:
            self._say("Interrupted. The same command goes on from here.")
            raise SystemExit(128 + signal.SIGINT) from None
        except WorkflowError:
            if not self._times:
                raise
            self._say("Interrupted. The same command goes on from here.")
            raise SystemExit(128 + self._number) from None

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._times += 1
        self._number = signal.Signals(number)
        # Not here: what the main thread does at the moment may hold the locks that this takes.
        threading.Thread(target=self._act, args=(self._times,), daemon=True).start()

    def _signalled_on_nodes(self, number: int, frame: FrameType | None) -> None:
        if self._times:
            raise KeyboardInterrupt
        self._signalled(number, frame)

    def _act(self, times: int) -> None:
        # Any value but "graceful", with which Snakemake says one and the same line each time that a job ends.
        self._workflow.scheduler._user_kill = "asked"
        if times == 1:
            jobs = self._jobs.described()
            self._say(
                f"{self._number.name}: no further job starts. Waiting for those that run"
                f"{'' if jobs else ' (none)'}; once more stops them, and the same command goes on from there."
            )
            for line in jobs:
                self._say(f"  {line}")
        else:
            self._say("Stopping them." if times == 2 else "Killing them.")
            self._jobs.signal(STOP if times == 2 else KILL)
        # Has Snakemake look again.
        self._workflow.scheduler._open_jobs.release()

    def _watch(self) -> None:
        """Says once of each job that it waits for a lock."""
        pause = threading.Event()
        while not pause.wait(SECONDS):
            for line in self._jobs.waiting():
                if line not in self._told:
                    self._told.add(line)
                    self._say(f"    … {line}")

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(text, file=self._stream, flush=True)
