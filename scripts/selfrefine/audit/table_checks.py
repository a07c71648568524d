"""Whether the study's tables and claims are what the files behind their rows say."""

import math
from collections.abc import Mapping

from selfrefine.audit.flip_checks import flip_faults
from selfrefine.audit.integrity import AuditedResults
from selfrefine.audit.recount import Recount
from selfrefine.audit.table_rows import BEHIND, Row, is_table, read_rows, sides, table_name
from selfrefine.errors import UserError
from selfrefine.schema.record import FileState, Record
from selfrefine.store.files import read_json
from selfrefine.store.locations import VERDICTS

# The columns that an arm of a claim is known by, beside its name and its task.
SIDE = ("student", "share", "evaluation")
LEFT_OUT = "not counted again: what it was counted from was left out when the study was shared"
STALE = "not counted again: what it was counted from is not what was made"


class Tables:
    """The study's tables, their rows checked against the files behind them; faults are noted in the results."""

    def __init__(self, results: AuditedResults):
        self.results = results
        self.recount = Recount(results)
        self._samples: dict[tuple[str, tuple[str, ...]], dict[tuple[str, ...], list[str]]] = {}

    def rows(self, table: str) -> list[Row]:
        """A table's rows, or the claims' comparisons; `UserError` if it is not there."""
        try:
            return read_rows(self.results.locate(table))
        except FileNotFoundError:
            raise UserError(f"{table}: no such file; {self.results.remake(table)}") from None

    def check(self, table: str) -> None:
        """Counts a table's rows again, and whether every cell of the study has one."""
        if self.results.state(table) is None:
            return
        try:
            rows = self.rows(table)
        except (UserError, LookupError, TypeError, AttributeError) as error:
            self._fault(table, "a table", f"none ({type(error).__name__}: {error})")
            return
        for row in rows:
            self.check_row(table, row)
        if table_name(table) == "flips":
            self._check_flips(table, rows)
        if table_name(table) in ("accuracy", "arms", "lengths"):
            there = {name for row in rows for name in row.cells.get("samples", "").split()}
            for cell in self.recount.cells(table):
                if cell["samples"] not in there:
                    self._fault(table, f"a row of {cell['samples']}", "none")

    def check_row(self, table: str, row: Row) -> list[str]:
        """Whether a row names the files of its arm, and its numbers are theirs; in words, what was counted."""
        if table_name(table) == "costs" and not self.recount.jobs(table):
            return [STALE]
        names, where = self.recount.behind(table, row), f"{table}:{row.line}"
        if not names and row.cells.get("comparisons") == "0":
            return []
        record = self.results.made_by(table)
        others = [name for name in names if not self._is_read(record, name)]
        if others or not names:
            self._fault(where, "files that the table was made from", " ".join(others) or "none")
            return []
        there = [name for name in names if name not in self.results.left_out]
        # What a job took stands in its record.
        if there != names and table_name(table) not in ("stages", "costs"):
            return [LEFT_OUT]
        made = [self._made(name) for name in there]
        if None in made or made != [self.results.state(name) for name in there]:
            return [STALE]
        try:
            counted = self.recount.count(table, row)
            self._check_names(table, row)
        except (UserError, LookupError, TypeError, ValueError, ZeroDivisionError) as error:
            found = f"what cannot be counted ({type(error).__name__}: {error})"
            self._fault(where, f"answers in {' '.join(names)}", found)
            return []
        differing = {
            column: value for column, value in counted.values.items() if not _same(row.cells.get(column, ""), value)
        }
        if differing:
            expected = ", ".join(f"{column} {value:.6g}" for column, value in differing.items())
            found = ", ".join(row.cells.get(column) or "nothing" for column in differing)
            self._fault(where, f"{expected} (counted in {' '.join(names)})", found)
        return counted.words

    def _check_flips(self, table: str, rows: list[Row]) -> None:
        """Whether verdicts as configured are those of the claims, and kinds of flip follow from the verdicts."""
        inputs = self.results.made_by(table).inputs
        claims = next((name for name in inputs if name.endswith(f"/{VERDICTS}")), "")
        if self.results.state(claims) != inputs.get(claims):
            return
        for row, expected, found in flip_faults(rows, read_json(self.results.locate(claims))["claims"]):
            self._fault(f"{table}:{row.line}", expected, found)

    def _fault(self, where: str, expected: str, found: str) -> None:
        table = where.split(":")[0]
        remedy = f"the table was changed after it was made: {self.results.remake_by_hand(table)}"
        self.results.fault(where, expected, found, remedy)

    def _is_read(self, record: Record, name: str) -> bool:
        """Whether a table was made from a file or from its record; also possible if the record is gone."""
        maker = self.results.maker(name)
        if maker is None:
            return name in record.inputs or self.results.state(name) is not None
        return name in record.inputs or maker in record.inputs

    def _made(self, name: str) -> FileState | None:
        """What the maker of a file says of it; None without a maker."""
        maker = self.results.maker(name)
        return self.results.record(maker).outputs.get(name) if maker else None

    def _check_names(self, table: str, row: Row) -> None:
        """Whether a row names the samples of its arm, of every seed, and of the arm that it is compared with."""
        cells, kind = self.recount.cells(table), table_name(table)
        if not cells or "samples" not in BEHIND[kind]:
            return
        (own, against), where = sides(table, row), f"{table}:{row.line}"
        columns = tuple(c for c in cells[0] if c in row.cells and c != "samples")
        is_claim = kind in ("claims", "flips")
        if is_claim:
            columns = tuple(c for c in ("arm", *SIDE, "refine_task") if c in columns)
        expected = self._samples_by(table, columns).get(tuple(row.cells[column] for column in columns), [])
        # A comparison of a claim does not name all facts of its arm, so its files are some of these.
        if sorted(own) != sorted(expected) and not (is_claim and set(own) <= set(expected)):
            self._fault(where, f"the samples of its arm ({' '.join(expected) or 'there are none'})", " ".join(own))
        if against:
            arm, evaluation = row.cells["against"], row.cells["evaluation"]
            known = self._samples_by(table, ("arm", "evaluation")).get((arm, evaluation), [])
            others = [name for name in against if name not in known]
            if others:
                self._fault(where, f"the samples of an arm {arm} to compare with", " ".join(others))

    def _samples_by(self, table: str, columns: tuple[str, ...]) -> dict[tuple[str, ...], list[str]]:
        """The samples of the cells that a table was made from, by the text of these columns."""
        key = table, columns
        if key not in self._samples:
            self._samples[key] = {}
            for cell in self.recount.cells(table):
                known: Mapping[str, object] = {**cell}
                self._samples[key].setdefault(tuple(str(known[column]) for column in columns), []).append(
                    str(cell["samples"])
                )
        return self._samples[key]


def check_all(results: AuditedResults) -> None:
    """Checks every record, every link between them and every row of the tables; faults are noted in the results."""
    names, tables = results.records(), Tables(results)
    if not names:
        raise UserError(f"{results.folder}: no record below it; name the study's results with --results")
    for record_name in names:
        if not results.is_valid(record_name):
            results.note_invalid(record_name)
            continue
        record = results.record(record_name)
        results.check_outputs(record_name)
        for name in record.inputs:
            results.check_input(record_name, name)
        for name in record.outputs:
            if is_table(record, name):
                tables.check(name)


def _same(cell: str, value: float) -> bool:
    """Whether a table's cell, of six digits, is a number."""
    try:
        return math.isclose(float(cell), value, rel_tol=1e-5, abs_tol=1e-9)
    except ValueError:
        return False
