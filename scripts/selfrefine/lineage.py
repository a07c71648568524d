"""Walks from a result to everything behind it, and checks every link: records, files, manifests, rows of the tables.

Files go by the names that the records use, relative to the folder in which the study ran: `results/…`, or outside it.
Needs the standard library and pydantic alone, so that an archive can be checked where the pipeline is not installed.
"""

import csv
import glob
import math
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pydantic import ValidationError

from selfrefine.cli import describe
from selfrefine.errors import UserError
from selfrefine.files import read_json, read_jsonl
from selfrefine.fingerprint import Code, fingerprint_of
from selfrefine.provenance import RECORD, FileState, Record, state_of

# What the configuration alone writes: no record says how it was made.
CONFIGURED = ("results/index/", "results/configuration.yaml", "results/tables/sources.csv")
SOURCES = "results/tables/sources.csv"
INDEX = "results/index/tables.json"
# Of each table, the column that names the files behind a row.
BEHIND = {
    "accuracy": "samples",
    "arms": "samples",
    "comparisons": "samples",
    "demonstrations": "demonstrations",
    "paths": "sampled",
    "pairs": "sampled",
    "stages": "artifact",
}
# Of what the stages counted, what a chain shows.
SHOWN = ("read", "items", "answers", "kept", "used", "paths", "correct", "pairs", "train", "validation", "updates")
SHOWN += ("kept_update", "final_loss")


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
        if _is_result(name):
            return self.folder / name.removeprefix("results/")
        return self.folder.parent / name

    def name(self, path: str) -> str:
        """What the records call a file that a user names as it lies or as the records do."""
        absolute = Path(os.path.abspath(path))
        if absolute.is_relative_to(self.folder):
            return f"results/{absolute.relative_to(self.folder).as_posix()}"
        if not _is_result(os.path.normpath(path)):
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
                self.fault(name, expected, _shown(state), f"delete it and {record_name}: {self.again(name)}")

    def check_input(self, record_name: str, name: str) -> None:
        """Whether what a stage read is what its maker's record says was made, or what is there if it has no maker."""
        if not self._first("input", record_name, name):
            return
        record = self.record(record_name)
        read, made = record.inputs[name], next(iter(record.outputs))
        maker = self.maker(name)
        if maker is None and _is_result(name) and not name.startswith(CONFIGURED):
            self.note_unmade(name)
            return
        known = maker is not None and maker != name
        found = self.record(maker).outputs[name] if known else self.state(name)
        if found is None and not _is_result(name):
            self.outside.add(name)
        elif found is None:
            self.fault(name, f"{_shown(read)} (read for {made})", "no file: it is missing", self.again(name))
        elif found != read:
            mend = f"{made} was made from another one: {self.again(made)}"
            by = f" (made, says {maker})" if known else ""
            self.fault(name, f"{_shown(read)} (read, says {record_name})", f"{_shown(found)}{by}", mend)

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
            self.fault(name, f"{_shown(expected)} (says {claimant})", "no file: it is missing", self.again(name))
        elif found != expected:
            mend = f"it was changed after it was made: {self.again(name)}"
            self.fault(name, f"{_shown(expected)} (says {claimant})", _shown(found), mend)

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
                shown = _shown(found) if found else "no file: it is missing"
                mend = f"the checkpoint is not of these weights: {self.again(name)}"
                self.fault(base, f"sha256 {sha256[:12]} (says {name})", shown, mend)
            self._check_manifest(base)

    def _elsewhere(self) -> str:
        return "" if self.folder == Path(os.path.abspath("results")) else " where the study ran; copy it from there"

    def _first(self, *link: str) -> bool:
        known = link in self._checked
        self._checked.add(link)
        return not known


class Row(NamedTuple):
    """A row of a table: its line in the file, and its cells by column."""

    line: int
    cells: dict[str, str]


class Outcomes(NamedTuple):
    """A file of judged answers: the items' ids, sorted, and for each 1 where the answer is right, 0 where it is not."""

    items: tuple[str, ...]
    right: bytes


