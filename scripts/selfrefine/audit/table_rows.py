"""Rows of the study's tables and claims as text, and the files that each was counted from."""

import csv
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from selfrefine.errors import UserError
from selfrefine.schema.record import Record
from selfrefine.store.files import read_json
from selfrefine.store.locations import is_listing

# By table, the columns that name the files behind a row; the jobs behind a row of the costs are found in the index.
BEHIND = {
    "accuracy": ("samples",),
    "arms": ("samples",),
    "comparisons": ("samples",),
    "lengths": ("samples", "against_samples"),
    "demonstrations": ("demonstrations",),
    "paths": ("sampled",),
    "solving": ("sampled",),
    "pass_at_k": ("samples",),
    "pairs": ("sampled",),
    "refinements": ("log",),
    "stages": ("artifact",),
    "costs": (),
    "claims": ("samples", "against_samples"),
    "flips": ("samples", "against_samples"),
}
# What names a comparison of a claim, beside the claim, and its numbers.
FACTS = ("arm", "against", "student", "teacher", "against_teacher", "task", "refine_task", "share", "evaluation")
NUMBERS = ("items", "seeds", "accuracy", "against_accuracy", "difference", "low", "high", "p", "corrected_p", "verdict")


class Row(NamedTuple):
    """A row of a table: its line in the file (in the claims, which comparison it is), and its cells by column."""

    line: int | str
    cells: dict[str, str]


class Sides(NamedTuple):
    """The files of judged answers behind a row: of its arm, and of the arm that it is compared with."""

    own: list[str]
    against: list[str]


def is_table(record: Record, name: str) -> bool:
    """Whether a file of a record is a table whose rows can be counted again."""
    if record.stage == "claims":
        return name.endswith(".json")
    if record.stage == "flips":
        return name.endswith(".csv")
    return record.stage == "tables" and name.endswith(".csv") and table_name(name) in BEHIND


def table_name(file: str) -> str:
    """The name of a table, by its file."""
    return PurePosixPath(file).stem


def columns_behind(file: str) -> tuple[str, ...]:
    """The columns of a table that name files."""
    return BEHIND.get(table_name(file), ())


def index_of(record: Record) -> str | None:
    """The listing that says what tables or claims were made from."""
    return next((name for name in record.inputs if is_listing(name)), None)


def read_rows(path: Path) -> list[Row]:
    """A table's rows, or the claims' comparisons."""
    if table_name(path.name) == "claims":
        return _comparisons(read_json(path)["claims"])
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.DictReader(file, restkey="beyond the columns", restval="")
        return [Row(reader.line_num, cells) for cells in reader]


def _comparisons(claims: list[Mapping[str, Any]]) -> list[Row]:
    """The comparisons behind the claims; each line names its claim, and which of its comparisons it is."""
    rows = []
    for claim in claims:
        known = {"claim": str(claim["claim"]), "recipe": claim["recipe"]}
        number = 0
        for part in claim["parts"]:
            for found in part["comparisons"]:
                number += 1
                cells = known | {name: _text(found[name]) for name in ("part", *FACTS, *NUMBERS)}
                for name in ("gained", "lost"):
                    cells[name] = str(sum(seed[name] for seed in found["by_seed"]))
                cells |= {name: " ".join(found[name]) for name in BEHIND["claims"]}
                named = f"{claim['claim']} ({claim['recipe']})" if claim["recipe"] else f"{claim['claim']}"
                rows.append(Row(f"claim {named}, comparison {number}", cells))
    return rows


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def sides(table: str, row: Row) -> Sides:
    """The files of judged answers that a row compares."""
    names = row.cells.get("samples", "").split()
    if table_name(table) == "comparisons":
        return Sides(names[:-1], names[-1:])
    return Sides(names, row.cells.get("against_samples", "").split())


def select(rows: list[Row], wanted: Mapping[str, str], where: str) -> list[Row]:
    """The rows with these values in their cells; if there are none, `UserError` names those there are."""
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
