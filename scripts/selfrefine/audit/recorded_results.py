"""A study's results as its provenance records describe them: files, records, and what made each file.

Files go by the names that the records use, relative to the folder in which the study ran: `results/…`, or outside it.
"""

import glob
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from selfrefine.errors import UserError
from selfrefine.schema.base import describe
from selfrefine.schema.record import FileState, Record
from selfrefine.store.locations import NAME, RECORD, RESULTS, STORE, is_result
from selfrefine.store.provenance import state_of


class RecordedResults:
    """A study's results, wherever they lie now: its files, each hashed once, and its records, each read once."""

    def __init__(self, folder: Path):
        self.folder = Path(os.path.abspath(folder))
        if not self.folder.is_dir():
            raise UserError(f"{folder}: no such folder; name the study's results with --results")
        self._states: dict[str, FileState | None] = {}
        self._records: dict[str, Record | str] = {}
        self._made: dict[str, dict[str, str]] = {}

    # Files.

    def locate(self, name: str) -> Path:
        """Where a file lies now; what the study read outside its results is looked for beside them."""
        if is_result(name):
            return self.folder / name.removeprefix(f"{RESULTS}/")
        return self.folder.parent / name

    def name(self, path: str) -> str:
        """What the records call a file; `path` is that name, or where the file lies."""
        absolute = Path(os.path.abspath(path))
        if absolute.is_relative_to(self.folder):
            name = f"{RESULTS}/{absolute.relative_to(self.folder).as_posix()}"
        else:
            name = os.path.normpath(path)
        if not is_result(name):
            raise UserError(f"{path}: not in {self.folder}; name a file of the results, or their folder with --results")
        return name if name.startswith(f"{STORE}/") else self._stored(name)

    def _stored(self, name: str) -> str:
        """The file of the store behind a clean name: by its link or, where links have become files, by its content."""
        path = self.locate(name)
        if path.is_symlink():
            target = Path(os.path.relpath(path.parent / os.readlink(path), self.folder)).as_posix()
            return name if target.startswith("..") else f"{RESULTS}/{target}"
        state = self.state(name)
        for _, record in self.valid_records() if state else ():
            for made, known in record.outputs.items():
                if known == state and PurePosixPath(made).name == path.name:
                    return made
        return name

    def state(self, name: str) -> FileState | None:
        """A file's size and sha256; None if it is not there."""
        if name not in self._states:
            path = self.locate(name)
            self._states[name] = state_of(path) if path.is_file() else None
        return self._states[name]

    def is_there(self, name: str) -> bool:
        """Whether a file is there, whatever it holds."""
        return self.locate(name).is_file()

    def hashed(self) -> list[FileState]:
        """The states of the files that were hashed so far."""
        return [state for state in self._states.values() if state]

    # Records.

    def records(self) -> list[str]:
        """The names of all records, valid or not."""
        found = glob.glob(f"{NAME}/**/{RECORD}", root_dir=self.folder, recursive=True)
        return sorted(f"{RESULTS}/{Path(path).as_posix()}" for path in found)

    def valid_records(self) -> Iterator[tuple[str, Record]]:
        """All valid records with their names."""
        return ((name, self.record(name)) for name in self.records() if self.is_valid(name))

    def record(self, name: str) -> Record:
        """A record; `UserError` if it is not there or not valid."""
        found = self._read(name)
        if isinstance(found, str):
            raise UserError(f"{name}: not a record: {found}")
        return found

    def is_valid(self, name: str) -> bool:
        """Whether a record is there and valid."""
        return isinstance(self._read(name), Record)

    def reason_invalid(self, name: str) -> str:
        """Why a record is not valid; "" for a valid one."""
        found = self._read(name)
        return found if isinstance(found, str) else ""

    def _read(self, name: str) -> Record | str:
        """A record, or why there is none."""
        if name not in self._records:
            try:
                self._records[name] = Record.model_validate_json(self.locate(name).read_bytes())
            except FileNotFoundError:
                self._records[name] = "no file"
            except ValidationError as error:
                self._records[name] = describe(error.errors()[0])
        return self._records[name]

    def maker(self, name: str) -> str | None:
        """The name of the valid record that says how a file was made; for a record, its own name."""
        if PurePosixPath(name).name == RECORD:
            return name if self.is_valid(name) else None
        return next((made[name] for folder in _folders(name) if name in (made := self._made_in(folder))), None)

    def made_by(self, name: str) -> Record:
        """The record that says how a file was made; `UserError` if there is none."""
        maker = self.maker(name)
        if maker is None:
            raise UserError(f"{name}: no record says how it was made")
        return self.record(maker)

    def _made_in(self, folder: str) -> dict[str, str]:
        """The files that the record in a folder describes, each with the record's name."""
        if folder not in self._made:
            name = f"{folder}/{RECORD}"
            known = self.is_there(name) and self.is_valid(name)
            self._made[folder] = dict.fromkeys(self.record(name).outputs if known else (), name)
        return self._made[folder]


def _folders(name: str) -> list[str]:
    """A file's folders within the results, the nearest first."""
    return [str(folder) for folder in PurePosixPath(name).parents][:-1] if is_result(name) else []
