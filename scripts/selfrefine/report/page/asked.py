"""How the responses on the page were asked for: the parts of a prompt, or the whole of it."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from selfrefine.data.prompts import example_lines
from selfrefine.data.shots import items_to_show
from selfrefine.schema.prompt import TaskPrompt
from selfrefine.schema.rows import StockDocument


class Asked(TypedDict):
    """How items were asked in one style: the page puts a prompt together as data/prompts.py does."""

    system: str | None
    instruction: str
    """With `{labels}` for the letters of the options."""
    ending: list[str]
    """The lines after the question; `{answer}` stands for the correct one."""
    examples: list[tuple[str, str]]
    """Worked examples, (item, lines); an item is never shown as one for itself."""
    number: int
    """How many of the examples a prompt shows, the first ones."""
    written: NotRequired[int]
    """Instead of all of this: the place of the whole prompts among the page's."""


class WrittenPrompts(TypedDict):
    """Prompts as they were sent, by item; what all of them begin with stands once."""

    prefix: str
    rest: dict[str, str]


def asked_in(settings: Mapping[str, Any], style: str, training_items: str | None) -> Asked:
    """How a stage with these settings asks in a style; `training_items` is where its worked examples are taken from."""
    prompt, request = TaskPrompt(**settings["prompt"]), settings.get("request", "")
    if style == "rationale":
        request = settings["sampling"]["hint"]
    last = prompt.plain if style == "plain" else prompt.cot
    shown = items_to_show(prompt, Path(training_items) if training_items else None)
    examples: list[tuple[str, str]] = []
    if prompt.shots is not None:
        elicits = "plain" if style == "plain" else "cot"
        examples = [(item["id"], "\n".join(example_lines(item, prompt.shots, last, elicits))) for item in shown]
    return {
        "system": settings["system"],
        "instruction": prompt.instruction,
        "ending": [last, *([request] if request else [])],
        "examples": examples,
        "number": (prompt.shots.number or len(examples)) if prompt.shots else 0,
    }


def asked_as_written(place: int) -> Asked:
    """Of one of lm-eval's own tasks: the prompts themselves."""
    return {"system": None, "instruction": "", "ending": [], "examples": [], "number": 0, "written": place}


def written_prompts(documents: Sequence[StockDocument], kept: Iterable[str]) -> WrittenPrompts:
    """The prompts of the documents that the page keeps."""
    ids = {*kept}
    prompts = {document["id"]: document["prompt"] for document in documents if document["id"] in ids}
    prefix = os.path.commonprefix([*prompts.values()])
    return {"prefix": prefix, "rest": {name: prompt[len(prefix) :] for name, prompt in prompts.items()}}
