"""Keeps each answer of a served model as soon as it arrives, so that it is paid once.

`{store}/{model}-{digest}/` lies outside of any study and belongs to one served model as asked with one set of extra
fields. Each process appends to a file of its own there, one JSON object a line:

    {"sent": key, "most": [prompt, made]}   a request goes out; at most so many tokens
    {"freed": key}                          it was refused, and costs nothing
    {"key": key, "text": ...}               its answer

A request that is neither freed nor answered may have been charged: its answer was lost on the way or by a kill.
Questions are not kept. A torn line counts as not written.
"""

import contextlib
import datetime
import errno
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from selfrefine.engines.openai.bodies import KeptAnswer
from selfrefine.engines.openai.token_counts import Tokens
from selfrefine.errors import UserError
from selfrefine.store.files import write_json
from selfrefine.store.hashing import digest
from selfrefine.store.locks import held


class AnswerStore:
    """The kept answers of one served model; `identity` is the engine's."""

    def __init__(self, folder: Path, identity: dict[str, Any]):
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", identity["served"]).strip("-.") or "model"
        self.folder = Path(folder) / f"{name[:60]}-{digest(identity, 8)}"
        self.identity = identity
        self.answers: dict[str, KeptAnswer] = {}
        self.spent = Tokens()
        self.lost = 0
        self._file: int | None = None

    def read(self) -> None:
        """Reads `answers` by key, the tokens `spent` by all processes so far, and how many requests were `lost`.

        A lost request counts in `spent` with the most that it can have cost, and so does an answer whose tokens the
        server did not count. Of two answers to one request the older one is used.
        """
        self.answers, self.spent, self.lost = {}, Tokens(), 0
        for path in sorted(self.folder.glob("*.jsonl")):
            open_requests: dict[str, Tokens] = {}
            with open(path, "rb") as file:
                for line in file:
                    try:
                        row = json.loads(line)
                    except ValueError:
                        continue
                    self._take(row, open_requests)
            for tokens in open_requests.values():
                self._lose(tokens)

    def _take(self, row: Any, open_requests: dict[str, Tokens]) -> None:
        if "sent" in row:
            if row["sent"] in open_requests:
                self._lose(open_requests[row["sent"]])
            open_requests[row["sent"]] = Tokens(*row["most"])
        elif "freed" in row:
            open_requests.pop(row["freed"], None)
        else:
            reserved = open_requests.pop(row["key"], Tokens())
            self.spent += Tokens(row["prompt_tokens"], row["tokens"]) if row["counted"] else reserved
            self.answers.setdefault(row["key"], row)

    def _lose(self, tokens: Tokens) -> None:
        self.lost += 1
        self.spent += tokens

    def held(self) -> contextlib.AbstractContextManager[None]:
        """A lock: one process at a time asks a served model, so limits and budget hold for all, and none asks twice.

        Without effect on a file system without locks; there, run one study at a time.
        """
        return held(self.folder / ".lock")

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a line; it survives a kill from now on, and a power cut from the next `sync` on."""
        with self._writing():
            if self._file is None:
                self._file = self._open()
            line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _open(self) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "identity.json").exists():
            write_json(self.folder / "identity.json", self.identity)
        moment = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%f")
        path = self.folder / f"{moment}-{socket.gethostname()}-{os.getpid()}.jsonl"
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)

    def sync(self) -> None:
        """Waits until what was appended is on the disk."""
        if self._file is not None:
            with self._writing():
                os.fsync(self._file)

    def close(self) -> None:
        """Closes this process's file, once it is on the disk."""
        self.sync()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.folder}: an answer could not be kept: {error.strerror}; free space or fix the permissions "
                "and run "
                "again, finished work is kept"
            ) from error