class Tables:
    """The study's tables, their rows counted again from the files behind them (not their intervals and p-values)."""

    def __init__(self, results: Results):
        self.results = results
        self._outcomes: dict[str, Outcomes] = {}
        # Benchmarks have few lists of items, checkpoints many answers to each: a list is kept once.
        self._items: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._index: list[dict] | None = None
        self._by: dict[tuple[str, ...], dict[tuple[str, ...], list[str]]] = {}

    def rows(self, table: str) -> list[Row]:
        """A table's rows; `UserError` if it is not there."""
        try:
            with open(self.results.locate(table), encoding="utf-8", errors="replace", newline="") as file:
                reader = csv.DictReader(file, restkey="beyond the columns", restval="")
                return [Row(reader.line_num, cells) for cells in reader]
        except FileNotFoundError:
            raise UserError(f"{table}: no such file; {self.results.again(table)}") from None

    def check(self, table: str) -> None:
        """Counts a table's rows again, and whether every cell of the study has one."""
        if self.results.state(table) is None:
            return
        rows = self.rows(table)
        for row in rows:
            self.check_row(table, row)
        if _kind(table) in ("accuracy", "arms"):
            there = {name for row in rows for name in behind(table, row)}
            for cell in self._cells(self.results.maker(table)):
                if cell["samples"] not in there:
                    self._fault(table, f"a row of {cell['samples']}", "none")

    def check_row(self, table: str, row: Row) -> list[str]:
        """Whether a row is of the files that it names, and its numbers are theirs; in words, what was counted."""
        record_name = self.results.maker(table)
        inputs = self.results.record(record_name).inputs
        names, where = behind(table, row), f"{table}:{row.line}"
        others = [name for name in names if not self._is_read(inputs, name)]
        if others or not names:
            self._fault(where, "files that the table was made from", " ".join(others) or "none")
            return []
        made = [self._made(name) for name in names]
        if None in made or made != [self.results.state(name) for name in names]:
            return ["not counted again: what it was counted from is not what was made"]
        try:
            values, said = self._count(record_name, table, row)
            self._check_names(record_name, table, row)
        except (UserError, LookupError, TypeError, ValueError, ZeroDivisionError) as error:
            found = f"what cannot be counted ({type(error).__name__}: {error})"
            self._fault(where, f"answers in {' '.join(names)}", found)
            return []
        wrong = {column: value for column, value in values.items() if not _same(row.cells.get(column, ""), value)}
        if wrong:
            expected = ", ".join(f"{column} {value:.6g}" for column, value in wrong.items())
            found = ", ".join(row.cells.get(column) or "nothing" for column in wrong)
            self._fault(where, f"{expected} (counted in {' '.join(names)})", found)
        return said

    def _fault(self, where: str, expected: str, found: str) -> None:
        table = where.split(":")[0]
        mend = f"the table was changed after it was made: delete it, and {self.results.again(table)}"
        self.results.fault(where, expected, found, mend)

    def _is_read(self, inputs: dict, name: str) -> bool:
        """Whether a table was made from a file or from its record; so it may have been if its record is gone."""
        maker = self.results.maker(name)
        return name in inputs or maker in inputs or (maker is None and self.results.state(name) is not None)

    def _made(self, name: str) -> FileState | None:
        maker = self.results.maker(name)
        return self.results.record(maker).outputs.get(name) if maker else None

    def _count(self, record_name: str, table: str, row: Row) -> tuple[dict[str, float], list[str]]:
        kind, names = _kind(table), behind(table, row)
        if kind in ("accuracy", "arms", "comparisons"):
            extractor = self.results.record(record_name).recipe["extractor"]
            key = "item" if row.cells["arm"] == "teacher" else "id"
            answers = [self._read(name, key, extractor) for name in names]
            said = [f"{sum(a.right)} of {len(a.items)} right in {n}" for a, n in zip(answers, names, strict=True)]
            return _counted(kind, answers), said
        record = self.results.record(self.results.maker(names[0]))
        figures = record.figures
        if kind == "stages":
            tokens = figures.get("tokens_made") or figures.get("tokens_seen") or 0
            values = {"wall_seconds": record.wall_seconds, "tokens": tokens, "peak_memory_mib": record.peak_memory_mib}
            return values, []
        rows = read_jsonl(self.results.locate(names[0]))
        if kind == "paths":
            style = row.cells["style"]
            right = [bool(path["correct"]) for path in rows if path["style"] == style]
            values = figures["paths"][style] | {"paths": len(right), "correct": sum(right)}
            return values, [f"{sum(right)} of {len(right)} {style} paths right in {names[0]}"]
        counts = dict(figures[kind])
        dropped = counts.pop("dropped")
        if kind == "demonstrations":
            values = counts | dropped | {"kept": len(rows)}
        else:
            values = counts | {f"dropped_{why}": n for why, n in dropped.items()} | {"pairs": len(rows)}
        return values, [f"{len(rows)} {kind} in {names[0]}"]

    def _read(self, name: str, key: str, extractor: str) -> Outcomes:
        if name not in self._outcomes:
            judged = sorted((row[key], bool(row[extractor])) for row in read_jsonl(self.results.locate(name)))
            items = tuple(item for item, _ in judged)
            self._outcomes[name] = Outcomes(self._items.setdefault(items, items), bytes(right for _, right in judged))
        return self._outcomes[name]

    # Which samples belong to which arm, the study's index says.

    def _cells(self, record_name: str) -> list[dict]:
        """The study's cells; none where the index is not the one that the tables were made from (that is a fault)."""
        if self._index is None:
            read = self.results.record(record_name).inputs.get(INDEX)
            same = read is not None and self.results.state(INDEX) == read
            self._index = read_json(self.results.locate(INDEX))["cells"] if same else []
        return self._index

    def _samples_by(self, columns: tuple[str, ...]) -> dict[tuple[str, ...], list[str]]:
        """The samples of the study's cells, by the text of these columns."""
        if columns not in self._by:
            self._by[columns] = {}
            for cell in self._index:
                self._by[columns].setdefault(tuple(str(cell[c]) for c in columns), []).append(cell["samples"])
        return self._by[columns]

    def _check_names(self, record_name: str, table: str, row: Row) -> None:
        """Whether a row names the samples of its arm, of every seed."""
        if not self._cells(record_name) or BEHIND[_kind(table)] != "samples":
            return
        names, where = behind(table, row), f"{table}:{row.line}"
        if "against" in row.cells:
            *names, control = names
            arm = row.cells["against"]
            if control not in self._samples_by(("arm", "evaluation")).get((arm, row.cells["evaluation"]), ()):
                self._fault(where, f"the samples of an arm {arm} to compare with", control)
        columns = tuple(column for column in self._index[0] if column in row.cells and column != "samples")
        expected = self._samples_by(columns).get(tuple(row.cells[column] for column in columns), [])
        if sorted(names) != sorted(expected):
            self._fault(where, f"the samples of its arm ({' '.join(expected) or 'there are none'})", " ".join(names))


