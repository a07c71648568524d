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
from snakemake.io import flag
from snakemake.persistence.file import FilePersistence

from selfrefine.errors import UserError
from selfrefine.files import NO_LOCKS, KnownHashes, sha256_of_bytes, write_json
from selfrefine.fingerprint import snapshot
from selfrefine.provenance import Record, differences, read_record

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
        self._hashes = KnownHashes(self.path / "hashes.jsonl")
        self._records: dict[str, Record | None] = {}
        self._stale: dict = {}
        self._active: dict = {}
        self._wanted: dict = {}

    # What Snakemake asks.

    def params_changed(self, job, file=None) -> Changes:
        """Why the job must run; empty where it need not."""
        if not job.output:
            return Changes()
        if changes := self.stale(job):
            return changes
        if damage := self._damage(job):
            self._contain(job)
            return damage
        missing = self._missing(job)
        if missing and any(self._is_wanted(other) for other in self.dag.depending[job]):
            return Changes(f"{path} is missing" for path in missing)
        return Changes()

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
        """Keeps the hashes that the job itself has taken, so that the next plan need not."""
        await super().finished(job)
        record = self._read(job)
        if record:
            for path, state in {**record.inputs, **record.outputs}.items():
                self._hashes.note(Path(path), state.sha256)

    # Comparing.

    def stale(self, job) -> Changes:
        """How recipe, code and inputs differ from the record's; empty where they do not."""
        if job not in self._stale:
            self._stale[job] = Changes(self._compare(job))
        return self._stale[job]

    def _compare(self, job):
        if job.params.get("text") is not None:
            path = Path(job.output[0])
            if path.exists() and path.read_text() != job.params.text:
                yield f"{path}: its text changes"
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
            if maker.params.get("text") is not None:
                return sha256_of_bytes(maker.params.text.encode())
            record = self._read(maker)
            if record and path in record.outputs:
                return record.outputs[path].sha256
        return self._hashes.sha256(Path(path))

    def _damage(self, job) -> Changes:
        """Outputs that are there and are not what the job made."""
        record = self._read(job)
        found = Changes()
        for path, state in record.outputs.items() if record else ():
            try:
                size = os.stat(path).st_size
            except FileNotFoundError:
                continue
            if size != state.bytes:
                found.append(f"{path} has {size} bytes, {state.bytes} were made")
            elif self._hashes.sha256(Path(path)) != state.sha256:
                found.append(f"{path} is not what was made")
        return found

    def _contain(self, job) -> None:
        """Keeps a job that only makes the same bytes again from pulling in those that read them.

        Unless one of those runs for its own sake: Snakemake would overlook it then.
        """
        followers = set(self.dag.bfs(self.dag.depending, job)) - {job}
        if not any(self.stale(other) or self._missing_target(other) for other in followers if other.output):
            for paths in self.dag.depending[job].values():
                for path in paths:
                    path._file = flag(path._file, "ancient")

    def _missing(self, job) -> list[str]:
        record = self._read(job)
        return [path for path in (record.outputs if record else ()) if not os.path.exists(path)]

    def _missing_target(self, job) -> bool:
        asked = [path for other, paths in self.dag.depending[job].items() if not other.output for path in paths]
        return any(not os.path.exists(path) for path in asked or (job.output if job in self.dag.targetjobs else []))

    def _is_active(self, job) -> bool:
        """Whether the job, or one that it depends on, has changed."""
        if job not in self._active:
            self._active[job] = bool(job.output) and (
                bool(self.stale(job)) or any(self._is_active(maker) for maker in self.dag.dependencies[job])
            )
        return self._active[job]

    def _is_wanted(self, job) -> bool:
        """Whether the job will run, so that what it reads must be whole."""
        if job not in self._wanted:
            self._wanted[job] = bool(job.output) and (
                self._is_active(job)
                or self._missing_target(job)
                or (bool(self._missing(job)) and any(self._is_wanted(other) for other in self.dag.depending[job]))
            )
        return self._wanted[job]

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
        for known in (self._records, self._stale, self._active, self._wanted):
            known.clear()

    # One at a time.

    @contextlib.contextmanager
    def lock(self):
        """Refuses to run beside another invocation in this folder; a killed one leaves no lock behind."""
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
            file.truncate(0)
            now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
            print(f"process {os.getpid()} on {socket.gethostname()}, since {now}", file=file, flush=True)
            keep_code()
            yield


def keep_code() -> None:
    """Keeps the text of the code that the jobs run, once per fingerprint, so that a record can be read without this repository."""
    for fingerprint, script in SCRIPTS.items():
        path = Path(f"results/code/{fingerprint}.json")
        if not path.exists():
            write_json(path, snapshot(script))


def install() -> None:
    """Puts the records in the place of Snakemake's own notes."""
    snakemake.workflow.FilePersistence = Records


def _short(sha256: str | None) -> str:
    return sha256[:12] if sha256 else "not there"
