"""One run of a stage: inputs checked, the artifact made by one process, the record written last."""

import contextlib
import datetime
import functools
import os
import resource
import shutil
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from selfrefine.errors import UserError
from selfrefine.schema.record import FileState, Record
from selfrefine.store.commands import commands_of
from selfrefine.store.environment import differences, machine_facts, package_versions
from selfrefine.store.files import remove_torn, write_json
from selfrefine.store.fingerprint import fingerprint, scripts_folder
from selfrefine.store.gpu_energy import counters, watt_hours
from selfrefine.store.locations import ADAPTER, FETCHING, FILES, PARTIAL, TRAINER
from selfrefine.store.locks import held
from selfrefine.store.provenance import checked, files_of, read_record, record_of, state_of, weights_of
from selfrefine.store.reuse import content_of, keep_code, link, list_content, same_content
from selfrefine.store.versions import version_of


class Run:
    """One run of a stage, as a context manager: no other process makes the artifact meanwhile.

    `record` is where the new record goes. `inputs` are the files that the stage reads, `checkpoint` the record of the
    checkpoint or model whose weights it reads; each file is checked against its record. `version` and `sources` ({path:
    sha256} of local files) are what the workflow planned with: the run is refused if either has changed since.

    Where several processes make one artifact together, only the one that `leads` takes the lock and writes the record.
    `locks.Busy` if another process makes the artifact and `wait` is false.
    """

    def __init__(
        self,
        script: str | Path,
        settings: dict[str, Any],
        inputs: list[Path],
        record: Path,
        seed: int | None = None,
        leads: bool = True,
        version: str | None = None,
        sources: dict[str, str] | None = None,
        wait: bool = True,
        checkpoint: Path | None = None,
    ):
        self.leads = leads
        self.script = Path(script)
        self.stage = self.script.stem
        self.settings = settings
        self.seed = seed
        self.path = Path(record)
        self.folder = self.path.parent
        self.started = time.time()
        self._energy = counters() if leads else {}
        self._wanted = inputs
        self._checkpoint = checkpoint
        self._sources = sources or {}
        self.code = fingerprint(self.script)
        folder = scripts_folder(self.script)
        self.version = version_of(self.stage, folder)
        self.command = commands_of(folder.parent / "rules").get(self.stage, "")
        if version not in (None, self.version):
            raise UserError(
                f"the code of stage {self.stage} has changed since snakemake planned this job ({version} then, "
                f"{self.version} now); start snakemake again"
            )
        self._lock = held(self.folder / ".lock", wait) if leads else contextlib.nullcontext()

    def __enter__(self) -> "Run":
        self._lock.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and self.leads and self.path.exists():
            self._refresh()
        self._lock.__exit__(kind, error, traceback)

    @property
    def file(self) -> Path:
        """The artifact's file that other stages read."""
        return self.folder / FILES[self.stage]

    @functools.cached_property
    def made(self) -> bool:
        """Whether the artifact is there already, or its files could be linked from one with the same content."""
        if self.path.exists():
            record = read_record(self.path)
            if record.settings != self.settings:
                first = differences(record.settings, self.settings)[0]
                raise UserError(
                    f"{self.path}: made with other settings ({first}); name another place for this artifact"
                )
            print(f"{self.path}: its artifact is made already, by a run that began at {record.started}", flush=True)
            return True
        return self._reuse()

    @functools.cached_property
    def inputs(self) -> dict[str, FileState]:
        """The state of each file that the stage reads, checked against its record."""
        found: dict[str, FileState] = {}
        if self._checkpoint:
            found |= weights_of(self._checkpoint)
        for path in self._wanted:
            found[str(path)] = checked(path)
        for source, sha256 in self._sources.items():
            # A file of the user's: a record.json beside it is not one of ours.
            if not os.path.exists(source):
                raise UserError(f"{source}: no such file")
            found[source] = state_of(Path(source))
            if found[source].sha256 != sha256:
                raise UserError(f"{source}: has changed since snakemake planned this job; start snakemake again")
        return found

    @functools.cached_property
    def content(self) -> str:
        """A digest of stage, settings, version, command and the contents of the inputs, wherever they lie."""
        inputs = [[Path(path).name, state.sha256] for path, state in self.inputs.items() if path not in self._sources]
        return content_of([self.stage, self.settings, self.version, self.command, inputs, [*self._sources.values()]])

    def _reuse(self) -> bool:
        """Links the files of an artifact with the same content and writes their record; False if there is none."""
        for path in same_content(self.folder, self.content):
            with contextlib.suppress(UserError):
                record, outputs = read_record(path), {}
                for file, state in {file: checked(file, path) for file in files_of(path)}.items():
                    target = self.folder / file.relative_to(path.parent)
                    link(file, target)
                    outputs[str(target)] = state
                model = {"model": self._model()} if record.model else {}
                own = {"outputs": outputs, "inputs": self.inputs, "reused": str(path), **model}
                self._write(record.model_copy(update=own))
                self._settle()
                print(f"{self.path}: its files are those of {path}, which was made from the same contents", flush=True)
                return True
        return False

    def _model(self) -> str:
        """The record of the model under a new checkpoint: what training started from, or that adapter's model."""
        if self._checkpoint is None:
            raise ValueError("a checkpoint is trained from another one: name it with checkpoint=")
        start = read_record(self._checkpoint)
        is_adapter = any(Path(path).name == ADAPTER for path in start.outputs)
        return start.model if start.model and is_adapter else str(self._checkpoint)

    def record(
        self, outputs: list[Path], computed_in: str | None = None, trained: bool = False, **figures: Any
    ) -> None:
        """Writes the record of `outputs`, and removes what was kept to resume from.

        `figures` are what the stage counted; `computed_in` is the dtype in which a model's weights were multiplied;
        `trained` says that the outputs are a checkpoint that was trained from the one that was read.
        """
        seconds = time.time() - self.started
        tokens = figures.get("tokens_made") or figures.get("tokens_seen")
        if tokens:
            figures["tokens_per_second"] = round(tokens / seconds, 1)
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            gpus = range(torch.cuda.device_count())
            figures["peak_gpu_memory_mib"] = max(torch.cuda.max_memory_reserved(gpu) for gpu in gpus) >> 20
            if (used := watt_hours(self._energy)) is not None:
                figures["gpu_wh"] = round(used, 3)
        record = Record(
            stage=self.stage,
            inputs=self.inputs,
            outputs={str(path): state_of(path) for path in outputs},
            settings=self.settings,
            seed=self.seed,
            code=self.code,
            version=self.version,
            command=self.command,
            content=self.content,
            model=self._model() if trained else None,
            figures=figures,
            packages=package_versions(),
            machine=machine_facts() | ({"computed_in": computed_in} if computed_in else {}),
            started=datetime.datetime.fromtimestamp(int(self.started), datetime.UTC),
            wall_seconds=round(seconds, 1),
            peak_memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        )
        keep_code(self.script, self.folder, self.code)
        self._write(record)
        self._settle()

    def _write(self, record: Record) -> None:
        """Writes the record, and takes it back if an output has vanished.

        A job's shell may be killed while its program lives on. Snakemake then removes the job's outputs, the record
        last, while the program writes them. An output that it removed before the record was there is missed here; one
        that it removes later takes the record with it.
        """
        write_json(self.path, record.model_dump(mode="json"))
        if gone := [path for path in record.outputs if not os.path.exists(path)]:
            self.path.unlink(missing_ok=True)
            raise UserError(f"{gone[0]}: was removed while it was made, by snakemake or by hand; start snakemake again")

    def _settle(self) -> None:
        """Lists a new artifact under its content; removes what was kept to resume from or left by killed processes."""
        list_content(self.folder, self.content, self.path)
        for path in self.folder.iterdir():
            if path.name.endswith(PARTIAL):
                path.unlink(missing_ok=True)
            elif path.name == TRAINER or path.name.startswith(FETCHING):
                shutil.rmtree(path, ignore_errors=True)
        for name in read_record(self.path).outputs:
            remove_torn(Path(name))
        remove_torn(self.path)

    def _refresh(self) -> None:
        """Sets the times of inputs newer than the record to now: Snakemake would delete outputs older than these."""
        made = self.path.stat().st_mtime
        read = [*self._wanted, *([self._checkpoint] if self._checkpoint else [])]
        for path in {record_of(path) for path in read}:
            if path.exists() and path.stat().st_mtime > made:
                with contextlib.suppress(OSError):
                    os.utime(path)
                    os.utime(self.path)


def note_text(record: Path, path: Path, text: str) -> None:
    """Writes the record of a file whose text the configuration alone decides; `text` is the text's digest."""
    known = Record(
        stage="listing",
        inputs={},
        outputs={str(path): state_of(path)},
        settings={"text": text},
        seed=None,
        code="0" * 16,
        version="",
        command="",
        content=content_of(["listing", text]),
        figures={},
        packages=package_versions(),
        machine=machine_facts(),
        started=datetime.datetime.now(datetime.UTC).replace(microsecond=0),
        wall_seconds=0,
        peak_memory_mib=0,
    )
    write_json(record, known.model_dump(mode="json"))
