"""Answers to lm-eval's own tasks on the page: what was generated, or the option that was chosen."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from selfrefine.judging.stock_documents import label_of
from selfrefine.schema.results import EvaluatedCell
from selfrefine.schema.rows import EvaluatedAnswer, StockDocument
from selfrefine.store.locations import DOCUMENTS


def documents_of(samples: str) -> str:
    """The documents that a file of judged answers is to."""
    return str(Path(samples).with_name(DOCUMENTS))


def stock_documents(cells: Iterable[EvaluatedCell], own: Mapping[str, str]) -> list[str]:
    """The files of documents of lm-eval's own tasks; `own` are the study's benchmarks."""
    return [documents_of(cell["samples"]) for cell in cells if cell["evaluation"] not in own]


def response_of(row: EvaluatedAnswer, document: StockDocument, metric: str | None) -> dict[str, Any]:
    """A judged answer as the reader shows it: text, what was extracted, verdict."""
    shown: dict[str, Any] = {**row, "style": "", "correct": bool(row["strict"])}
    # Without tokens nothing was generated: likelihoods were compared.
    if row["tokens"] or row["prompt_tokens"]:
        return shown
    scores: list[float] = json.loads(row["text"])
    options = document["choices"]
    if not options:
        greedy = "the most likely continuation" if row["strict"] else "another continuation is likelier"
        return shown | {"text": f"Log-likelihood {_points(scores[0])}: {greedy}", "extracted": ""}
    place = int(row["extracted"] or 0)
    listed = ", ".join(f"{label_of(number)} {_points(score)}" for number, score in enumerate(scores[: len(options)]))
    by = f"; chosen by {metric}" if metric else ""
    text = f"{label_of(place)}) {options[place]}\n\nLog-likelihoods: {listed}{by}"
    return shown | {"text": text, "extracted": label_of(place)}


def _points(score: float) -> str:
    return f"{score:.2f}".replace("-", "−")
