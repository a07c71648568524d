"""Reads and writes JSON, JSON Lines and text, whole or not at all."""

import contextlib
import errno
import getpass
import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from selfrefine.errors import UserError


@contextlib.contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a file that appears under `path` only once the block has ended without an error.

    The bytes reach the disk before the name does, so neither a kill nor a full disk leaves half a file behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming_write_errors(path):
            file = open(temporary, mode, encoding=None if "b" in mode else "utf-8")  # noqa: SIM115
        try:
            with naming_write_errors(path, all_of_them=False):
                yield file
            with naming_write_errors(path):
                file.flush()
                os.fsync(file.fileno())
        finally:
            with naming_write_errors(path):
                file.close()
        with naming_write_errors(path):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_torn(path: Path) -> None:
    """Removes the unfinished copies of a file that killed processes left; only for the one process that writes it."""
    for torn in Path(path).parent.glob(f".{glob.escape(Path(path).name)}.*"):
        if torn.suffix[1:].isdigit():
            torn.unlink(missing_ok=True)


# How a disk is full: no space, no quota, no larger file; and how torch says that it could not write.
FULL = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
UNWRITTEN = (*FULL, "file write failed", "inline_container")


@contextlib.contextmanager
def naming_write_errors(path: Path, all_of_them: bool = True) -> Iterator[None]:
    """Turns an error of the file system, or a library's for it, into a `UserError` that names the file.

    Without `all_of_them` only those that speak of a full disk: others may be of files that are read meanwhile.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not (says_full(error) or (all_of_them and isinstance(error, OSError))):
            raise
        raise UserError(unwritten(path, error)) from error


def says_full(error: Exception) -> bool:
    """Whether an error, of the system or of a library, says that a disk is full."""
    return any(sign in str(error) for sign in UNWRITTEN)


def unwritten(path: Path, error: Exception) -> str:
    """That a file could not be written, in the system's own words or, without them, the library's."""
    reason = getattr(error, "strerror", None) or next((text for text in FULL if text in str(error)), None) or error
    return (
        f"{path}: could not be written: {reason}; free space or fix the permissions and run again, "
        "finished work is kept"
    )


def check_writable(folder: Path) -> None:
    """`UserError` if nothing can be written to a folder or, where it is missing, to the nearest one above it."""
    path = Path(folder)
    while not path.exists():
        path = path.parent
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(
            f"{path}: this folder is write-protected for user {_user()}, so nothing can be made in it: fix its "
            "permissions (`ls -ld` shows them; the whole file system may be read-only) or run as a user who may write. "
            "`snakemake -n` needs no permission"
        )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def writable(text: str) -> str:
    """A text with U+FFFD in place of half characters (lone surrogates), as JSON may spell them and no file can hold."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def write_json(path: Path, value: object) -> None:
    """Writes a value as indented JSON, whole or not at all."""
    with whole_file(path) as file:
        json.dump(value, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object a line, whole or not at all."""
    with whole_file(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file; `UserError` names the file and the position of a fault."""
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None


def read_jsonl(path: Path) -> list[Any]:
    """Reads a JSON Lines file of objects; `UserError` names the file and the line of a fault, also of a torn last line.

    The caller says by an annotation which of the rows of schema/rows.py they are.
    """
    rows = []
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                rows.append(_parse_line(path, number, line))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    return rows


def _parse_line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}:{number}: not valid UTF-8 at byte {error.start} of the line; save the file as UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        torn = "" if line.endswith(b"\n") else " and the line has no end: the file was cut off, fetch or write it again"
        raise UserError(f"{path}:{number}: not valid JSON ({error.msg}){torn}") from None
    if not isinstance(row, dict):
        raise UserError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}")
    return row
