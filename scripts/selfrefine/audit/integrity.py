"""Whether a study's files are what its records say: every link between them, checked once."""

import collections
import functools
import os
from pathlib import Path, PurePosixPath

from selfrefine.audit.recorded_results import RecordedResults
from selfrefine.schema.record import FileState
from selfrefine.store.files import read_json
from selfrefine.store.fingerprint import Code, fingerprint_of
from selfrefine.store.invocations import command
from selfrefine.store.locations import CODE, LEFT_OUT, RECORD, RESULTS, STORE, artifact_folder, is_result, place_of
from selfrefine.store.reuse import content_of_record

SET_ASIDE = "`python scripts/study.py verify --set-aside` moves it out of the way"


class AuditedResults(RecordedResults):
    """A study's results, and the faults found in them so far.

    `faults` has one line per broken link, with the file (or file:line) that it is about. Of the files that the study
    read outside its results, `outside` has those that are not here, and `changed_outside` those that have changed since
    some artifact was made from them. `left_out` has those that were left out when the study was shared.
    """

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.faults: dict[str, str] = {}
        self.outside: set[str] = set()
        self.changed_outside: set[str] = set()
        self.left_out = self._left_out()
        self._checked: set[tuple[str, ...]] = set()

    def _left_out(self) -> frozenset[str]:
        """The files that are known by their records alone."""
        path = self.folder / LEFT_OUT
        names = read_json(path) if path.is_file() else []
        return frozenset(name for name in names if not self.is_there(name))

    def fault(self, where: str, expected: str, found: str, remedy: str) -> None:
        """Notes a broken link, and what to do about it."""
        self.faults[f"{where}: expected {expected}, found {found}; {remedy}"] = where

    def amount_checked(self) -> str:
        """How much was checked so far, in words."""
        states = self.hashed()
        records = sum(link[0] == "outputs" for link in self._checked)
        size = sum(state.bytes for state in states)
        return f"records: {records}, files: {len(states)}, bytes: {size:,}"

    # Links between records and files.

    def check_outputs(self, record_name: str) -> None:
        """Whether the files that a record says were made are there, unchanged."""
        if not self._is_first("outputs", record_name):
            return
        record = self.record(record_name)
        self._check_code(record.code)
        if not self._is_as_written(record_name):
            said = "settings, command and inputs of the content that it was written with"
            remedy = f"the record was changed after it was written: {self.remake(record_name)}"
            self.fault(record_name, f"{said}, {record.content[:12]}", content_of_record(record)[:12], remedy)
        for name, state in record.outputs.items():
            self._check_file(name, state, record_name)
            pinned = record.settings.get("sha256")
            if record.stage == "fetch" and pinned and state.sha256 != pinned:
                expected = f"sha256 {pinned[:12]}, which the settings in {record_name} pin"
                self.fault(name, expected, described(state), self.remake_by_hand(name))
        model = record.model if record.model and self.is_valid(record.model) else None
        if model and not self.record(model).outputs.keys() <= record.inputs.keys():
            expected = "the record of a model whose weights it was trained from"
            self.fault(record_name, expected, f"{model}, which it did not read", self.remake_by_hand(record_name))

    def check_input(self, record_name: str, name: str) -> None:
        """Whether what a stage read is what its maker's record says was made; without a maker, what is there."""
        if not self._is_first("input", record_name, name):
            return
        record, maker = self.record(record_name), self.maker(name)
        read = record.inputs[name]
        # Of a record that was changed, one fault is enough.
        if not self._is_as_written(record_name):
            self.check_outputs(record_name)
            return
        if maker is None and is_result(name):
            self.note_unmade(name)
            return
        is_made = maker is not None and maker != name and not self._is_misnamed(maker, name)
        found = self.made_by(name).outputs[name] if is_made else self.state(name)
        if found == read:
            return
        if maker == name:
            # A record that was changed is one fault, not one more for each that read it.
            self.check_outputs(name)
            if name in self.faults.values():
                return
        made = next(iter(record.outputs))
        if found is None and not is_result(name):
            self.outside.add(name)
        elif found is None:
            self.fault(name, f"{described(read)} (read for {made})", "no file: it is missing", self.remake(name))
        elif not is_result(name) and self._readers(name, found):
            self.changed_outside.add(name)
        else:
            remedy = f"{made} was made from another one: "
            remedy += self.remake(made) if is_result(name) else "snakemake makes an artifact of this one beside it"
            by = f" (made, says {maker})" if is_made else ""
            self.fault(name, f"{described(read)} (read, says {record_name})", f"{described(found)}{by}", remedy)

    def _check_code(self, code: str) -> None:
        """Whether the text that was kept of the code that ran has the fingerprint that it is kept under."""
        name = f"{STORE}/{CODE}/{code}.json"
        if self._is_first("code", name) and self.state(name):
            kept = read_json(self.locate(name))
            found = fingerprint_of(Code(kept["files"]), kept["script"])
            if found != code:
                self.fault(name, f"code of fingerprint {code}", found, "it was changed after it was kept: delete it")

    def _check_file(self, name: str, expected: FileState, record_name: str) -> None:
        if not self._is_first("file", name, expected.sha256):
            return
        found, claimed = self.state(name), f"{described(expected)} (says {record_name})"
        if found is None and name in self.left_out:
            return
        if found is None:
            self.fault(name, claimed, "no file: it is missing", self.remake(name))
        elif self._is_misnamed(record_name, name):
            known = f"{described(found)} of {name}, as the file is and as {self._readers(name, found)} records read it"
            remedy = f"the record was changed after it was written: {self.remake(record_name)}"
            self.fault(record_name, known, described(expected), remedy)
        elif found != expected:
            self.fault(name, claimed, described(found), f"it was changed after it was made: {self.remake(name)}")

    @functools.cache  # noqa: B019 -- one audit is one process
    def _is_as_written(self, record_name: str) -> bool:
        """Whether a record's settings, command and inputs are those of the content that it names."""
        record = self.record(record_name)
        return content_of_record(record) == record.content

    def _is_misnamed(self, record_name: str, name: str) -> bool:
        """Whether a record, not the file, is what was changed: the file is the one that others have read."""
        claimed, found = self.record(record_name).outputs.get(name), self.state(name)
        if claimed is None or found is None or claimed == found:
            return False
        return self._readers(name, found) > 0 and self._readers(name, claimed) == 0

    def _readers(self, name: str, state: FileState) -> int:
        """How many records say that a file was in this state when they read it."""
        return self._reads[name, state.sha256]

    @functools.cached_property
    def _reads(self) -> collections.Counter[tuple[str, str]]:
        """How many records read each content of each file."""
        records = (record for _, record in self.valid_records())
        return collections.Counter((name, state.sha256) for record in records for name, state in record.inputs.items())

    def _is_first(self, *link: str) -> bool:
        """Whether a link was not checked before."""
        known = link in self._checked
        self._checked.add(link)
        return not known

    # Files without a valid record.

    def invalid_record(self, name: str) -> str | None:
        """The record of a file's artifact, if it is there and not valid."""
        record_name = f"{_artifact(name)}/{RECORD}"
        return record_name if self.is_there(record_name) and not self.is_valid(record_name) else None

    def note_unmade(self, name: str) -> None:
        """Notes that no valid record says how a file was made."""
        if invalid := self.invalid_record(name):
            self.note_invalid(invalid)
        else:
            self.fault(name, "a record of how it was made", "none", self.remake(name))

    def note_invalid(self, record_name: str) -> None:
        """Notes that a record is not valid."""
        found = f"none: {self.reason_invalid(record_name)}"
        self.fault(record_name, "a record of provenance", found, self.remake(record_name))

    # What to do.

    def remake(self, name: str) -> str:
        """What to do about a file that is missing, or not what its record says."""
        record_name = f"{_artifact(name)}/{RECORD}"
        aside = f"{SET_ASIDE}, and " if self.is_there(record_name) else ""
        return f"{aside}{self._command(record_name)} makes it again{self._elsewhere()}"

    def remake_by_hand(self, name: str) -> str:
        """What to do about an artifact that agrees with its record, and yet cannot be what was made."""
        folder = _artifact(name)
        return f"delete {folder}, and {self._command(f'{folder}/{RECORD}')} makes it again{self._elsewhere()}"

    def _command(self, record_name: str) -> str:
        return command(self.locate(str(STORE)), record_name)

    def _elsewhere(self) -> str:
        return "" if self.folder == Path(os.path.abspath(RESULTS)) else " where the study ran; copy it from there"


def described(state: FileState) -> str:
    """A file's content, as a fault names it."""
    return f"{state.bytes} bytes, sha256 {state.sha256[:12]}"


def short(state: FileState | None) -> str:
    """A file's content, as a trace names it."""
    return state.sha256[:12] if state else "missing"


def _artifact(name: str) -> str:
    """The folder of the artifact that a file belongs to; the file's own folder outside the store."""
    place = place_of(name)
    return str(artifact_folder(*place)) if place else str(PurePosixPath(name).parent)