class Chain:
    """A trace: an indented tree in which what each record is of stands once."""

    def __init__(self, results: Results):
        self.results = results
        self.tables = Tables(results)
        self._lines: list[tuple[str, tuple[str, ...]]] = []
        self._seen: set[str] = set()

    def lines(self) -> list[str]:
        """The lines; those of files (or rows) with faults say so."""
        broken = set(self.results.faults.values())
        return [f"{text}  BROKEN" if broken.intersection(about) else text for text, about in self._lines]

    def add(self, names: list[str], depth: int = 0, reader: Record | None = None) -> None:
        """Adds files of one record (or without one, of one folder), and everything behind them."""
        record_name = self.results.maker(names[0])
        if record_name is None:
            self._add_leaf(names, depth, reader)
        elif self.add_one(names, depth):
            record = self.results.record(record_name)
            for name in names:
                if is_table(record, name):
                    self.tables.check(name)
            self._add_behind(record, depth + 1)

    def add_one(self, names: list[str], depth: int, inputs: list[str] | None = None) -> bool:
        """Adds one line for files of one record and checks its links (of these inputs); False if it stands above."""
        results, record_name = self.results, self.results.maker(names[0])
        record = results.record(record_name)
        first, *rest = [name for name in names if name in record.outputs] or [record_name]
        text = ", ".join([f"{_short(results.state(first))} {first}", *(PurePosixPath(name).name for name in rest)])
        if record_name in self._seen:
            self._line(depth, f"{record.stage}  {text} (above)")
            return False
        self._seen.add(record_name)
        results.check_outputs(record_name)
        for name in record.inputs if inputs is None else inputs:
            results.check_input(record_name, name)
        seed = [] if record.seed is None else [f"seed {record.seed}"]
        notes = ", ".join([*seed, *_source(record), *_key_figures(record.figures)])
        text = f"{record.stage} {record.started.date()}  {text}{f' ({notes})' if notes else ''}"
        self._line(depth, text, record_name, *record.outputs)
        return True

    def add_rows(self, table: str, rows: list[Row], depth: int = 0) -> None:
        """Adds rows of a table, each with the files that it was counted from and everything behind those."""
        record_name = self.results.maker(table)
        if record_name is None:
            self._add_leaf([table], depth, None)
            return
        record = self.results.record(record_name)
        files = {name for row in rows for name in behind(table, row)}
        files |= {self.results.maker(name) for name in files} | {INDEX}
        self.add_one([table], depth, [name for name in record.inputs if name in files])
        for row in rows:
            said = self.tables.check_row(table, row)
            self._row(table, row, depth + 1)
            for line in said:
                self._line(depth + 2, line)
            for name in behind(table, row):
                self.add([name], depth + 2)

    def add_sources(self, rows: list[Row]) -> None:
        """Adds rows of the table of sources, each with what was fetched from there."""
        self._add_leaf([SOURCES], 0, None)
        for row in rows:
            self._row(SOURCES, row, 1)
            for record_name in self._fetched(row):
                self.add(list(self.results.record(record_name).outputs)[:1], 2)

    def _fetched(self, row: Row) -> list[str]:
        of_benchmark = row.cells.get("role") == "benchmark"
        folder = f"results/benchmarks/{row.cells.get('name')}/raw/" if of_benchmark else "results/models/"
        fetched = []
        for name in self.results.records():
            record = self.results.record(name) if name.startswith(folder) else None
            if record and _identity(record.recipe) == (row.cells.get("source"), row.cells.get("sha256")):
                fetched.append(name)
        if not fetched:
            mend = f"`snakemake` fetches it, or, if the table was changed: {self.results.again(SOURCES)}"
            self.results.fault(f"{SOURCES}:{row.line}", f"a record below {folder} of that source", "none", mend)
        return fetched

    def _add_behind(self, record: Record, depth: int) -> None:
        groups: dict[str, list[str]] = {}
        for name in record.inputs:
            outside = "" if _is_result(name) else f"{PurePosixPath(name).parent} {self.results.state(name) is None}"
            groups.setdefault(self.results.maker(name) or outside or name, []).append(name)
        for names in groups.values():
            self.add(names, depth, record)

    def _add_leaf(self, names: list[str], depth: int, reader: Record | None) -> None:
        name, state = names[0], self.results.state(names[0])
        what = f"{_short(reader.inputs[name] if reader else state)} {name}"
        if len(names) > 1:
            what = f"{PurePosixPath(name).parent}/: {len(names)} files"
        if not _is_result(name):
            self._line(depth, f"file  {what} (outside the results{'' if state else ', not here: not checked'})", *names)
        elif name.startswith(CONFIGURED):
            self._line(depth, f"study  {what} (written from the configuration)", *names)
        else:
            self.results.note_unmade(name)
            self._line(depth, f"?  {what} (no valid record)  BROKEN")

    def _row(self, table: str, row: Row, depth: int) -> None:
        left_out = {BEHIND.get(_kind(table)), "checkpoint"}
        text = " ".join(f"{name}={value}" for name, value in row.cells.items() if value and name not in left_out)
        first, *rest = textwrap.wrap(text, 110)
        self._line(depth, f"row  {first}", f"{table}:{row.line}")
        for part in rest:
            self._line(depth, f"     {part}")

    def _line(self, depth: int, text: str, *about: str) -> None:
        self._lines.append((f"{'  ' * depth}{text}", about))


