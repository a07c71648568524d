"""The interface of all engines: chats in, completions out, by id; every stage generates through it.

An engine cuts a list of requests into batches, always the same for the same list, and answers one batch at a time. An
interrupted stage skips the batches that its journal holds and repeats the one that was interrupted, so the completions
are the same however often it is interrupted.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from tqdm import tqdm

from selfrefine.errors import UserError
from selfrefine.schema.generation import Generation
from selfrefine.schema.rows import FinishReason, Message
from selfrefine.store.hashing import digest
from selfrefine.store.journal import Journal


@dataclasses.dataclass(frozen=True)
class Request:
    """One completion wanted. `id` is unique within a stage; `seed` matters only where temperature is above 0.

    Generation ends at a string of `stop`, and the completion's text before it. A `raw` request has its one message's
    content for a prompt, without the chat template, and its completion keeps the white space around it.
    """

    id: str
    messages: list[Message]
    generation: Generation
    seed: int = 0
    stop: tuple[str, ...] = ()
    raw: bool = False

    @property
    def key(self) -> str:
        """Stands for what is asked: a hash of messages, generation settings and, where they matter, seed and stop."""
        settings = self.generation.model_dump()
        more = [*([self.stop] if self.stop else []), *(["raw"] if self.raw else [])]
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
        return cls(row["text"], row["finish_reason"], row["tokens"], row["prompt_tokens"])


class Engine(Protocol):
    """What every engine offers."""

    identity: dict[str, Any]
    """What completions depend on besides the requests (engine, weights); a journal with another one is not used."""

    def batches(self, requests: list[Request]) -> list[list[Request]]:
        """Cuts the requests into batches; the cut is a function of the requests alone."""

    def generate(self, batch: list[Request]) -> list[Completion]:
        """The completions of one batch, in its order."""


def seed_for(item_id: str, study_seed: int, style: str, sample: int) -> int:
    """A sample's seed, by hash: consecutive seeds would overlap in engines that count seeds up within a request."""
    text = f"{study_seed}:{style}:{sample}:{item_id}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) >> 1


def complete(engine: Engine, requests: list[Request], output: Path, title: str) -> dict[str, Completion]:
    """Answers every request, by id; resumes from the journal beside `output`, which the caller removes at the end.

    Progress, with tokens per second, goes to stderr. `UserError` if a completion is missing at the end.
    """
    if len({request.id for request in requests}) != len(requests):
        raise ValueError("request ids are not unique")
    journal = Journal(output)
    kept = _kept(journal, engine.identity)
    completions: dict[str, Completion] = {}
    made = 0
    with tqdm(total=len(requests), desc=title, unit="completion", mininterval=5, dynamic_ncols=False, ncols=110) as bar:
        for batch in engine.batches(requests):
            answers = [kept[request.id, request.key] for request in batch if (request.id, request.key) in kept]
            if len(answers) < len(batch):
                answers = engine.generate(batch)
                journal.append(
                    [
                        {"id": request.id, "key": request.key, **dataclasses.asdict(answer)}
                        for request, answer in zip(batch, answers, strict=True)
                    ]
                )
                made += sum(answer.tokens for answer in answers)
                bar.set_postfix_str(f"{made / max(bar.format_dict['elapsed'], 1e-9):.0f} tokens/s")
            completions.update((request.id, answer) for request, answer in zip(batch, answers, strict=True))
            bar.update(len(batch))
    missing = [request.id for request in requests if request.id not in completions]
    if missing:
        raise UserError(
            f"{output}: {len(missing)} of {len(requests)} completions are missing, {missing[0]} first; run again"
        )
    return completions


def _kept(journal: Journal, identity: dict[str, Any]) -> dict[tuple[str, str], Completion]:
    """The completions that a journal holds, by request id and key; a journal of another engine is begun anew."""
    groups = journal.read()
    if not groups or groups[0] != [identity]:
        journal.remove()
        journal.append([identity])
        return {}
    return {(row["id"], row["key"]): Completion.of(row) for group in groups[1:] for row in group}
