"""Walks from a result to everything behind it, and checks every link: records, files, manifests, rows of the tables.

Needs the standard library and pydantic alone, so that an archive can be checked where the pipeline is not installed.
"""

import textwrap
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from selfrefine import shown
from selfrefine.errors import UserError
from selfrefine.links import STORE, Results, is_listing, is_result, short
from selfrefine.provenance import Record
from selfrefine.recount import Row, Tables, columns_behind, index_of, is_table
from selfrefine.versions import read_versions

SCRIPTS = Path(__file__).resolve().parent.parent
# Of what the stages counted, what a chain shows.
SHOWN = ("read", "items", "answers", "kept", "used", "paths", "correct", "pairs", "train", "validation", "updates")
SHOWN += ("kept_update", "final_loss")
# Of the rows of a laid-out table: which cell is meant, by its column.
CELL = "cell"


class Chain:
    """A trace: an indented tree in which what each record is of stands once."""

    def __init__(self, results: Results):
        self.results = results
        self.tables = Tables(results)
        self._lines: list[tuple[str, tuple[str, ...]]] = []
        self._seen: set[str] = set()
        self._versions = read_versions(SCRIPTS)

    def lines(self) -> list[str]:
        """The lines; those of files (or rows) with faults say so."""
        broken = set(self.results.faults.values())
        return [f"{text}  BROKEN" if broken.intersection(about) else text for text, about in self._lines]

    def add(self, names: list[str], depth: int = 0, reader: Record | None = None) -> None:
        """Adds files of one record (or without one, of one folder), and everything behind them."""
        record_name = self.results.maker(names[0])
        if record_name is None:
            self._add_leaf(names, depth, reader)
        elif is_listing(record_name):
            self._add_listing(names[0], depth)
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
        text = ", ".join([f"{short(results.state(first))} {first}", *(PurePosixPath(name).name for name in rest)])
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
        notes = ", ".join([*seed, *_source(record), *_key_figures(record.figures)])
        text = f"{record.stage} {record.started.date()}  {text}{f' ({notes})' if notes else ''}"
        self._line(depth, text, record_name, *record.outputs)
        if reason := self._because(record):
            self._line(depth + 1, f"code {record.version} (because {reason})")
        return True

    def _because(self, record: Record) -> str:
        """Why the code that ran counts as the version in its artifact's key; "" for the first code of all, and where it is not listed."""
        listed = self._versions.get(record.stage)
        if listed is None or record.version != listed.name:
            return ""
        is_first = listed.version == 1 and record.code == next(iter(listed.fingerprints), None)
        return "" if is_first else listed.fingerprints.get(record.code, "")

    def add_rows(self, table: str, rows: list[Row], depth: int = 0) -> None:
        """Adds rows of a table, each with the files that it was counted from and everything behind those."""
        record_name = self.results.maker(table)
        if record_name is None:
            self._add_leaf([table], depth, None)
            return
        record = self.results.record(record_name)
        files = {name for row in rows for name in self.tables.behind(table, row)}
        files |= {self.results.maker(name) for name in files} | {index_of(record)}
        self.add_one([table], depth, [name for name in record.inputs if name in files])
        for row in rows:
            said = self.tables.check_row(table, row)
            self.add_row(table, row, depth + 1)
            for line in said:
                self._line(depth + 2, line)
            for name in self.tables.behind(table, row):
                self.add([name], depth + 2)

    def add_sources(self, table: str, rows: list[Row]) -> None:
        """Adds rows of the table of sources, each with what was fetched from there."""
        self._add_listing(table, 0)
        for row in rows:
            self.add_row(table, row, 1)
            for record_name in self._fetched(table, row):
                self.add(list(self.results.record(record_name).outputs)[:1], 2)

    def _fetched(self, table: str, row: Row) -> list[str]:
        stage = "fetch" if row.cells.get("role") == "benchmark" else "fetch_model"
        folder = f"{STORE}/{stage}/"
        fetched = []
        for name in self.results.records():
            record = self.results.record(name) if name.startswith(folder) else None
            source, sha256 = _identity(record) if record else ("", "")
            # What is pinned may have come from anywhere.
            if record and sha256 == row.cells.get("sha256") and (sha256 or source == row.cells.get("source")):
                fetched.append(name)
        if not fetched:
            mend = f"`snakemake` fetches it, or, if the table was changed: {self.results.again(table)}"
            self.results.fault(f"{table}:{row.line}", f"a record below {folder} of that source", "none", mend)
        return fetched

    def _add_listing(self, name: str, depth: int) -> None:
        self.results.check_outputs(self.results.maker(name))
        self._line(depth, f"study  {short(self.results.state(name))} {name} (written from the configuration)", name)

    def _add_behind(self, record: Record, depth: int) -> None:
        groups: dict[str, list[str]] = {}
        for name in record.inputs:
            outside = "" if is_result(name) else f"{PurePosixPath(name).parent} {self.results.state(name) is None}"
            groups.setdefault(self.results.maker(name) or outside or name, []).append(name)
        for names in groups.values():
            self.add(names, depth, record)

    def _add_leaf(self, names: list[str], depth: int, reader: Record | None) -> None:
        name, state = names[0], self.results.state(names[0])
        what = f"{short(reader.inputs[name] if reader else state)} {name}"
        if len(names) > 1:
            what = f"{PurePosixPath(name).parent}/: {len(names)} files"
        if not is_result(name):
            is_other = name in self.results.others and reader and reader.inputs[name] != state
            now = ", not here: not checked" if state is None else ", another one now" if is_other else ""
            self._line(depth, f"file  {what} (outside the results{now})", *names)
        else:
            self.results.note_unmade(name)
            self._line(depth, f"?  {what} (no valid record)  BROKEN")

    def add_answers(self, name: str, extractor: str, depth: int) -> None:
        """Adds a line that says how many of a file's answers are right."""
        try:
            self._line(depth, self.tables.answers(name, extractor))
        except (UserError, LookupError, TypeError) as error:
            self._line(depth, f"not counted again: {type(error).__name__}: {error}")

    def add_row(self, table: str, row: Row, depth: int) -> None:
        """Adds a line with the cells of a row."""
        left_out = {*columns_behind(table), "checkpoint"}
        text = " ".join(f"{name}={value}" for name, value in row.cells.items() if value and name not in left_out)
        first, *rest = textwrap.wrap(text, 110)
        self._line(depth, f"row  {first}", f"{table}:{row.line}")
        for part in rest:
            self._line(depth, f"     {part}")

    def _line(self, depth: int, text: str, *about: str) -> None:
        self._lines.append((f"{'  ' * depth}{text}", about))


