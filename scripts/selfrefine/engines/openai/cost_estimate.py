"""Estimates what the requests cost that served teachers have not answered yet."""

import dataclasses
from pathlib import Path
from typing import Any, TypedDict

from selfrefine.data.items import read_items
from selfrefine.data.mixtures import asked as only_asked
from selfrefine.data.shots import items_to_show
from selfrefine.engines.interface import Request
from selfrefine.engines.item_requests import requests_for
from selfrefine.engines.openai.server_engine import ServerEngine
from selfrefine.engines.openai.token_counts import Tokens, likely
from selfrefine.errors import UserError
from selfrefine.schema.server import Server
from selfrefine.schema.stages import TeachSettings
from selfrefine.store.files import read_json
from selfrefine.store.locations import RECORD, listing_file


@dataclasses.dataclass
class Asked:
    """What a study asks of one teacher: the engine, all requests, and those that its store does not answer."""

    teacher: str
    engine: ServerEngine
    requests: list[Request]
    missing: list[Request]


def asked_file(path: Path) -> Path:
    """The listing of what a study asks, by itself or by its record."""
    return listing_file(path) if path.name == RECORD else path


def read_asked(path: Path) -> list[Asked]:
    """What a study asks of each served teacher, from its listing."""
    return asked_in(read_json(path))


def asked_in(rows: list[dict[str, Any]]) -> list[Asked]:
    """What a study asks of each served teacher, from the rows of its listing."""
    found: dict[str, Asked] = {}
    for row in rows:
        settings, server = TeachSettings.model_validate(row["settings"]), Server.model_validate(row["server"])
        shots = row.get("shots")
        for name in (row["items"], *([shots] if shots else [])):
            if not Path(name).exists():
                raise UserError(f"{name}: no such file; run `snakemake estimate`, which makes the items first")
        engine = ServerEngine(server, settings.served, settings.revision, settings.extra)
        asked = found.setdefault(row["teacher"], Asked(row["teacher"], engine, [], []))
        items = only_asked(read_items(Path(row["items"])), settings.drawn)
        asked.requests += requests_for(
            *(items, settings.prompt, settings.style, 1, settings.generation, 0),
            request=settings.request,
            system=settings.system,
            shots=items_to_show(settings.prompt, Path(shots) if shots else None),
            stop=settings.stop,
        )
    for asked in found.values():
        asked.missing = asked.engine.missing(asked.requests)
    return list(found.values())


class Estimate(TypedDict):
    """What a teacher's missing requests would cost."""

    teacher: str
    requests: int
    missing: int
    prompt: int
    """Tokens of prompts: characters / 4, scaled by the tokens that the server counted in prompts so far."""
    made: int
    """Tokens of completions: the mean of the kept answers; without any, the limit."""
    at_most: int
    """Tokens of completions by the limit."""
    measured: int
    """How many kept answers the estimate is based on."""
    spent: Tokens
    lost: int


def estimate(asked: Asked) -> Estimate:
    """What the missing requests would cost, from the tokens of the answers that are kept."""
    answers = asked.engine.store.answers
    known = [(request, answers[request.key]) for request in asked.requests if request.key in answers]
    known = [(request, row) for request, row in known if row["counted"] and row["prompt_tokens"]]
    scale, mean = 1.0, None
    if known:
        scale = sum(row["prompt_tokens"] for _, row in known) / sum(likely(request) for request, _ in known)
        mean = sum(row["tokens"] for _, row in known) / len(known)
    limits = [request.generation.max_tokens for request in asked.missing]
    return {
        "teacher": asked.teacher,
        "requests": len({request.key for request in asked.requests}),
        "missing": len(asked.missing),
        "prompt": round(sum(likely(request) for request in asked.missing) * scale),
        "made": sum(limits) if mean is None else round(sum(min(mean, limit) for limit in limits)),
        "at_most": sum(limits),
        "measured": len(known),
        "spent": asked.engine.store.spent,
        "lost": asked.engine.store.lost,
    }


def lines(asked: Asked) -> list[str]:
    """An estimate for people to read."""
    found = estimate(asked)
    budget = asked.engine.server.budget

    def told(tokens: Tokens) -> str:
        price = budget.price(tokens.prompt, tokens.made)
        money = "" if price is None else f", {price:.4f} in money"
        return f"{tokens.total} tokens ({tokens.prompt} read, {tokens.made} made){money}"

    if found["measured"]:
        basis = f"by the tokens of {found['measured']} answers of its store"
    else:
        basis = "prompts by characters / 4, answers as long as max_tokens allows"
    limits = [f"{budget.tokens} tokens"] if budget.tokens else []
    limits += [f"{budget.money:g} in money"] if budget.money else []
    lost = (
        f", with {found['lost']} requests whose answer was lost, at the most they can have cost"
        if found["lost"]
        else ""
    )
    return [
        f"{found['teacher']} ({asked.engine.served}): {found['missing']} of {found['requests']} requests are not "
        "answered yet",
        f"  likely   {told(Tokens(found['prompt'], found['made']))}; {basis}",
        f"  at most  {told(Tokens(found['prompt'], found['at_most']))}",
        f"  spent    {told(found['spent'])}{lost}; {asked.engine.store.folder}",
        f"  budget   {' and '.join(limits) or 'none'}",
        *([] if budget.prices else ["  prices   none: set the teacher's server.budget.prices to see money"]),
    ]