def trace(results: Results, path: str, wanted: dict[str, str]) -> list[str]:
    """The chain behind an artifact, or behind the rows of a table or the bars of a figure that are wanted, as lines.

    `UserError` if there is no such artifact, column or value. Faults are noted in `results`.
    """
    name, chain = results.name(path), Chain(results)
    record_name = results.maker(name)
    if record_name is None and results.state(name) is None and not results.invalid_beside(name):
        raise UserError(f"{path}: no such artifact: neither the file nor a record of it is in {results.folder}")
    record = results.record(record_name) if record_name else None
    if wanted and name == SOURCES:
        chain.add_sources(select(chain.tables.rows(name), wanted, name))
    elif wanted and record and is_table(record, name):
        chain.add_rows(name, select(chain.tables.rows(name), wanted, name))
    elif wanted and record and record.stage == "plot":
        _trace_figure(chain, name, record, wanted)
    elif wanted and (record or name.startswith(CONFIGURED)):
        raise UserError(f"{name}: neither a table nor a figure: name it without {' '.join(wanted)}=…")
    else:
        chain.add([name])
    return chain.lines()


def _trace_figure(chain: Chain, name: str, record: Record, wanted: dict[str, str]) -> None:
    tables = [table for table in record.inputs if PurePosixPath(table).name == "arms.csv"]
    if tables:
        # The bars of figure `accuracy` are of whole shares only.
        shares = ("", "100") if record.recipe.get("figure") == "accuracy" else None
        rows = [row for row in chain.tables.rows(tables[0]) if shares is None or row.cells.get("share") in shares]
        chosen = select(rows, wanted, name)
        chain.add_one([name], 0, tables)
        chain.add_rows(tables[0], chosen, 1)
        return
    logs = [path for path in record.inputs if path.endswith("/training.jsonl")]
    chosen = [log for log in logs if wanted.get("checkpoint", "\n") in log]
    if len(wanted) > 1 or not chosen:
        raise UserError(f"{name}: name its curves with checkpoint= and a part of one of these: {', '.join(logs)}")
    chain.add_one([name], 0, [path for path in record.inputs if path in chosen or path.startswith(CONFIGURED)])
    for log in chosen:
        chain.add([log], 1)