def trace(results: Results, path: str, wanted: dict[str, str]) -> list[str]:
    """The chain behind an artifact, or behind what is wanted of a table, a figure or the claims, as lines.

    `UserError` if there is no such artifact, column or value. Faults are noted in `results`.
    """
    name, chain = results.name(path), Chain(results)
    record_name = results.maker(name)
    if record_name is None and results.state(name) is None and not results.invalid_beside(name):
        raise UserError(f"{path}: no such artifact: neither the file nor a record of it is in {results.folder}")
    record = results.record(record_name) if record_name else None
    if wanted and is_listing(name) and name.endswith("/sources.csv"):
        chain.add_sources(name, select(chain.tables.rows(name), wanted, name))
    elif wanted and record and is_table(record, name):
        chain.add_rows(name, select(chain.tables.rows(name), wanted, name))
    elif wanted and record and record.stage == "claims":
        table = next(path for path in record.outputs if is_table(record, path))
        chain.add_rows(table, select(chain.tables.rows(table), wanted, name))
    elif wanted and record and record.stage == "plot":
        _trace_figure(chain, name, record, wanted)
    elif wanted and record and record.stage == "layout":
        _trace_layout(chain, name, record, wanted)
    elif wanted and record:
        raise UserError(f"{name}: neither a table nor a figure: name it without {' '.join(wanted)}=…")
    else:
        chain.add([name])
    return chain.lines()


def _trace_figure(chain: Chain, name: str, record: Record, wanted: dict[str, str]) -> None:
    figure, student = record.recipe.get("figure", ""), record.recipe.get("student", "")
    tables = [table for table in record.inputs if table.endswith(".csv")]
    if not tables:
        _trace_curves(chain, name, record, wanted)
        return
    chosen, refused = {}, []
    for table in tables:
        rows = {id(row.cells): row for row in chain.tables.rows(table)}
        drawn = shown.in_figure(figure, student, [row.cells for row in rows.values()], PurePosixPath(table).stem)
        try:
            chosen[table] = select([rows[id(cells)] for cells in drawn], wanted, name)
        except UserError as error:
            refused.append(error)
    if not chosen:
        raise refused[0]
    chain.add_one([name], 0, list(chosen))
    for table, rows in chosen.items():
        chain.add_rows(table, rows, 1)


def _trace_curves(chain: Chain, name: str, record: Record, wanted: dict[str, str]) -> None:
    named = chain.tables.trained(record)
    part = wanted.get("checkpoint", "\n")
    chosen = [log for checkpoint, log in named.items() if part in checkpoint]
    if len(wanted) > 1 or not chosen:
        raise UserError(f"{name}: name its curves with checkpoint= and a part of one of these: {', '.join(named)}")
    chain.add_one([name], 0, [path for path in record.inputs if path in chosen or is_listing(path)])
    for log in chosen:
        chain.add([log], 1)


def _trace_layout(chain: Chain, name: str, record: Record, wanted: dict[str, str]) -> None:
    recipe, laid_out = record.recipe, next(path for path in record.outputs if path.endswith(".csv"))
    wanted, cell = dict(wanted), wanted.get(CELL, "")
    wanted.pop(CELL, None)
    laid = select(chain.tables.rows(laid_out), wanted, name)
    if cell and cell not in laid[0].cells:
        raise UserError(f"{name}: no column {cell!r}; there are {', '.join(laid[0].cells)}")
    tables = [table for table in record.inputs if table.startswith(f"{STORE}/tables/")]
    kind, titles = recipe["layout"], recipe["titles"]
    files = {row.line: shown.files_in_layout(kind, row.cells, recipe["rows"], titles, cell) for row in laid}
    made = {chain.results.maker(path) for paths in files.values() for path in paths}
    chain.add_one([name], 0, tables or [path for path in record.inputs if chain.results.maker(path) in made])
    for row in laid:
        chain.add_row(laid_out, row, 1)
        for table in tables:
            behind = {id(found.cells): found for found in chain.tables.rows(table)}
            of_table = [found.cells for found in behind.values()]
            cells = shown.in_layout(kind, recipe["student"], row.cells, of_table, titles, cell)
            chain.add_rows(table, [behind[id(found)] for found in cells], 2)
        for path in files[row.line]:
            if kind == "teachers":
                chain.add_answers(path, recipe["extractor"], 2)
            chain.add([path], 2)


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
    source, sha256 = _identity(record)
    return [f"from {source}", f"its sha256 pinned: {sha256[:12]}" if sha256 else "its sha256 not pinned"]


def _identity(record: Record) -> tuple[str, str]:
    source = record.figures.get("source", {})
    return source.get("source", ""), source.get("sha256") or ""
