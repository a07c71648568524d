"""The items that prompts show as worked examples: of the training split, or those of a file."""

import hashlib
from fractions import Fraction
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from selfrefine.answers.extraction import canonical
from selfrefine.data.duplicates import content_of
from selfrefine.data.items import read_items
from selfrefine.data.mapping import squeeze
from selfrefine.errors import UserError
from selfrefine.schema.base import describe
from selfrefine.schema.prompt import Example, Shots, TaskPrompt
from selfrefine.schema.rows import Item, Kind
from selfrefine.store.files import read_jsonl
from selfrefine.store.hashing import digest

# A prompt is as long as its examples; a file of more is a data set named by mistake.
MOST = 64


def items_to_show(prompt: TaskPrompt, training_split: Path | None) -> list[Item]:
    """The items that a prompt may show, first those that it shows.

    Of the training split, there is one more than a prompt shows, in place of the item that is asked.
    """
    shots = prompt.shots
    if shots is None:
        return []
    if not shots.of_training_split:
        return [_item(example) for example in shots.examples]
    if training_split is None or shots.number is None:
        raise UserError("prompt.shots: examples of the training split are asked for; name its record with --shots")
    return taken_from(read_items(training_split), shots.number, shots.seed, str(training_split))


def taken_from(items: dict[str, Item], number: int, seed: int, where: str) -> list[Item]:
    """One more than `number` items of a training split, which `where` names in an error."""
    if len(items) <= number:
        raise UserError(
            f"{where}: has {len(items)} items, too few to show {number} besides the one that is asked; "
            "lower `shots` or enlarge the training split"
        )
    ranked = sorted(items, key=lambda item_id: hashlib.sha256(f"shots:{seed}:{item_id}".encode()).digest())
    return [items[item_id] for item_id in ranked[: number + 1]]


def refuse_shown(items: dict[str, Item], shown: list[Item], where: Path) -> None:
    """`UserError` if an example is an item of a test split: its answer would stand in the prompts of the others."""
    tested = set(map(content_of, items.values())) if shown else set()
    for item in shown:
        if content_of(item) in tested:
            raise UserError(f"{where}: the example {item['question']!r} is an item of the test split; remove it")


def resolved(shots: Shots, kind: Kind, where: str) -> Shots:
    """The shots with their file read and each example checked; `where` names their key."""
    if shots.of_training_split:
        return shots
    places = [f"{where}.examples[{number}]" for number in range(len(shots.examples))]
    examples = shots.examples
    if shots.file is not None:
        places, examples = _read(Path(shots.file), where)
    if len(examples) < (shots.number or 1) or len(examples) > MOST:
        raise UserError(
            f"configuration: {where}: {len(examples)} examples are there, and {shots.number or f'1 to {MOST}'} are "
            "asked for; change `number` or the examples"
        )
    for place, example in zip(places, examples, strict=True):
        if fault := _fault(example, kind):
            raise UserError(f"configuration: {place}: {fault}")
    return shots.model_copy(update={"file": None, "examples": examples})


def _read(path: Path, where: str) -> tuple[list[str], list[Example]]:
    """The examples of a file, and the place of each."""
    if not path.exists():
        raise UserError(f"configuration: {where}.file: there is no file {path}")
    places, examples = [], []
    rows: list[Any] = read_jsonl(path)
    for number, row in enumerate(rows, 1):
        try:
            examples.append(Example.model_validate(row))
        except ValidationError as error:
            faults = "; ".join(describe(dict(fault)) for fault in error.errors())
            raise UserError(
                f"{path}:{number}: not an example of {{question, choices, answer, solution}}: {faults}"
            ) from None
        places.append(f"{path}:{number}")
    return places, examples


def _fault(example: Example, kind: Kind) -> str:
    """What is wrong with an example for a benchmark of a kind; empty if nothing is."""
    if kind == "math":
        if example.choices:
            return "has choices, but the benchmark's answers are numbers; remove them"
        return "" if _is_number(example.answer) else f"answer {example.answer!r} is no number such as 12, -3.5 or 5/2"
    if kind == "text":
        if example.choices:
            return "has choices, but the benchmark's answers are free text; remove them"
        return "" if canonical(example.answer) else f"answer {example.answer!r} has nothing in it but punctuation"
    labels = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(example.choices)]
    if len(labels) < 2:
        return "needs choices, a list of two options or more"
    if len(example.answer) == 1 and example.answer in labels:
        return ""
    return f"answer {example.answer!r} is none of the letters {', '.join(labels)}"


def _item(example: Example) -> Item:
    """An example as an item; without choices, its kind is told by its answer."""
    question, choices = squeeze(example.question), [squeeze(choice) for choice in example.choices]
    kind: Kind = "choice" if choices else "math" if _is_number(example.answer) else "text"
    return {
        "id": digest([kind, question, choices]),
        "kind": kind,
        "question": question,
        "choices": choices,
        "answer": example.answer,
        "solution": example.solution.strip(),
    }


def _is_number(text: str) -> bool:
    try:
        Fraction(text.replace(",", ""))
    except (ValueError, ZeroDivisionError):
        return False
    return True
