"""Snakemake's bookkeeping, read from the records beside the artifacts: what runs again, and who may run.

Snakemake 9.27 by itself takes an input that is newer than the output for changed unless its own notes in `.snakemake` say
otherwise, has no way to switch that off, keeps no notes of files above a size, and forgets all of them with the folder; so a
copied tree or a fresh clone runs again for no reason, or does not where it should. Here a job is up to date if the record
beside its outputs (selfrefine/provenance.py) names the recipe, the code and the inputs, by sha256, that it would run with now,
and its outputs are the bytes that the record names. Nothing else is compared. `.snakemake` may be deleted at any time.

This replaces one class of Snakemake's (no plugin interface exists for it), so the version of Snakemake is pinned exactly.
"""

import contextlib
import datetime
import fcntl
import json
import os
import socket
import sys
from pathlib import Path

import snakemake.workflow
from snakemake.exceptions import WorkflowError
from snakemake.persistence.file import FilePersistence
from snakemake_interface_executor_plugins.settings import ExecMode

from selfrefine.errors import UserError
from selfrefine.files import NO_LOCKS, KnownHashes, remove_torn, sha256_of_bytes, write_json
from selfrefine.fingerprint import snapshot
from selfrefine.provenance import Record, clear_scratch, differences, read_record

# By fingerprint, the scripts that the rules run.
SCRIPTS: dict[str, Path] = {}
SAME = "sha256:same"


class Changes(list):
    """Why a job's outputs are not what it would make now, in Snakemake's place for changed parameters."""

    def __str__(self) -> str:
        return "; ".join(self)


