"""A study's results as its records describe them: files, what made each, and whether every link between them holds.

Files go by the names that the records use, relative to the folder in which the study ran: `results/…`, or outside it.
"""

import glob
import os
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from selfrefine.cli import describe
from selfrefine.errors import UserError
from selfrefine.files import read_json
from selfrefine.fingerprint import Code, fingerprint_of
from selfrefine.provenance import RECORD, FileState, Record, state_of

# What the configuration alone writes: no record says how it was made.
CONFIGURED = ("results/index/", "results/configuration.yaml", "results/tables/sources.csv")


class Results:
    """A study's results, wherever they lie now: its files, each hashed once, its records, and the faults found so far.

    `faults` has one line per broken link, with the file (or file:line) that it is about; `outside` has the files that
    records name beyond the results and that are not here.
    """

    def __init__(self, folder: Path):
        self.folder = Path(os.path.abspath(folder))
        if not self.folder.is_dir():
            raise UserError(f"{folder}: no such folder; name the study's results with --results")
        self.faults: dict[str, str] = {}
        self.outside: set[str] = set()
        self._states: dict[str, FileState | None] = {}
        self._records: dict[str, Record | str] = {}
        self._made: dict[str, dict[str, str]] = {}
        self._checked: set[tuple[str, ...]] = set()

    # Files and records.

    def locate(self, name: str) -> Path:
        """Where a file lies now; what the study read outside its results is looked for beside them."""
        if is_result(name):
            return self.folder / name.removeprefix("results/")
        return self.folder.parent / name

    def name(self, path: str) -> str:
        """What the records call a file that a user names as it lies or as the records do."""
        absolute = Path(os.path.abspath(path))
        if absolute.is_relative_to(self.folder):
            return f"results/{absolute.relative_to(self.folder).as_posix()}"
        if not is_result(os.path.normpath(path)):
            raise UserError(f"{path}: not in {self.folder}; name a file of the results, or their folder with --results")
        return os.path.normpath(path)

    def state(self, name: str) -> FileState | None:
        """A file's size and sha256; None if it is not there."""
        if name not in self._states:
            path = self.locate(name)
            self._states[name] = state_of(path) if path.is_file() else None
        return self._states[name]

    def checked(self) -> str:
        """How much was checked so far, in words."""
        states = [state for state in self._states.values() if state]
        records = sum(link[0] == "outputs" for link in self._checked)
        size = sum(state.bytes for state in states)
        return f"records: {records}, files: {len(states)}, bytes: {size:,}"

    def records(self) -> list[str]:
        """The names of all records."""
        found = glob.glob(f"**/*{RECORD}", root_dir=self.folder, recursive=True)
        return sorted(f"results/{Path(path).as_posix()}" for path in found)

    def record(self, name: str) -> Record | None:
        """A record; None if it is not there or not valid."""
        if name not in self._records:
            try:
                self._records[name] = Record.model_validate_json(self.locate(name).read_bytes())
            except FileNotFoundError:
                self._records[name] = "no file"
            except ValidationError as error:
                self._records[name] = describe(error.errors()[0])
        record = self._records[name]
        return record if isinstance(record, Record) else None

    def maker(self, name: str) -> str | None:
        """The valid record of a file, from its folder or one above it; a record stands for what it is the record of."""
        if name.endswith(RECORD):
            return name if self.record(name) else None
        return next((made[name] for folder in _above(name) if name in (made := self._made_in(folder))), None)

    def _made_in(self, folder: str) -> dict[str, str]:
        if folder not in self._made:
            self._made[folder] = {}
            for record_name in self._beside(folder):
                record = self.record(record_name)
                self._made[folder] |= dict.fromkeys(record.outputs if record else (), record_name)
        return self._made[folder]

    def _beside(self, folder: str) -> list[str]:
        return [f"{folder}/{path.name}" for path in sorted(self.locate(f"{folder}/").glob(f"*{RECORD}"))]

    # Links.

    def fault(self, where: str, expected: str, found: str, mend: str) -> None:
        """Notes a broken link."""
        self.faults[f"{where}: expected {expected}, found {found}; {mend}"] = where

    def check_outputs(self, record_name: str) -> None:
        """Whether what a record says was made is there, unchanged, and what a manifest among it names."""
        if not self._first("outputs", record_name):
            return
        record = self.record(record_name)
        self._check_code(record.code)
        for name, state in record.outputs.items():
            self._check_file(name, state, record_name)
            if PurePosixPath(name).name == "manifest.json":
                self._check_manifest(name)
            pinned = record.recipe.get("sha256")
            if record.stage == "fetch" and pinned and state.sha256 != pinned:
                expected = f"sha256 {pinned[:12]}, which the recipe in {record_name} pins"
                self.fault(name, expected, shown(state), f"delete it and {record_name}: {self.again(name)}")

    def check_input(self, record_name: str, name: str) -> None:
        """Whether what a stage read is what its maker's record says was made, or what is there if it has no maker."""
        if not self._first("input", record_name, name):
            return
        record = self.record(record_name)
        read, made = record.inputs[name], next(iter(record.outputs))
        maker = self.maker(name)
        if maker is None and is_result(name) and not name.startswith(CONFIGURED):
            self.note_unmade(name)
            return
        known = maker is not None and maker != name
        found = self.record(maker).outputs[name] if known else self.state(name)
        if found is None and not is_result(name):
            self.outside.add(name)
        elif found is None:
            self.fault(name, f"{shown(read)} (read for {made})", "no file: it is missing", self.again(name))
        elif found != read:
            mend = f"{made} was made from another one: {self.again(made)}"
            by = f" (made, says {maker})" if known else ""
            self.fault(name, f"{shown(read)} (read, says {record_name})", f"{shown(found)}{by}", mend)

    def invalid_beside(self, name: str) -> list[str]:
        """The records in a file's folder that are not valid; its own may be one of them."""
        return [path for path in self._beside(str(PurePosixPath(name).parent)) if self.record(path) is None]

    def note_unmade(self, name: str) -> None:
        """Notes that a chain ends at a file: the records that could be its own are not valid, or there is none."""
        invalid = self.invalid_beside(name)
        for record_name in invalid:
            self.note_invalid(record_name)
        if not invalid:
            self.fault(name, "a record of how it was made", "none", self.again(name))

    def note_invalid(self, record_name: str) -> None:
        """Notes that a record is not valid."""
        self.fault(
            record_name,
            "a record of provenance",
            f"none: {self._records[record_name]}",
            f"delete it, and `snakemake` makes its artifact again{self._elsewhere()}",
        )

    def again(self, name: str) -> str:
        """What to do about a file that is missing or changed."""
        if name.startswith("results/models/") and not name.endswith(("/manifest.json", RECORD)):
            # No rule names a model's other files.
            manifest = next((f"{folder}/manifest.json" for folder in _above(name) if folder.count("/") == 2), name)
            return f"delete {manifest}, and {self.again(manifest)}"
        return f"`snakemake {name}` makes it again{self._elsewhere()}"

    def _check_code(self, code: str) -> None:
        """Whether the text kept of the code that ran, where it was kept, has the fingerprint that it is kept under."""
        name = f"results/code/{code}.json"
        if self._first("code", name) and self.state(name):
            kept = read_json(self.locate(name))
            found = fingerprint_of(Code(kept["files"]), kept["script"])
            if found != code:
                self.fault(name, f"code of fingerprint {code}", found, "it was changed after it was kept: delete it")

    def _check_file(self, name: str, expected: FileState, claimant: str) -> None:
        if not self._first("file", name, expected.sha256):
            return
        found = self.state(name)
        if found is None:
            self.fault(name, f"{shown(expected)} (says {claimant})", "no file: it is missing", self.again(name))
        elif found != expected:
            mend = f"it was changed after it was made: {self.again(name)}"
            self.fault(name, f"{shown(expected)} (says {claimant})", shown(found), mend)

    def _check_manifest(self, name: str) -> None:
        """Whether the weights that a model's or a checkpoint's manifest names are those that it was written for."""
        if self.state(name) is None or not self._first("manifest", name):
            return
        try:
            manifest = read_json(self.locate(name))
            files = {file: FileState.model_validate(entry) for file, entry in manifest["files"].items()}
            model = manifest["model"] if manifest["artifact"] == "checkpoint" else None
            weights = model and (f"{model['folder']}/manifest.json", str(model["manifest_sha256"]))
        except (UserError, KeyError, TypeError, AttributeError, ValidationError):
            self.fault(name, "a manifest of files, bytes and sha256", "none", self.again(name))
            return
        for file, state in files.items():
            self._check_file(str(PurePosixPath(name).with_name(file)), state, name)
        if weights:
            base, sha256 = weights
            found = self.state(base)
            if self._first("file", base, sha256) and (found is None or found.sha256 != sha256):
                what = shown(found) if found else "no file: it is missing"
                mend = f"the checkpoint is not of these weights: {self.again(name)}"
                self.fault(base, f"sha256 {sha256[:12]} (says {name})", what, mend)
            self._check_manifest(base)

    def _elsewhere(self) -> str:
        return "" if self.folder == Path(os.path.abspath("results")) else " where the study ran; copy it from there"

    def _first(self, *link: str) -> bool:
        known = link in self._checked
        self._checked.add(link)
        return not known


def shown(state: FileState) -> str:
    """A file's content, as a fault names it."""
    return f"{state.bytes} bytes, sha256 {state.sha256[:12]}"


def short(state: FileState | None) -> str:
    """A file's content, as a chain names it."""
    return state.sha256[:12] if state else "missing"


def is_result(name: str) -> bool:
    """Whether a file is one of the results, not one that the study read from outside."""
    return name.startswith("results/")


def _above(name: str) -> list[str]:
    """A file's folders within the results, the nearest first."""
    return [str(folder) for folder in PurePosixPath(name).parents][:-1] if is_result(name) else []
