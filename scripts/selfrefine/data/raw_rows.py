"""Reads a benchmark's raw rows (JSON Lines, JSON, CSV, TSV, Parquet; gzip)."""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from selfrefine.data.lookup import Row, query
from selfrefine.errors import UserError
from selfrefine.schema.source import Reading, format_of

BOM = b"\xef\xbb\xbf"
# How files begin that are not what their name says.
OTHERS = {
    b"version https://git-lfs": "is a pointer of git-lfs, not the file itself; run `git lfs pull` where it comes from",
    b"PK\x03\x04": "is a zip archive or an Excel workbook; unpack it, or save the sheet as CSV in UTF-8",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook; save the sheet as CSV in UTF-8",
    b"\xff\xfe": "is in UTF-16; save it as UTF-8",
    b"\xfe\xff": "is in UTF-16; save it as UTF-8",
    b"BZh91AY&SY": "is packed with bzip2; unpack it, or pack it with gzip",
    b"\xfd7zXZ": "is packed with xz; unpack it, or pack it with gzip",
    b"\x28\xb5\x2f\xfd": "is packed with zstd; unpack it, or pack it with gzip",
    b"<!doctype html": "is a web page, not the file itself; check the address of the source",
    b"<html": "is a web page, not the file itself; check the address of the source",
}
# CSV files with long values are read, too.
csv.field_size_limit(1 << 30)


def read_raw_rows(path: Path, reading: Reading | None = None) -> list[tuple[str, Row]]:
    """The rows of a raw file, each with the place to name in an error.

    A byte-order mark, the line ends of other systems and blank lines are no part of the rows.
    """
    reading = reading or Reading()
    ending = "".join(path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:])
    kind = reading.format or format_of(ending)
    if kind is None:
        raise UserError(f"{path}: unknown format {ending!r}; use .jsonl, .json, .csv, .tsv or .parquet")
    content = _content(path).removeprefix(BOM)
    start = content[:64].lstrip().lower()
    for beginning, told in OTHERS.items():
        if start.startswith(beginning.lower()):
            raise UserError(f"{path}: {told}")
    if kind == "parquet":
        return list(_parquet_rows(path, content))
    is_array = kind == "jsonl" and re.match(rb"\[\s*{", start)
    if kind == "jsonl" and not is_array:
        return list(_lines(path, content))
    if kind == "json" or is_array:
        return _json_rows(path, content, reading.rows)
    return list(_table_rows(path, content, reading, kind))


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged gzip file ({error}); fetch it again") from None


def _lines(path: Path, content: bytes) -> Iterator[tuple[str, Row]]:
    """The objects of JSON Lines."""
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UserError(
                f"{place}: not valid UTF-8 at byte {error.start} of the line; save the file as UTF-8"
            ) from None
        except (RecursionError, ValueError) as error:
            if not isinstance(error, json.JSONDecodeError):
                raise _beyond(place, error) from None
            ended = content.count(b"\n") >= number
            torn = "" if ended else " and the line has no end: the file was cut off, fetch or write it again"
            raise UserError(f"{place}: not valid JSON ({error.msg}){torn}") from None
        yield place, _object(row, place)


def _beyond(place: str, error: Exception) -> UserError:
    """The error for JSON that is valid, but that Python does not read: numbers of thousands of digits, deep nesting."""
    return UserError(f"{place}: JSON that cannot be read ({str(error).split(';')[0]}); shorten it, or write it as text")


def _object(row: object, place: str) -> Row:
    if not isinstance(row, dict):
        raise UserError(f"{place}: expected a JSON object, found {type(row).__name__}")
    return row


def _json_rows(path: Path, content: bytes, rows: str | None) -> list[tuple[str, Row]]:
    """The rows of a JSON file: its array, the array in it, its keyed objects, or JSON Lines under this ending."""
    try:
        value = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid UTF-8 at byte {error.start}; save the file as UTF-8") from None
    except (RecursionError, ValueError) as error:
        if not isinstance(error, json.JSONDecodeError):
            raise _beyond(str(path), error) from None
        if _begins_with_an_object(content) and not rows:
            return list(_lines(path, content))
        raise UserError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None
    if rows:
        value = query(value, rows, str(path))
        if not isinstance(value, list | dict):
            raise UserError(f"{path}: rows: {rows!r} finds no array of objects; correct the benchmark's file")
    if isinstance(value, dict):
        return [(f"{path}:{key}", row) for key, row in _keyed(path, value)]
    if not isinstance(value, list):
        raise UserError(f"{path}: expected a JSON array of objects")
    return [(f"{path}:{number}", _object(row, f"{path}:{number}")) for number, row in enumerate(value, 1)]


