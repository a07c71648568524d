"""Has an engine answer all requests; an interrupted stage goes on from its journal.

An interrupted stage skips the batches that its journal holds and repeats the one that was interrupted, so the
completions are the same however often it is interrupted.
"""

import dataclasses
from pathlib import Path
from typing import Any

from tqdm import tqdm

from selfrefine.engines import thoughts
from selfrefine.engines.interface import Completion, Engine, Request
from selfrefine.errors import UserError
from selfrefine.schema.generation import Budget
from selfrefine.store.journal import Journal


def complete(engine: Engine, requests: list[Request], output: Path, title: str) -> dict[str, Completion]:
    """Answers every request, by id; resumes from the journal beside `output`, which the caller removes at the end.

    Progress, with tokens per second, goes to stderr. `UserError` if a completion is missing at the end.
    """
    journal = Journal(output)
    kept = _kept(journal, engine.identity)
    if any(isinstance(request.thinking, Budget) for request in requests):
        # Refuses now what would leave no room for the answers after the thoughts.
        engine.batches(requests)
    first = {request.id: thoughts.within_budget(request, engine) for request in requests}
    made = _answered(engine, list(first.values()), journal, kept, title)
    further = {request.id: thoughts.continued(request, made[request.id], engine) for request in requests}
    asked = [request for request in further.values() if request]
    more = _answered(engine, asked, journal, kept, f"{title}: after the thoughts") if asked else {}
    return {
        request.id: thoughts.finished(request, made[request.id], more[one.id] if (one := further[request.id]) else None)
        for request in requests
    }


def _answered(
    engine: Engine, requests: list[Request], journal: Journal, kept: dict[tuple[str, str], Completion], title: str
) -> dict[str, Completion]:
    """The completions of the requests, by id, those that the journal does not hold generated."""
    if len({request.id for request in requests}) != len(requests):
        raise ValueError("request ids are not unique")
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
            f"{journal.path}: {len(missing)} of {len(requests)} completions are missing, {missing[0]} first; run again"
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
