"""A study's results as its records describe them: files, what made each, and whether every link between them holds.

Files go by the names that the records use, relative to the folder in which the study ran: `results/…`, or outside it.
"""

import functools
import glob
import os
import re
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from selfrefine.cli import describe
from selfrefine.errors import UserError
from selfrefine.files import read_json
from selfrefine.fingerprint import Code, fingerprint_of
from selfrefine.provenance import RECORD, FileState, Record, state_of
from selfrefine.store import CODE, NAME

SET_ASIDE = "`python scripts/study.py verify --set-aside` moves it out of the way"
STORE = f"results/{NAME}"
KEY = re.compile("[0-9a-f]{12}")


class Results:
    """A study's results, wherever they lie now: its files, each hashed once, its records, and the faults found so far.

    `faults` has one line per broken link, with the file (or file:line) that it is about. Of the files that records name beyond
    the results, `outside` has those that are not here, and `others` those that are others now than some artifacts were made of.
    """

    def __init__(self, folder: Path):
        self.folder = Path(os.path.abspath(folder))
        if not self.folder.is_dir():
            raise UserError(f"{folder}: no such folder; name the study's results with --results")
        self.faults: dict[str, str] = {}
        self.outside: set[str] = set()
        self.others: set[str] = set()
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
            name = f"results/{absolute.relative_to(self.folder).as_posix()}"
        else:
            name = os.path.normpath(path)
        if not is_result(name):
            raise UserError(f"{path}: not in {self.folder}; name a file of the results, or their folder with --results")
        return name if name.startswith(f"{STORE}/") else self._stored(name)

    def _stored(self, name: str) -> str:
        """The file of the store that a clean name stands for: by its link or, where links have become files, by its content."""
        path = self.locate(name)
        if path.is_symlink():
            target = Path(os.path.relpath(path.parent / os.readlink(path), self.folder)).as_posix()
            return name if target.startswith("..") else f"results/{target}"
        state = self.state(name)
        for record_name in self.records() if state else ():
            record = self.record(record_name)
            for made, known in record.outputs.items() if record else ():
                if known == state and PurePosixPath(made).name == path.name:
                    return made
        return name

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
        found = glob.glob(f"{NAME}/**/{RECORD}", root_dir=self.folder, recursive=True)
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
        if PurePosixPath(name).name == RECORD:
            return name if self.record(name) else None
        return next((made[name] for folder in _above(name) if name in (made := self._made_in(folder))), None)

    def _made_in(self, folder: str) -> dict[str, str]:
        if folder not in self._made:
            self._made[folder] = {}
            record_name = f"{folder}/{RECORD}"
            if self.locate(record_name).is_file():
                record = self.record(record_name)
                self._made[folder] = dict.fromkeys(record.outputs if record else (), record_name)
        return self._made[folder]

    # Links.

    def fault(self, where: str, expected: str, found: str, mend: str) -> None:
        """Notes a broken link."""
        self.faults[f"{where}: expected {expected}, found {found}; {mend}"] = where

    def check_outputs(self, record_name: str) -> None:
        """Whether what a record says was made is there, unchanged."""
        if not self._first("outputs", record_name):
            return
        record = self.record(record_name)
        self._check_code(record.code)
        for name, state in record.outputs.items():
            self._check_file(name, state, record_name)
            pinned = record.recipe.get("sha256")
            if record.stage == "fetch" and pinned and state.sha256 != pinned:
                expected = f"sha256 {pinned[:12]}, which the recipe in {record_name} pins"
                self.fault(name, expected, shown(state), self.anew(name))
        model = self.record(record.model) if record.model else None
        if model and not model.outputs.keys() <= record.inputs.keys():
            expected = "the record of a model whose weights it was trained from"
            self.fault(record_name, expected, f"{record.model}, which it did not read", self.anew(record_name))

    def check_input(self, record_name: str, name: str) -> None:
        """Whether what a stage read is what its maker's record says was made, or what is there if it has no maker."""
        if not self._first("input", record_name, name):
            return
        record = self.record(record_name)
        read, made = record.inputs[name], next(iter(record.outputs))
        maker = self.maker(name)
        if maker is None and is_result(name):
            self.note_unmade(name)
            return
        known = maker is not None and maker != name
        found = self.record(maker).outputs[name] if known else self.state(name)
        if found is None and not is_result(name):
            self.outside.add(name)
        elif found is None:
            self.fault(name, f"{shown(read)} (read for {made})", "no file: it is missing", self.again(name))
        elif found != read and not is_result(name) and (name, found.sha256) in self._read_outside:
            self.others.add(name)
        elif found != read:
            mend = f"{made} was made from another one: "
            mend += self.again(made) if is_result(name) else "snakemake makes an artifact of this one beside it"
            by = f" (made, says {maker})" if known else ""
            self.fault(name, f"{shown(read)} (read, says {record_name})", f"{shown(found)}{by}", mend)

    @functools.cached_property
    def _read_outside(self) -> set[tuple[str, str]]:
        """Which contents of files beyond the results some artifact was made of: older ones may lie beside it."""
        records = (self.record(name) for name in self.records())
        read = (item for record in records if record for item in record.inputs.items())
        return {(name, state.sha256) for name, state in read if not is_result(name)}

    def invalid_beside(self, name: str) -> list[str]:
        """The record of a file's artifact, if it is not valid."""
        path = f"{_artifact(name)}/{RECORD}"
        return [path] if self.locate(path).is_file() and self.record(path) is None else []

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
            self.again(record_name),
        )

    def again(self, name: str) -> str:
        """What to do about a file that is missing, or not what its record says."""
        record_name = f"{_artifact(name)}/{RECORD}"
        aside = f"{SET_ASIDE}, and " if self.locate(record_name).is_file() else ""
        return f"{aside}`snakemake {record_name}` makes it again{self._elsewhere()}"

    def anew(self, name: str) -> str:
        """What to do about an artifact that is what its record says, and yet cannot be what was made."""
        folder = _artifact(name)
        return f"delete {folder}, and `snakemake {folder}/{RECORD}` makes it again{self._elsewhere()}"

    def _check_code(self, code: str) -> None:
        """Whether the text kept of the code that ran, where it was kept, has the fingerprint that it is kept under."""
        name = f"{STORE}/{CODE}/{code}.json"
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


def is_listing(name: str) -> bool:
    """Whether a file is one that the configuration alone decides."""
    return name.startswith(f"{STORE}/listing/")


def _artifact(name: str) -> str:
    """The folder of the artifact that a file belongs to: the nearest that is named by a key."""
    parent = str(PurePosixPath(name).parent)
    return next((folder for folder in _above(name) if KEY.fullmatch(PurePosixPath(folder).name)), parent)


def _above(name: str) -> list[str]:
    """A file's folders within the results, the nearest first."""
    return [str(folder) for folder in PurePosixPath(name).parents][:-1] if is_result(name) else []