class Records(FilePersistence):
    """Decides by the records what is up to date."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        # Modification times are left out of it (`input_checksums`), and no input is hashed for Snakemake's own notes.
        self.dag.max_checksum_file_size = sys.maxsize
        self.max_checksum_file_size = -1
        # On a node, Snakemake runs again for the one job that the driver has decided on. It decides nothing, and leaves the
        # driver's file alone: not every shared file system lets two machines append to one.
        self._decides = self.dag.workflow.exec_mode == ExecMode.DEFAULT
        self._hashes = KnownHashes(self.path / "hashes.jsonl" if self._decides else os.devnull)
        self._records: dict[str, Record | None] = {}
        self._stale: dict = {}
        self._active: dict = {}
        self._mending: dict = {}
        self._cut: list | None = None

    # What Snakemake asks.

    def params_changed(self, job, file=None) -> Changes:
        """Why the job must run; empty where it need not."""
        if not self._decides:
            return Changes()
        if self._cut is None:
            self._contain()
        return (self.stale(job) or self._mends(job)) if job.output else Changes()

    def input_checksums(self, job, input_path) -> set[str]:
        """Says of every newer input that it is unchanged: whether it is, `params_changed` says."""
        self.dag.workflow.iocache.checksum[input_path] = SAME
        return {SAME}

    def has_metadata(self, job) -> bool:
        """True: a job without a record has changed."""
        return True

    def has_outdated_metadata(self, job) -> bool:
        """False: the records carry no version of Snakemake's."""
        return False

    def code_changed(self, job, file=None):
        """Never: the record's fingerprint says more than the text of a rule."""
        return False if file else iter(())

    input_changed = software_stack_changed = code_changed

    async def incomplete(self, job) -> list:
        """None: outputs appear whole, and the record last."""
        return []

    async def finished(self, job) -> None:
        """Clears up after a job, and keeps the hashes of what it made, so that the next plan need not take them."""
        await super().finished(job)
        # On a node the job may be another invocation's; only the driver knows that it will not be asked for again. Snakemake
        # comes here after a failure too: what that job had kept, its next attempt goes on from.
        if not self._decides or any(self._compare(job)):
            return
        clear_scratch(job.output)
        record = self._read(job)
        if record:
            for path, state in record.outputs.items():
                self._hashes.note(Path(path), state.sha256)

    def script_of(self, job) -> Path:
        """The script that a job runs."""
        return SCRIPTS[job.params.code]

    # Comparing.

    def stale(self, job) -> Changes:
        """How recipe, code and inputs differ from the record's; empty where they do not."""
        if job not in self._stale:
            self._stale[job] = Changes(self._compare(job))
        return self._stale[job]

    def _compare(self, job):
        if _text(job) is not None:
            return
        record = self._read(job)
        if record is None:
            yield "there is no record of it" if any(map(os.path.exists, job.output)) else "it is not made yet"
            return
        for change in differences(record.recipe, json.loads(job.params.get("recipe", "{}"))):
            yield f"recipe: {change}"
        if record.code != job.params.code:
            yield f"code: {record.code} → {job.params.code}"
        makers = {str(path): maker for maker, paths in self.dag.dependencies[job].items() for path in paths}
        recorded = {path: state.sha256 for path, state in record.inputs.items()}
        wanted = {str(path): self._content(str(path), makers.get(str(path))) for path in job.input}
        for path in sorted({*recorded, *wanted}):
            # A source that has vanished since it was read is no change.
            if recorded.get(path) != wanted.get(path) and (path in wanted or os.path.exists(path)):
                yield f"input {path}: {_short(recorded.get(path))} → {_short(wanted.get(path))}"

    def _content(self, path: str, maker) -> str | None:
        """The sha256 that an input has, or has again once its maker has mended it; None for one that is not there."""
        if maker is not None:
            if _text(maker) is not None:
                return sha256_of_bytes(_text(maker))
            record = self._read(maker)
            if record and path in record.outputs:
                return record.outputs[path].sha256
        return self._hashes.sha256(Path(path))

    def _mends(self, job) -> Changes:
        """Outputs that are not what the job made, or are gone and wanted: made again, they are the same bytes."""
        if job not in self._mending:
            damaged, missing = self._look_at_outputs(job)
            wanted = missing and (self._is_asked_for(job) or any(map(self._runs, self.dag.depending[job])))
            self._mending[job] = Changes(damaged + (missing if wanted else []))
        return self._mending[job]

    def _look_at_outputs(self, job) -> tuple[list[str], list[str]]:
        record, text = self._read(job), _text(job)
        states = {path: (state.bytes, state.sha256) for path, state in record.outputs.items()} if record else {}
        if text is not None:
            states = {job.output[0]: (len(text), sha256_of_bytes(text))}
        damaged, missing = [], []
        for path, (size, sha256) in states.items():
            if not os.path.exists(path):
                missing.append(f"{path} is missing")
            elif (found := os.stat(path).st_size) != size:
                damaged.append(f"{path} has {found} bytes instead of {size}")
            elif self._hashes.sha256(Path(path)) != sha256:
                damaged.append(f"{path} has another content than was made")
        return damaged, missing

    def _contain(self) -> None:
        """Hides from Snakemake's planning that a job is followed by others where it only makes the same bytes again.

        It would plan all that follows, and overlook there what has a reason of its own. `_restore` undoes it.
        """
        self._cut = []
        for job in list(self.dag.jobs):
            if job.output and not self._is_active(job) and self._mends(job):
                for other in list(self.dag.depending[job]):
                    if other.output and not self._runs(other):
                        self._cut.append((job, other, self.dag.depending[job].pop(other)))

    def _restore(self) -> None:
        for job, other, paths in self._cut or ():
            self.dag.depending[job][other] = paths
        self._cut = []

    def _order(self) -> None:
        """Makes what runs wait for what is mended behind jobs that do not run, which Snakemake passes over."""
        for job in list(self.dag.jobs):
            if job.output and self.dag.needrun(job) and not self._is_active(job):
                for other in self._behind(job):
                    if job not in self.dag.dependencies[other]:
                        self.dag.dependencies[other][job] = self.dag.depending[job][other] = set()
                        self.dag._n_until_ready[other] += 1
                        self.dag._ready_jobs.discard(other)

    def _behind(self, job) -> set:
        """The jobs that run and reach a job's outputs through jobs that do not."""
        found, seen, left = set(), set(), [job]
        while left:
            for other in list(self.dag.depending[left.pop()]):
                if other not in seen:
                    seen.add(other)
                    (found.add if self.dag.needrun(other) else left.append)(other)
        return found

    def _is_asked_for(self, job) -> bool:
        """Whether a target of this invocation, or a rule that only collects files, wants an output that is gone."""
        if job in self.dag.targetjobs:
            return True
        asked = [path for other, paths in self.dag.depending[job].items() if not other.output for path in paths]
        return not all(map(os.path.exists, asked))

    def _runs(self, job) -> bool:
        """Whether the job will run: it or one before it has changed, its outputs need mending, or the user wants it."""
        forced = job.rule in self.dag.forcerules or not self.dag.forcefiles.isdisjoint(job.output)
        return bool(job.output) and (forced or self._is_active(job) or bool(self._mends(job)))

    def _is_active(self, job) -> bool:
        if job not in self._active:
            self._active[job] = bool(self.stale(job)) or any(map(self._is_active, self.dag.dependencies[job]))
        return self._active[job]

    def _read(self, job) -> Record | None:
        path = job.output.get("provenance")
        if path is None:
            return None
        if path not in self._records:
            try:
                self._records[path] = read_record(path)
            except UserError:
                self._records[path] = None
        return self._records[path]

    def _clear_cache(self) -> None:
        super()._clear_cache()
        for known in (self._records, self._stale, self._active, self._mending):
            known.clear()

    # One at a time.

    @contextlib.contextmanager
    def lock_warn_only(self):
        """What a dry run holds: nothing."""
        self._restore()
        yield

    @contextlib.contextmanager
    def lock(self):
        """Refuses to run beside another invocation in this folder; a killed one leaves no lock behind."""
        self._restore()
        if self._decides:
            self._order()
        with open(self.path / "running", "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise WorkflowError(
                    f"another snakemake runs in {Path.cwd()} ({file.read().strip()}); wait until it has ended, or stop it. "
                    "This one has touched nothing."
                ) from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                with super().lock():
                    yield
                return
            file.seek(0)
            if file.read():  # the last invocation was killed, maybe between a job's end and its clearing up
                for job in self.dag.jobs:
                    if not self.dag.needrun(job):
                        clear_scratch(job.output)
                for fingerprint in SCRIPTS:
                    remove_torn(code_of(fingerprint))
            file.truncate(0)
            now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
            print(f"process {os.getpid()} on {socket.gethostname()}, since {now}", file=file, flush=True)
            keep_code()
            yield
            file.truncate(0)


def _text(job) -> bytes | None:
    """The content of a file that the configuration alone decides; None for other jobs."""
    text = job.params.get("text")
    return None if text is None else text.encode()


def code_of(fingerprint: str) -> Path:
    """Where the text of the code with a fingerprint is kept."""
    return Path(f"results/code/{fingerprint}.json")


def keep_code() -> None:
    """Keeps the text of the code that the jobs run, once per fingerprint, so that a record can be read without this repository."""
    for fingerprint, script in SCRIPTS.items():
        path = code_of(fingerprint)
        if not path.exists():
            try:
                write_json(path, snapshot(script))
            except OSError as error:
                raise WorkflowError(f"{path} could not be written: {error}; free space and run again") from None


def install() -> None:
    """Puts the records in the place of Snakemake's own notes."""
    snakemake.workflow.FilePersistence = Records


def _short(sha256: str | None) -> str:
    return sha256[:12] if sha256 else "not there"
