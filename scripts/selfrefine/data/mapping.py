"""Turns one raw row into an item, by the benchmark's fields."""

import re
from typing import Any

from selfrefine.answers.extraction import format_number, parse_number
from selfrefine.data.raw_rows import LABELS, Unmapped, as_text, look_up, look_up_text
from selfrefine.errors import UserError
from selfrefine.schema.benchmark import Fields, Mapped, Mapping
from selfrefine.schema.rows import Item
from selfrefine.store.hashing import digest

Row = dict[str, Any]


def to_item(row: Row, place: str, mapping: Mapping) -> Item:
    """One row as an item; `UserError` names the place of a missing field, an empty question or an invalid answer."""
    fields = mapping.fields
    question = re.sub(r"\s+", " ", _question(row, place, fields)).strip()
    if not question:
        raise UserError(f"{place}: the question is empty; remove the row or correct it")
    choices = _choices(row, place, fields) if mapping.kind == "choice" else []
    answer = _answer(row, place, fields, choices)
    item_id = digest([mapping.kind, question, choices])
    return {"id": item_id, "kind": mapping.kind, "question": question, "choices": choices, "answer": answer}


def _question(row: Row, place: str, fields: Fields) -> str:
    if isinstance(fields.question, Mapped):
        text = look_up_text(row, fields.question.field, place)
        match = re.search(fields.question.pattern, text, re.DOTALL)
        return match[1] if match else text
    template = fields.question if "{" in fields.question else "{" + fields.question + "}"
    return re.sub(r"\{([\w.]+)\}", lambda match: look_up_text(row, match[1], place), template)


def _choices(row: Row, place: str, fields: Fields) -> list[str]:
    found = _options(row, place, fields.choices)
    if not isinstance(found, list) or not 2 <= len(found) <= len(LABELS):
        raise UserError(f"{place}: expected a list of 2 to {len(LABELS)} options, found {found!r}")
    choices = [re.sub(r"\s+", " ", as_text(choice, "choices", place)).strip() for choice in found]
    if "" in choices:
        raise UserError(f"{place}: option {LABELS[choices.index('')]} is empty; remove the row or correct it")
    return choices


def _options(row: Row, place: str, choices: str | list[str] | Mapped | None) -> Any:
    """The options as the row has them, which should be a list."""
    if isinstance(choices, list):
        return [look_up(row, name, place) for name in choices]
    if not isinstance(choices, Mapped):
        assert choices is not None, "a benchmark of kind `choice` has `fields.choices`"
        return look_up(row, choices, place)
    found = re.findall(choices.pattern, look_up_text(row, choices.field, place), re.MULTILINE)
    if not found or not isinstance(found[0], tuple):
        return found
    labels = [label for label, _ in found]
    if labels != list(LABELS[: len(labels)]):
        raise Unmapped(f"{place}: the options are labelled {', '.join(labels)}, not A, B, C, … in order")
    return [choice for _, choice in found]


def _answer(row: Row, place: str, fields: Fields, choices: list[str]) -> str:
    text = _raw_answer(row, place, fields.answer).strip()
    if fields.answer_is == "number":
        number = parse_number(text)
        if number is None:
            raise Unmapped(f"{place}: answer {text!r} is not a number")
        return format_number(number)
    if fields.answer_is == "label":
        labels = (
            [str(label) for label in look_up(row, fields.labels, place)]
            if fields.labels
            else list(LABELS[: len(choices)])
        )
        places = [i for i, label in enumerate(labels) if label == text]
    elif fields.answer_is == "text":
        places = [i for i, choice in enumerate(choices) if choice == text]
    else:
        places = [int(text) - int(fields.answer_is[-1])] if re.fullmatch(r"\d+", text) else []
    if len(places) != 1 or not 0 <= places[0] < len(choices):
        raise Unmapped(f"{place}: answer key {text!r} names none of the {len(choices)} options ({fields.answer_is})")
    return LABELS[places[0]]


def _raw_answer(row: Row, place: str, answer: str | Mapped) -> str:
    if not isinstance(answer, Mapped):
        return look_up_text(row, answer, place)
    raw = look_up_text(row, answer.field, place)
    match = re.search(answer.pattern, raw)
    if not match:
        raise Unmapped(f"{place}: answer {raw!r} does not match {answer.pattern!r}")
    return match[1]
