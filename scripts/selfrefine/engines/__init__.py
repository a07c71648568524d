"""Engines make text: chats in, completions out, by id. Teacher, sampler and evaluation all generate through them.

An engine cuts a list of requests into batches, always the same for the same list, and answers one batch at a time; an
interrupted stage skips the batches that its journal holds and repeats the one in hand, so that the outcome does not
depend on whether, or when, it was interrupted.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field
from tqdm import tqdm

from selfrefine.errors import UserError
from selfrefine.files import Journal, digest


class Generation(BaseModel):
    """How text is drawn."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_tokens: int = Field(256, gt=0, description="A completion is cut here; its finish reason is then `length`.")
    temperature: float = Field(0.0, ge=0, description="0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1)


@dataclasses.dataclass(frozen=True)
class Request:
    """One completion wanted. `id` is unique within a stage; `seed` matters only where temperature is above 0."""

    id: str
    messages: list[dict[str, str]]
    generation: Generation
    seed: int = 0

    @property
    def key(self) -> str:
        """Identifies what is asked, whoever asks: the digest of messages, generation settings and, if drawn, the seed."""
        settings = self.generation.model_dump()
        return digest([self.messages, settings, self.seed if self.generation.temperature else None])


@dataclasses.dataclass(frozen=True)
class Completion:
    """What came back: the text without its stop token, why it ended, and lengths in tokens (the stop token included)."""

    text: str
    finish_reason: Literal["stop", "length"]
    tokens: int
    prompt_tokens: int


class Engine(Protocol):
    """What every engine offers."""

    identity: dict
    """What the completions depend on beside the requests (engine, weights, adapter): a journal of another one is not used."""

    def batches(self, requests: list[Request]) -> list[list[Request]]:
        """Cuts the requests into batches; the cut is a function of the requests alone."""

    def generate(self, batch: list[Request]) -> list[Completion]:
        """The completions of one batch, in its order."""


def seed_for(item_id: str, study_seed: int, style: str, sample: int) -> int:
    """A sample's seed, by hash: consecutive seeds would overlap in engines that count seeds up within a request."""
    text = f"{study_seed}:{style}:{sample}:{item_id}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) >> 1


def complete(engine: Engine, requests: list[Request], output: Path, title: str) -> dict[str, Completion]:
    """Answers every request, by id; goes on from the journal beside `output`, which the caller removes at the end.

    Progress, with tokens per second, goes to stderr. `UserError` if an answer is missing at the end.
    """
    if len({request.id for request in requests}) != len(requests):
        raise ValueError("request ids are not unique")
    journal = Journal(output)
    done: dict[str, dict] = {}
    groups = journal.read()
    if groups and groups[0] == [engine.identity]:
        done = {row["id"]: row for group in groups[1:] for row in group}
    else:
        journal.remove()
        journal.append([engine.identity])
    completions = {}
    made = 0
    with tqdm(total=len(requests), desc=title, unit="completion", mininterval=5, dynamic_ncols=False, ncols=110) as bar:
        for batch in engine.batches(requests):
            known = [done.get(request.id) for request in batch]
            if all(row and row["key"] == request.key for row, request in zip(known, batch, strict=True)):
                answers = [Completion(**{name: row[name] for name in Completion.__dataclass_fields__}) for row in known]
            else:
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
