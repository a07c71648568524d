"""What is left to ask served teachers, and what it would cost."""

import dataclasses
from pathlib import Path

from selfrefine.benchmarks import read_items
from selfrefine.engines import Request
from selfrefine.engines.server import ServerEngine
from selfrefine.errors import UserError
from selfrefine.files import read_json
from selfrefine.paths import requests_for
from selfrefine.provenance import RECORD
from selfrefine.serving import Server, Tokens, likely
from selfrefine.teaching import Teaching


@dataclasses.dataclass
class Asked:
    """What a study asks of one teacher: the engine, all requests, and those that its store does not answer."""

    teacher: str
    engine: ServerEngine
    requests: list[Request]
    missing: list[Request]


def asked_file(text: str) -> Path:
    """An argument type: the listing of what a study asks, by itself or by its record."""
    path = Path(text)
    return path.with_name("asked.json") if path.name == RECORD else path


def read_asked(path: Path) -> list[Asked]:
    """What a study asks of each served teacher, from its listing."""
    found: dict[str, Asked] = {}
    for row in read_json(path):
        recipe, server = Teaching.model_validate(row["recipe"]), Server.model_validate(row["server"])
        if not Path(row["items"]).exists():
            raise UserError(f"{row['items']}: no such file; run `snakemake estimate`, which makes the items first")
        engine = ServerEngine(server, recipe.served, recipe.revision, recipe.extra)
        asked = found.setdefault(row["teacher"], Asked(row["teacher"], engine, [], []))
        items = read_items(Path(row["items"]))
        asked.requests += requests_for(
            *(items, recipe.prompt, recipe.style, 1, recipe.generation, 0),
            request=recipe.request,
            system=recipe.system,
        )
    for asked in found.values():
        asked.missing = asked.engine.missing(asked.requests)
    return list(found.values())


def estimate(asked: Asked) -> dict:
    """What the missing requests would cost, {teacher, requests, missing, prompt, made, at_most, measured, spent, lost}.

    `prompt` are tokens by characters / 4, scaled by what the kept answers show of it; `made` by the mean of the kept answers,
    and without any by the limit; `at_most` by the limit; `measured` counts the kept answers that it goes by.
    """
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
    """An estimate as text."""
    found = estimate(asked)
    budget = asked.engine.server.budget
    prices = budget.prices

    def told(tokens: Tokens) -> str:
        money = f", {prices.of(tokens.prompt, tokens.made):.4f} in money" if prices else ""
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
        f"{found['teacher']} ({asked.engine.served}): {found['missing']} of {found['requests']} requests are not answered yet",
        f"  likely   {told(Tokens(found['prompt'], found['made']))}; {basis}",
        f"  at most  {told(Tokens(found['prompt'], found['at_most']))}",
        f"  spent    {told(found['spent'])}{lost}; {asked.engine.store.folder}",
        f"  budget   {' and '.join(limits) or 'none'}",
        *([] if prices else ["  prices   none: set the teacher's server.budget.prices to see money"]),
    ]
