"""What one of lm-eval's own tasks asks of each document, and which option a model chose."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from selfrefine.schema.rows import StockDocument


def document_id(sample: dict[str, Any]) -> str:
    """The name of a document in the study's files."""
    return f"{sample['doc_id']:06d}-{sample['doc_hash'][:12]}"


def options_of(task: Any, sample: dict[str, Any]) -> list[str]:
    """A document's options; none where an answer is generated, or a single continuation is scored."""
    return [str(option) for option in task.doc_to_choice(sample["doc"])] if _chooses(task) else []


def document_of(task: Any, sample: dict[str, Any]) -> StockDocument:
    """A document with its prompt, as the model was asked."""
    options, first = options_of(task, sample), sample["arguments"][0]
    text, target = task.doc_to_text(sample["doc"]), sample["target"]
    prompt = str(first[0])
    if options and not isinstance(text, str):
        # The options stand in the context, and what goes on after them is the same.
        gold, text = text, str(first[1])
        prompt = "\n".join(str(context) + str(continuation) for context, continuation in sample["arguments"])
    else:
        gold = target
    answer = ", ".join(_labels(gold, options)) if options else str(target).strip()
    return {
        "id": document_id(sample),
        "question": str(text).strip(),
        "choices": [option.strip() for option in options],
        "answer": answer,
        "prompt": prompt,
    }


def chosen(metric: str, scores: Sequence[float], options: Sequence[str]) -> int:
    """The option that a metric takes for the model's, from the log-likelihoods."""
    own = np.array(scores[: len(options)])
    if metric == "acc_norm":
        own = own / [len(option) for option in options]
    elif metric == "acc_bytes":
        own = own / [len(option.encode()) for option in options]
    elif metric == "acc_mutual_info":
        own = own - np.array(scores[len(options) :])
    return int(np.argmax(own))


def _chooses(task: Any) -> bool:
    return bool(task.OUTPUT_TYPE == "multiple_choice")


def label_of(place: int) -> str:
    """How an option is called: A, B, …, Z, 27, 28, …"""
    return chr(ord("A") + place) if place < 26 else str(place + 1)


def _labels(gold: Any, options: list[str]) -> list[str]:
    """The labels of the correct options."""
    golds = gold if isinstance(gold, list) else [gold]
    places = [options.index(one) if one in options else int(one) for one in golds]
    return [label_of(place) for place in places if 0 <= place < len(options)]