def _begins_with_an_object(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content.lstrip().split(b"\n", 1)[0].decode("utf-8")), dict)
    except ValueError:
        return False


def _keyed(path: Path, value: Row) -> list[tuple[str, Row]]:
    """The rows of a JSON object: those of the one array of objects in it, or its values with their keys."""
    arrays = [name for name, found in value.items() if _is_array_of_objects(found)]
    if len(arrays) == 1:
        (name,) = arrays
        return [(f"{name}:{number}", row) for number, row in enumerate(value[name], 1)]
    if value and all(isinstance(row, dict) for row in value.values()):
        return [(key, {"key": key, **row}) for key, row in value.items()]
    told = f"several arrays ({', '.join(arrays)})" if arrays else "no array of objects"
    raise UserError(
        f"{path}: expected a JSON array of objects, found an object with {told}; name the rows by `rows`, a JMESPath "
        "expression, beside the file's `source`"
    )


def _is_array_of_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _table_rows(path: Path, content: bytes, reading: Reading, kind: str) -> Iterator[tuple[str, Row]]:
    """The rows of a CSV or TSV file by its columns; values that a row does not have are None."""
    rows = _values(path, content, "\t" if kind == "tsv" else reading.delimiter or ",", kind == "tsv")
    header = reading.columns or next(rows, (0, []))[1]
    repeated = {name for name in header if name and header.count(name) > 1}
    if repeated:
        raise UserError(f"{path}: the header names {', '.join(sorted(repeated))} twice; rename a column")
    if len(header) == 1 and (found := [mark for mark in ";\t|," if mark in header[0]]):
        raise UserError(
            f"{path}: the header is one column, {header[0]!r}; if {found[0]!r} stands between its values, set "
            f"`delimiter: {json.dumps(found[0])}` beside the file's `source`"
        )
    for line, values in rows:
        if len(values) > len(header):
            raise UserError(
                f"{path}:{line}: more values ({len(values)}) than the header names ({len(header)}); quote values that "
                "hold commas"
            )
        if kind == "tsv" and len(values) < len(header):
            raise UserError(f"{path}:{line}: fewer values ({len(values)}) than columns ({len(header)})")
        yield f"{path}:{line}", dict(zip(header, [*values, *[None] * (len(header) - len(values))], strict=True))


def _values(path: Path, content: bytes, delimiter: str, plain: bool) -> Iterator[tuple[int, list[str]]]:
    """The values of each row with its line; in `plain` files quotes mean something only around a whole value."""
    try:
        text = content.decode("utf-8")
        lines = io.StringIO(text, newline="")
        if plain:
            reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
        else:
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
        line = 1
        for values in reader:
            if values:
                yield line, [_unquoted(value) for value in values] if plain else values
            line = reader.line_num + 1
    except (UnicodeDecodeError, csv.Error) as error:
        kind = "TSV" if plain else "CSV"
        raise UserError(f"{path}: not a {kind} file in UTF-8 ({error}); correct the file or fetch it again") from None


def _unquoted(value: str) -> str:
    inside = value[1:-1].replace('""', "")
    whole = len(value) > 1 and value[0] == value[-1] == '"' and '"' not in inside
    return value[1:-1].replace('""', '"') if whole else value


def _parquet_rows(path: Path, content: bytes) -> Iterator[tuple[str, Row]]:
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(content))
        rows = table.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: not a whole Parquet file ({error}); fetch it again") from None
    # A float of 32 bits is the number that was written, 0.1, and not that of 64 bits closest to it.
    short = [field.name for field in table.schema if field.type in (pyarrow.float16(), pyarrow.float32())]
    for number, row in enumerate(rows, 1):
        for name in short:
            row[name] = None if row[name] is None else float(f"{row[name]:.7g}")
        yield f"{path}:{number}", row
