"""Append-only files of finished rows, from which an interrupted stage resumes."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfrefine.store.files import naming_write_errors


class Journal:
    """An append-only JSON Lines file beside an output, from which an interrupted stage resumes.

    Groups of rows are written and synced together. A group that a kill tore apart is dropped when the file is read
    again, so every group that is read was finished.
    """

    def __init__(self, output: Path):
        self.path = Path(f"{output}.partial")

    def read(self) -> list[list[dict[str, Any]]]:
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

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds one group and waits until it is on the disk."""
        line = json.dumps(rows, ensure_ascii=False).encode() + b"\n"
        with naming_write_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())

    def remove(self) -> None:
        """Deletes the file, once the output holds all of its rows."""
        self.path.unlink(missing_ok=True)
