"""The interface of all engines: chats in, completions out, by id; every stage generates through it.

An engine cuts a list of requests into batches, always the same for the same list, and answers one batch at a time.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, Protocol, Self

from selfrefine.schema.generation import Budget, Generation, Thinking
from selfrefine.schema.rows import FinishReason, Message
from selfrefine.store.files import writable
from selfrefine.store.hashing import digest


@dataclasses.dataclass(frozen=True)
class Request:
    """One completion wanted. `id` is unique within a stage; `seed` matters only where temperature is above 0.

    Generation ends at a string of `stop`, and the completion's text before it. A `raw` request has its one message's
    content for a prompt, without the chat template, and its completion keeps the white space around it. `thinking` says
    what becomes of thoughts (engines/thoughts.py).
    """

    id: str
    messages: list[Message]
    generation: Generation
    seed: int = 0
    stop: tuple[str, ...] = ()
    raw: bool = False
    thinking: Thinking = "keep"

    @property
    def key(self) -> str:
        """Stands for what is asked: a hash of messages, generation settings and, where they matter, seed and stop."""
        settings = self.generation.model_dump()
        more: list[Any] = [*([self.stop] if self.stop else []), *(["raw"] if self.raw else [])]
        # What is stripped was generated alike.
        more += [self.thinking.budget] if isinstance(self.thinking, Budget) else []
        return digest([self.messages, settings, self.seed if self.generation.temperature else None, *more])


@dataclasses.dataclass(frozen=True)
class Completion:
    """A completion without its stop token, why it ended, and lengths in tokens (the stop token included)."""

    text: str
    finish_reason: FinishReason
    tokens: int
    prompt_tokens: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """The completion in a row of a journal or a recording."""
        return cls(writable(row["text"]), row["finish_reason"], row["tokens"], row["prompt_tokens"])


class Engine(Protocol):
    """What every engine offers."""

    identity: dict[str, Any]
    """What completions depend on besides the requests (engine, weights); a journal with another one is not used."""

    def batches(self, requests: list[Request]) -> list[list[Request]]:
        """Cuts the requests into batches; the cut is a function of the requests alone."""

    def generate(self, batch: list[Request]) -> list[Completion]:
        """The completions of one batch, in its order."""

    def rendered(self, request: Request) -> str | None:
        """A request's prompt as the model reads it, with which a completion can be continued; None: it cannot."""


def seed_for(item_id: str, study_seed: int, style: str, sample: int) -> int:
    """A sample's seed, by hash: consecutive seeds would overlap in engines that count seeds up within a request."""
    text = f"{study_seed}:{style}:{sample}:{item_id}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) >> 1
