"""The `recorded` engine: completions kept from an earlier run, found by the request's key.

A recording is a JSON Lines file. Its first line says where the completions come from; each other line holds a request's
key and its completion, never the question.
"""

import dataclasses
from pathlib import Path
from typing import Any

from selfrefine.engines.interface import Completion, Request
from selfrefine.engines.stop_strings import cut
from selfrefine.errors import UserError
from selfrefine.schema.rows import FinishReason
from selfrefine.store.files import read_jsonl
from selfrefine.store.hashing import sha256_of


class RecordedEngine:
    """Answers from a recording; a request that it does not hold is an error that names the id."""

    def __init__(self, path: Path):
        rows = read_jsonl(path)
        if not rows or "recording" not in rows[0]:
            raise UserError(
                f"{path}:1: not a recording (its first line must hold `recording`); make one with `study.py record`"
            )
        self.path = path
        self.origin = rows[0]["recording"]
        self.identity: dict[str, Any] = {"engine": "recorded", "recording": sha256_of(path)}
        self._completions = {}
        for number, row in enumerate(rows[1:], 2):
            try:
                self._completions[row["key"]] = Completion.of(row)
            except (KeyError, TypeError, AttributeError):
                raise UserError(
                    f"{path}:{number}: not a recorded completion {{key, text, finish_reason, tokens, prompt_tokens}}; "
                    "make the recording with `study.py record`"
                ) from None

    def batches(self, requests: list[Request]) -> list[list[Request]]:
        """One batch: a look-up costs nothing."""
        return [requests] if requests else []

    def rendered(self, request: Request) -> str | None:
        """None: what is recorded is whole."""
        return None

    def generate(self, batch: list[Request]) -> list[Completion]:
        """Looks each request up by its key."""
        found = [self._of(request) for request in batch]
        missing = [request.id for request, one in zip(batch, found, strict=True) if one is None]
        if missing:
            raise UserError(
                f"{self.path}: has no completion for {len(missing)} of {len(batch)} requests, {missing[0]} first: "
                "the items, the "
                "prompt or the generation settings differ from those recorded; set the teacher's `engine: "
                "transformers` to "
                "generate them, then record them with `study.py record`"
            )
        return [one for one in found if one is not None]

    def _of(self, request: Request) -> Completion | None:
        """A request's completion; one that was recorded without stop strings goes on beyond them, and is cut there."""
        if request.key in self._completions:
            return self._completions[request.key]
        longer = self._completions.get(dataclasses.replace(request, stop=()).key)
        if longer is None:
            return None
        text, stopped = cut(longer.text, request.stop)
        reason: FinishReason = "stop" if stopped else longer.finish_reason
        return dataclasses.replace(longer, text=text.strip(), finish_reason=reason)
