"""A trace as an indented tree of lines: each file with what made it, and every link checked."""

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from selfrefine.audit.integrity import AuditedResults, short
from selfrefine.audit.table_checks import Tables
from selfrefine.audit.table_rows import Row, columns_behind, index_of, is_table
from selfrefine.errors import UserError
from selfrefine.schema.config import STOCK
from selfrefine.schema.record import Record
from selfrefine.store.locations import STORE, is_listing, is_result
from selfrefine.store.versions import read_versions

SCRIPTS = Path(__file__).resolve().parents[2]
# The counts of a record that a trace shows.
SHOWN = (
    *("read", "items", "answers", "kept", "used", "paths", "correct", "pairs", "train", "validation", "updates"),
    *("kept_update", "final_loss"),
)


class Chain:
    """A trace as a tree of lines; what made a file, and everything behind it, stands in the tree once."""

    def __init__(self, results: AuditedResults):
        self.results = results
        self.tables = Tables(results)
        self._lines: list[tuple[str, tuple[str, ...]]] = []
        self._seen: set[str] = set()
        self._versions = read_versions(SCRIPTS)

    def lines(self) -> list[str]:
        """The lines; those about files (or rows) with faults end in BROKEN."""
        broken = set(self.results.faults.values())
        return [f"{text}  BROKEN" if broken.intersection(about) else text for text, about in self._lines]

    # Files and what made them.

    def add(self, names: list[str], depth: int = 0, reader: Record | None = None) -> None:
        """Adds files of one record (or, without a record, of one folder), and everything behind them."""
        record_name = self.results.maker(names[0])
        if record_name is None:
            self._add_leaf(names, depth, reader)
        elif is_listing(record_name):
            self._add_listing(record_name, names[0], depth)
        elif self.add_one(record_name, names, depth):
            record = self.results.record(record_name)
            for name in names:
                if is_table(record, name):
                    self.tables.check(name)
            self._add_behind(record, depth + 1)

    def add_one(self, record_name: str, names: list[str], depth: int, inputs: list[str] | None = None) -> bool:
        """Adds one line for files of one record, and checks its links to `inputs` (all by default).

        False if the record is in the tree already.
        """
        results, record = self.results, self.results.record(record_name)
        first, *rest = [name for name in names if name in record.outputs] or [record_name]
        is_left_out = first in results.left_out
        state = record.outputs[first] if is_left_out else results.state(first)
        text = ", ".join([f"{short(state)} {first}", *(PurePosixPath(name).name for name in rest)])
        is_above = record_name in self._seen
        if inputs is None:
            inputs = [] if is_above else list(record.inputs)
        for name in inputs:
            results.check_input(record_name, name)
        if is_above:
            self._line(depth, f"{record.stage}  {text} (above)")
            return False
        self._seen.add(record_name)
        results.check_outputs(record_name)
        seed = [] if record.seed is None else [f"seed {record.seed}"]
        kept = ["left out"] if is_left_out else []
        notes = ", ".join([*kept, *seed, *_source(record), *_counts(record.figures)])
        text = f"{record.stage} {record.started.date()}  {text}{f' ({notes})' if notes else ''}"
        self._line(depth, text, record_name, *record.outputs)
        if reason := self._reason_for_version(record):
            self._line(depth + 1, f"code {record.version} (because {reason})")
        return True

    def _reason_for_version(self, record: Record) -> str:
        """Why the code that ran counts as the version in the key; "" for the first and for unlisted code."""
        listed = self._versions.get(record.stage)
        if listed is None or record.version != listed.name:
            return ""
        is_first = listed.version == 1 and record.code == next(iter(listed.fingerprints), None)
        return "" if is_first else listed.fingerprints.get(record.code, "")

    def _add_behind(self, record: Record, depth: int) -> None:
        """Adds what a stage read, the files of one record together."""
        groups: dict[str, list[str]] = {}
        for name in record.inputs:
            outside = "" if is_result(name) else f"{PurePosixPath(name).parent} {self.results.state(name) is None}"
            groups.setdefault(self.results.maker(name) or outside or name, []).append(name)
        for names in groups.values():
            self.add(names, depth, record)

    def _add_listing(self, record_name: str, name: str, depth: int) -> None:
        self.results.check_outputs(record_name)
        self._line(depth, f"study  {short(self.results.state(name))} {name} (written from the configuration)", name)

    def _add_leaf(self, names: list[str], depth: int, reader: Record | None) -> None:
        """Adds files without a record: those outside the results, or those whose record is missing."""
        name, state = names[0], self.results.state(names[0])
        what = f"{short(reader.inputs[name] if reader else state)} {name}"
        if len(names) > 1:
            what = f"{PurePosixPath(name).parent}/: {len(names)} files"
        if not is_result(name):
            has_changed = name in self.results.changed_outside and reader and reader.inputs[name] != state
            now = ", not here: not checked" if state is None else ", another one now" if has_changed else ""
            self._line(depth, f"file  {what} (outside the results{now})", *names)
        else:
            self.results.note_unmade(name)
            self._line(depth, f"?  {what} (no valid record)  BROKEN")

    # Rows of tables.

    def add_rows(self, table: str, rows: list[Row], depth: int = 0) -> None:
        """Adds rows of a table, each with the files that it was counted from and everything behind those."""
        record_name = self.results.maker(table)
        if record_name is None:
            self._add_leaf([table], depth, None)
            return
        record = self.results.record(record_name)
        files: set[str | None] = {name for row in rows for name in self.tables.recount.behind(table, row)}
        files |= {self.results.maker(name) for name in files if name} | {index_of(record)}
        self.add_one(record_name, [table], depth, [name for name in record.inputs if name in files])
        for row in rows:
            words = self.tables.check_row(table, row)
            self.add_row(table, row, depth + 1)
            for line in words:
                self._line(depth + 2, line)
            for name in self.tables.recount.behind(table, row):
                self.add([name], depth + 2)

    def add_row(self, table: str, row: Row, depth: int) -> None:
        """Adds the cells of a row."""
        left_out = {*columns_behind(table), "checkpoint"}
        text = " ".join(f"{name}={value}" for name, value in row.cells.items() if value and name not in left_out)
        first, *rest = textwrap.wrap(text, 110)
        self._line(depth, f"row  {first}", f"{table}:{row.line}")
        for part in rest:
            self._line(depth, f"     {part}")

    def add_answers(self, name: str, extractor: str, depth: int) -> None:
        """Adds a line that says how many of a file's answers are correct."""
        try:
            self._line(depth, self.tables.recount.answers(name, extractor))
        except (UserError, LookupError, TypeError) as error:
            self._line(depth, f"not counted again: {type(error).__name__}: {error}")

    def add_sources(self, table: str, rows: list[Row]) -> None:
        """Adds rows of the table of sources, each with what was fetched from there."""
        self.add([table])
        for row in rows:
            self.add_row(table, row, 1)
            for fetched in self._fetched(table, row):
                self.add(list(self.results.record(fetched).outputs)[:1], 2)

    def _fetched(self, table: str, row: Row) -> list[str]:
        """The records of what was fetched from a source; a fault if there is none."""
        stage = "fetch" if row.cells.get("role") == "benchmark" else "fetch_model"
        stage = "fetch_task" if row.cells.get("name", "").startswith(STOCK) else stage
        folder = f"{STORE}/{stage}/"
        fetched = []
        for name, record in self.results.valid_records():
            source, sha256 = _origin(record) if name.startswith(folder) else ("", "")
            # A file with a pinned sha256 may have come from anywhere.
            is_same = sha256 == row.cells.get("sha256") and (sha256 or source == row.cells.get("source"))
            if name.startswith(folder) and is_same:
                fetched.append(name)
        if not fetched:
            remedy = f"`snakemake` fetches it, or, if the table was changed: {self.results.remake(table)}"
            self.results.fault(f"{table}:{row.line}", f"a record below {folder} of that source", "none", remedy)
        return fetched

    def _line(self, depth: int, text: str, *about: str) -> None:
        self._lines.append((f"{'  ' * depth}{text}", about))


def _counts(figures: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[str]:
    """What a stage counted, as far as a trace shows it."""
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from _counts(value, (*above, name))
        elif name in SHOWN:
            yield " ".join([*above[1:], name, f"{value:.4g}" if isinstance(value, float) else str(value)])


def _source(record: Record) -> list[str]:
    """In words, where a fetched file came from."""
    if record.stage not in ("fetch", "fetch_model", "fetch_task"):
        return []
    source, sha256 = _origin(record)
    return [f"from {source}", f"its sha256 pinned: {sha256[:12]}" if sha256 else "its sha256 not pinned"]


def _origin(record: Record) -> tuple[str, str]:
    """Where a fetched file came from, and its pinned sha256; "" for what the record does not say."""
    source = record.figures.get("source", {})
    return source.get("source", ""), source.get("sha256") or ""
