"""Hashes of values and of files."""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from selfrefine.store.files import whole_file


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object, length: int = 16) -> str:
    """The first `length` hex digits of the sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_bytes(content: bytes) -> str:
    """The sha256 of bytes, as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


class _Seen(NamedTuple):
    """A file as it was hashed."""

    size: int
    changed: int
    """The change time in nanoseconds: writing, replacing or copying a file moves it, and no program can set it."""
    sha256: str


class KnownHashes:
    """The sha256 of files, computed once for each state of a file; kept in an append-only JSON Lines file.

    `save` writes new hashes as soon as the folder of that file exists; with `keep` false nothing is written.
    """

    def __init__(self, path: Path, keep: bool = True):
        self.path = Path(path)
        self._keep = keep
        self._known: dict[str, _Seen] = {}
        self._unsaved: list[str] = []
        lines = 0
        if self.path.exists():
            with open(self.path, "rb") as file:
                for line in file:
                    lines += 1
                    with contextlib.suppress(ValueError, TypeError):  # a kill may tear the last line
                        name, *state = json.loads(line)
                        self._known[name] = _Seen(*state)
        if keep and lines > 2 * len(self._known) + 1000:
            with whole_file(self.path) as file:
                file.writelines(json.dumps([name, *seen]) + "\n" for name, seen in self._known.items())

    def sha256(self, path: Path) -> str | None:
        """The file's sha256; None if it is not there."""
        try:
            state = os.stat(path)
        except FileNotFoundError:
            return None
        known = self._known.get(str(path))
        if known and known[:2] == (state.st_size, state.st_ctime_ns):
            return known.sha256
        return self.note(path, sha256_of(path))

    def last(self, path: Path) -> str | None:
        """The sha256 that a file had when it was last seen; None if it never was."""
        known = self._known.get(str(path))
        return known.sha256 if known else None

    def note(self, path: Path, sha256: str) -> str:
        """Takes over the sha256 of a file from a caller who has just read or written it."""
        with contextlib.suppress(FileNotFoundError):
            state = os.stat(path)
            seen = _Seen(state.st_size, state.st_ctime_ns, sha256)
            if self._known.get(str(path)) != seen:
                self._known[str(path)] = seen
                self._unsaved.append(json.dumps([str(path), *seen]) + "\n")
                self.save()
        return sha256

    def save(self) -> None:
        """Writes the new hashes; where that fails (a full disk, say), the files are hashed again next time."""
        if self._keep and self._unsaved:
            with contextlib.suppress(OSError), open(self.path, "a", encoding="utf-8") as file:
                file.writelines(self._unsaved)
                self._unsaved = []
