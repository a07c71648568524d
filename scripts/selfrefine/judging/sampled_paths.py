"""Judges the completions of sampled paths and of teachers' answers, and counts the verdicts."""

from collections.abc import Sequence

from selfrefine.answers.extraction import (
    DEFAULT,
    EXTRACTORS,
    MATH_VERIFY,
    extract,
    is_chain,
    matches,
    missing_package,
    read_by_math_verify,
    verify,
)
from selfrefine.engines.interface import Completion, Request
from selfrefine.errors import UserError
from selfrefine.schema.rows import Item, Judged, SampledPath


def refuse_missing(extractor: str | None) -> None:
    """`UserError` if an extractor's package is not installed: before answers are generated, not after."""
    if missing := missing_package(extractor):
        raise UserError(missing)


def judge(item: Item, text: str, extractor: str, phrases: Sequence[str] = DEFAULT) -> Judged:
    """The verdict on an answer to an item; `phrases` stand before an answer (answers/extraction.py)."""
    found = {name: extract(text, item["kind"], item["choices"], name, phrases) for name in EXTRACTORS}
    verdicts = {name: matches(answer, item["answer"], item["kind"]) for name, answer in found.items()}
    judged: Judged = {
        "extracted": found.get(extractor),
        "correct": verdicts.get(extractor, False),
        "strict": verdicts["strict"],
        "unanimous": verdicts["unanimous"],
        "legacy": verdicts["legacy"],
        "chain": is_chain(text, phrases),
    }
    if extractor == MATH_VERIFY:
        correct = verify(text, item["answer"])
        judged |= {"extracted": read_by_math_verify(text), "correct": correct, "math-verify": correct}
    return judged


def to_rows(
    requests: list[Request],
    completions: dict[str, Completion],
    items: dict[str, Item],
    extractor: str,
    phrases: Sequence[str] = DEFAULT,
) -> list[SampledPath]:
    """Judged completions in the order of their ids."""
    rows: list[SampledPath] = []
    for request in sorted(requests, key=lambda request: request.id):
        item_id, style, sample = request.id.rsplit("-", 2)
        completion = completions[request.id]
        rows.append(
            {
                "id": request.id,
                "item": item_id,
                "style": style,
                "sample": int(sample),
                "seed": request.seed if request.generation.temperature else None,
                "text": completion.text,
                **judge(items[item_id], completion.text, extractor, phrases),
                "finish_reason": completion.finish_reason,
                "tokens": completion.tokens,
                "prompt_tokens": completion.prompt_tokens,
            }
        )
    return rows


def count(rows: Sequence[SampledPath]) -> dict[str, dict[str, int]]:
    """Counts of judged paths by style, for the record."""
    counts = {}
    for style in sorted({row["style"] for row in rows}):
        mine = [row for row in rows if row["style"] == style]
        counts[style] = {
            "paths": len(mine),
            "correct": sum(row["correct"] for row in mine),
            "committed": sum(row["extracted"] is not None for row in mine),
            "chains": sum(row["chain"] for row in mine),
            "cut": sum(row["finish_reason"] == "length" for row in mine),
            "tokens": sum(row["tokens"] for row in mine),
        }
    return counts
