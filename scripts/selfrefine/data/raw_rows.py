"""Reads a benchmark's raw rows (JSON Lines, JSON, CSV, Parquet) and looks fields up in them."""

import csv
from pathlib import Path
from typing import Any

from selfrefine.errors import UserError
from selfrefine.store.files import read_json, read_jsonl

LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Unmapped(Exception):
    """A row whose answer the mapping cannot read."""


def read_raw_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a JSON Lines, JSON, CSV or Parquet file, each with the place to name in an error."""
    suffix = Path(path).suffix
    rows: list[Any]
    if suffix == ".jsonl":
        rows = read_jsonl(path)
    elif suffix == ".json":
        rows = read_json(path)
        if not isinstance(rows, list):
            raise UserError(f"{path}: expected a JSON array of objects")
    elif suffix == ".csv":
        with open(path, encoding="utf-8", newline="") as file:
            try:
                rows = list(csv.DictReader(file, strict=True))
            except (UnicodeDecodeError, csv.Error) as error:
                raise UserError(
                    f"{path}: not a CSV file in UTF-8 ({error}); correct the file or fetch it again"
                ) from None
        for number, row in enumerate(rows, 1):
            if None in row:
                raise UserError(f"{path}:{number}: more values than the header names; quote values that hold commas")
    elif suffix == ".parquet":
        import pyarrow.parquet

        try:
            rows = pyarrow.parquet.read_table(path).to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"{path}: not a whole Parquet file ({error}); fetch it again") from None
    else:
        raise UserError(f"{path}: unknown format {suffix!r}; use .jsonl, .json, .csv or .parquet")
    return [(f"{path}:{number}", row) for number, row in enumerate(rows, 1)]


def look_up(row: dict[str, Any], name: str, place: str) -> Any:
    """The value of a field, walking into objects at each dot."""
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            have = ", ".join(sorted(value)) if isinstance(value, dict) else type(value).__name__
            raise UserError(
                f"{place}: field {name!r} is missing (the row has: {have}); correct the file or the benchmark's "
                "`fields`"
            )
        value = value[part]
    return value


def look_up_text(row: dict[str, Any], name: str, place: str) -> str:
    """The string or number that a field holds, as a string."""
    return as_text(look_up(row, name, place), name, place)


def as_text(value: object, name: str, place: str) -> str:
    """A field's value as a string; `UserError` unless it is a string or a number."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise UserError(f"{place}: field {name!r} holds {value!r}, not a string or number; correct the row or `fields`")
    return str(value)
