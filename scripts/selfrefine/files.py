"""Reading, hashing and writing the pipeline's files: JSON Lines in UTF-8, written whole or not at all."""

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from selfrefine.errors import UserError


def canonical_json(value) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value, length: int = 16) -> str:
    """The first `length` hex digits of the sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_bytes(content: bytes) -> str:
    """The sha256 of bytes, as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


class KnownHashes:
    """The sha256 of files, taken once for each state of a file; kept in an append-only JSON Lines file.

    A state is size and change time: writing, replacing or copying a file moves its change time, and no program can set it.
    Where the folder of the file is not there yet, `save` writes what was learned once it is; with `keep` false nothing is written.
    """

    def __init__(self, path: Path, keep: bool = True):
        self.path = Path(path)
        self._keep = keep
        self._known: dict[str, list] = {}
        self._unsaved: list[str] = []
        lines = 0
        if self.path.exists():
            with open(self.path, "rb") as file:
                for line in file:
                    lines += 1
                    with contextlib.suppress(ValueError):  # a kill may tear the last line
                        name, *state = json.loads(line)
                        self._known[name] = state
        if keep and lines > 2 * len(self._known) + 1000:
            with whole_file(self.path) as file:
                file.writelines(json.dumps([name, *state]) + "\n" for name, state in self._known.items())

    def sha256(self, path: Path) -> str | None:
        """The file's sha256; None if it is not there."""
        try:
            state = os.stat(path)
        except FileNotFoundError:
            return None
        known = self._known.get(str(path))
        if known and known[:2] == [state.st_size, state.st_ctime_ns]:
            return known[2]
        return self.note(path, sha256_of(path))

    def last(self, path: Path) -> str | None:
        """The sha256 that a file had when it was last seen; None if it never was."""
        known = self._known.get(str(path))
        return known[2] if known else None

    def note(self, path: Path, sha256: str) -> str:
        """Takes over the sha256 of a file, as it stands, from one who has just read or written it."""
        with contextlib.suppress(FileNotFoundError):
            state = os.stat(path)
            entry = [state.st_size, state.st_ctime_ns, sha256]
            if self._known.get(str(path)) != entry:
                self._known[str(path)] = entry
                self._unsaved.append(json.dumps([str(path), *entry]) + "\n")
                self.save()
        return sha256

    def save(self) -> None:
        """Writes what was learned; only a memory: on a full disk the file is hashed again next time."""
        if self._keep and self._unsaved:
            with contextlib.suppress(OSError), open(self.path, "a", encoding="utf-8") as file:
                file.writelines(self._unsaved)
                self._unsaved = []


@contextlib.contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator:
    """Opens a file that appears under `path` only once the block has ended without an error.

    The bytes reach the disk before the name does, so that neither a kill nor a full disk leaves half a file behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _writing(path):
            file = open(temporary, mode, encoding=None if "b" in mode else "utf-8")  # noqa: SIM115
        try:
            yield file
            with _writing(path):
                file.flush()
                os.fsync(file.fileno())
        finally:
            with _writing(path):
                file.close()
        with _writing(path):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_torn(path: Path) -> None:
    """Removes what killed processes had begun to write of a file; only for one who knows that no other writes it now."""
    for torn in Path(path).parent.glob(f".{glob.escape(Path(path).name)}.*"):
        if torn.suffix[1:].isdigit():
            torn.unlink(missing_ok=True)


# What a file system that knows no locks answers.
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


class Busy(Exception):
    """Another process holds a lock."""


@contextlib.contextmanager
def held(path: Path, wait: bool = True) -> Iterator[None]:
    """Holds the lock file `path`; waits, and says so, while another process does. The system frees it if a holder dies.

    `Busy` at once if it shall not wait, also where there are no locks.

    Two processes that make the same artifact (a stage that outlived its killed driver, and the one started anew) would
    otherwise write to the same files. Without effect where the file system has no locks.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with _writing(path):
            handle = open(path, "a")  # noqa: SIM115
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    handle.close()
                    raise Busy(str(path)) from None
                print(f"waiting for another process, which holds {path}", file=sys.stderr, flush=True)
                fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            if not wait:
                # Nobody can say whether another process is at it.
                handle.close()
                raise Busy(str(path)) from None
        # The last holder may have removed the file that was waited for.
        if path.exists() and os.path.samestat(os.fstat(handle.fileno()), path.stat()):
            break
        handle.close()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        handle.close()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: could not be written: {error.strerror}; free space or fix the permissions and run again, "
            "finished work is kept"
        ) from error


def write_json(path: Path, value) -> None:
    """Writes a value as indented JSON, whole or not at all."""
    with whole_file(path) as file:
        json.dump(value, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def write_jsonl(path: Path, rows: Iterable[dict]) -> None:
    """Writes one JSON object a line, whole or not at all."""
    with whole_file(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path):
    """Reads a JSON file; `UserError` names the file and the position of a fault."""
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None


def read_jsonl(path: Path) -> list[dict]:
    """Reads a JSON Lines file; `UserError` names the file and the line of a fault, a torn last line included."""
    rows = []
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                rows.append(_parse_line(path, number, line))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    return rows


def _parse_line(path: Path, number: int, line: bytes) -> dict:
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


class Journal:
    """An append-only JSON Lines file beside an output, from which an interrupted stage goes on.

    Groups of rows are written and synced together; a group that a kill tore apart is dropped when the file is opened
    again, so what is read back was finished.
    """

    def __init__(self, output: Path):
        self.path = Path(f"{output}.partial")

    def read(self) -> list[list[dict]]:
        """The finished groups, oldest first; cuts a torn end off the file."""
        if not self.path.exists():
            return []
        groups, good = [], 0
        with open(self.path, "rb") as file:
            for line in file:
                try:
                    groups.append(json.loads(line))
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    groups.pop()
                    break
                good += len(line)
        os.truncate(self.path, good)
        return groups

    def append(self, rows: list[dict]) -> None:
        """Adds one group and waits until it is on the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _writing(self.path), open(self.path, "ab") as file:
            file.write(json.dumps(rows, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Deletes the file, once the output holds all that it held."""
        self.path.unlink(missing_ok=True)
