"""Reasoning paths: what is asked of a model for each item, and what came back with its verdict.

A path is a row {id, item, style, sample, seed, text, extracted, correct, strict, legacy, chain, finish_reason, tokens, prompt_tokens}.
"""

from selfrefine.answers import EXTRACTORS, extract, is_chain, matches
from selfrefine.engines import Completion, Generation, Request, seed_for
from selfrefine.prompts import Prompt, messages


def requests_for(
    items: dict[str, dict],
    prompt: Prompt,
    style: str,
    samples: int,
    generation: Generation,
    seed: int,
    *,
    request: str = "",
    system: str | None = None,
) -> list[Request]:
    """`samples` requests per item in one style; ids are `{item}-{style}-{sample}`.

    A rationale is asked for like a chain of thought, the right answer given: `{answer}` in `request`.
    """
    given = style == "rationale"

    def chat(item: dict) -> list[dict[str, str]]:
        line = request.replace("{answer}", item["answer"]) if given else request
        return messages(item, prompt, "cot" if given else style, line, system)

    return [
        Request(
            id=f"{item_id}-{style}-{sample}",
            messages=chat(item),
            generation=generation,
            seed=seed_for(item_id, seed, style, sample),
        )
        for item_id, item in items.items()
        for sample in range(samples)
    ]


def judge(item: dict, text: str, extractor: str) -> dict:
    """The verdict on a text: the answer found (or None), whether it is right, each extractor's verdict, and whether it reasons first."""
    found = {name: extract(text, item["kind"], item["choices"], name) for name in EXTRACTORS}
    verdicts = {name: matches(answer, item["answer"], item["kind"]) for name, answer in found.items()}
    return {"extracted": found[extractor], "correct": verdicts[extractor], **verdicts, "chain": is_chain(text)}


def to_rows(
    requests: list[Request], completions: dict[str, Completion], items: dict[str, dict], extractor: str
) -> list[dict]:
    """Judged paths in the order of their ids."""
    rows = []
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
                **judge(items[item_id], completion.text, extractor),
                "finish_reason": completion.finish_reason,
                "tokens": completion.tokens,
                "prompt_tokens": completion.prompt_tokens,
            }
        )
    return rows


def count(rows: list[dict]) -> dict:
    """Counts of judged paths by style, for provenance and report."""
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