def select(rows: list[Row], wanted: dict[str, str], where: str) -> list[Row]:
    """The rows whose cells have these values; `UserError` says which columns or values there are if none has."""
    if not rows:
        raise UserError(f"{where}: has no rows")
    for column, value in wanted.items():
        if column not in rows[0].cells:
            raise UserError(f"{where}: no column {column!r}; there are {', '.join(rows[0].cells)}")
        there = sorted({row.cells[column] for row in rows})
        rows = [row for row in rows if row.cells[column] == value]
        if not rows:
            known = "" if column == next(iter(wanted)) else " in the rows that match so far"
            raise UserError(f"{where}: no {column}={value}{known}; there is {', '.join(map(repr, there))}")
    return rows


def check_all(results: Results) -> None:
    """Checks every record, every link between them and every row of the tables; faults are noted in `results`."""
    names, tables = results.records(), Tables(results)
    if not names:
        raise UserError(f"{results.folder}: no record below it; name the study's results with --results")
    for record_name in names:
        record = results.record(record_name)
        if record is None:
            results.note_invalid(record_name)
            continue
        results.check_outputs(record_name)
        for name in record.inputs:
            results.check_input(record_name, name)
        for name in record.outputs:
            if is_table(record, name):
                tables.check(name)


def is_table(record: Record, name: str) -> bool:
    """Whether a file of a record is one of the tables whose rows can be counted again."""
    return record.stage == "tables" and name.endswith(".csv") and PurePosixPath(name).stem in BEHIND


def behind(table: str, row: Row) -> list[str]:
    """The files that a row of a table was counted from."""
    return row.cells.get(BEHIND[_kind(table)], "").split()


def _kind(table: str) -> str:
    return PurePosixPath(table).stem


def _counted(kind: str, answers: list[Outcomes]) -> dict[str, float]:
    """A row's numbers: of one checkpoint's answers, of an arm's seeds, or of a treated and a control checkpoint."""
    items, right = answers[0].items, [sum(answer.right) for answer in answers]
    if any(answer.items is not items for answer in answers):
        raise UserError("the files are of different items")
    if kind == "comparisons":
        pairs = list(zip(*(answer.right for answer in answers), strict=True))
        gained, lost = pairs.count((1, 0)), pairs.count((0, 1))
        return {"n": len(items), "difference": (gained - lost) / len(items), "gained": gained, "lost": lost}
    values = {"n": len(items), "accuracy": sum(right) / len(items) / len(answers)}
    return values | ({"correct": right[0]} if kind == "accuracy" else {"seeds": len(answers)})


def _same(cell: str, value: float) -> bool:
    """Whether a table's cell, of six digits, is a number."""
    try:
        return math.isclose(float(cell), value, rel_tol=1e-5, abs_tol=1e-9)
    except ValueError:
        return False


def _key_figures(figures: dict, above: tuple[str, ...] = ()) -> Iterator[str]:
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from _key_figures(value, (*above, name))
        elif name in SHOWN:
            yield " ".join([*above[1:], name, f"{value:.4g}" if isinstance(value, float) else str(value)])


def _source(record: Record) -> list[str]:
    """Where a fetched file came from."""
    if record.stage not in ("fetch", "fetch_model"):
        return []
    source, sha256 = _identity(record.recipe)
    return [f"from {source}", f"its sha256 pinned: {sha256[:12]}" if sha256 else "its sha256 not pinned"]


def _identity(recipe: dict) -> tuple[str, str]:
    return recipe.get("source", ""), recipe.get("sha256") or ""


def _shown(state: FileState) -> str:
    return f"{state.bytes} bytes, sha256 {state.sha256[:12]}"


def _short(state: FileState | None) -> str:
    return state.sha256[:12] if state else "missing"


def _is_result(name: str) -> bool:
    return name.startswith("results/")


def _above(name: str) -> list[str]:
    """A file's folders within the results, the nearest first."""
    return [str(folder) for folder in PurePosixPath(name).parents][:-1] if _is_result(name) else []
