"""Turns one raw row into an item, by the benchmark's fields."""

import hashlib
import re
import unicodedata
from typing import Any, NamedTuple

from selfrefine.answers.extraction import canonical, format_number, parse_number
from selfrefine.data.lookup import LABELS, Row, Unmapped, as_text, fill, has, is_empty, look_up, query
from selfrefine.errors import UserError
from selfrefine.schema.benchmark import Fields, Mapped, Mapping
from selfrefine.schema.rows import Item
from selfrefine.store.hashing import digest

# Where the options of a text begin, by what they are labelled with.
FIRST = "Aa10"


class Options(NamedTuple):
    """The options of a row, and the labels that they have there."""

    choices: list[str]
    labels: list[str]


def to_item(row: Row, place: str, mapping: Mapping) -> Item:
    """One row as an item; `UserError` names the place of a missing field or an empty question.

    `Unmapped` if the answer or an option cannot be read.
    """
    fields = mapping.fields
    question = squeeze(_question(row, place, fields.question))
    if not _is_seen(question):
        raise UserError(f"{place}: the question is empty; remove the row or correct it")
    options = _options(row, place, fields) if mapping.kind == "choice" else Options([], [])
    answer = _answer(row, place, mapping, options)
    choices = options.choices
    for text in (question, *choices, answer):
        if not _can_be_written(text):
            raise Unmapped(f"{place}: holds half of a character (a lone surrogate) in {text!r}")
    item_id = digest([mapping.kind, question, choices])
    if mapping.shuffle:
        order = sorted(range(len(choices)), key=lambda i: hashlib.sha256(f"{item_id}:{i}".encode()).digest())
        answer = LABELS[order.index(LABELS.index(answer))]
        choices = [choices[i] for i in order]
        item_id = digest([mapping.kind, question, choices])
    item: Item = {"id": item_id, "kind": mapping.kind, "question": question, "choices": choices, "answer": answer}
    if fields.solution is not None:
        item["solution"] = _solution(row, place, fields.solution)
    return item


def squeeze(text: str) -> str:
    """A text with one space for each run of whitespace, and accents composed (Unicode's NFC)."""
    return unicodedata.normalize("NFC", re.sub(r"\s+", " ", text).strip())


def _is_seen(text: str) -> bool:
    """Whether a text holds more than white space and characters without a form of their own, such as joiners."""
    return any(not letter.isspace() and unicodedata.category(letter) not in ("Cc", "Cf") for letter in text)


def _can_be_written(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


# What a part of the mapping finds in a row.


def _find(row: Row, place: str, part: str | Mapped, truth: bool = True) -> tuple[Any, str]:
    """The value of a part before its pattern, and its name in an error."""
    name = part if isinstance(part, str) else part.field or part.template or part.path or ""

    def text(field: str) -> str:
        value = look_up(row, field, place)
        if truth and is_empty(value):
            raise Unmapped(f"{place}: field {field!r} is empty (null)")
        return as_text(value, field, place, truth)

    if isinstance(part, Mapped) and part.path:
        return query(row, part.path, place), part.path
    is_template = isinstance(part, Mapped) and part.template or isinstance(part, str) and "{" in part
    if is_template and name not in row:
        return fill(name, text), name
    return look_up(row, name, place), name


def _text(row: Row, place: str, part: str | Mapped) -> str:
    """The text of a part of the answer or the options."""
    value, name = _find(row, place, part)
    if is_empty(value):
        raise Unmapped(f"{place}: {name!r} is empty (null; {has(row)})")
    text = as_text(value, name, place, truth=True)
    return _meant(_cut(text, place, part), place, part)


def _cut(text: str, place: str, part: str | Mapped) -> str:
    """What the pattern of a part finds in a text."""
    if isinstance(part, str) or part.pattern is None:
        return text
    match = re.search(part.pattern, text)
    if not match or match[1] is None:
        raise Unmapped(f"{place}: answer {text!r} does not match {part.pattern!r}")
    return match[1]


def _meant(text: str, place: str, part: str | Mapped) -> str:
    """What a value stands for."""
    if isinstance(part, str) or part.values is None:
        return text
    found = part.values.get(text.strip(), part.values.get(text.strip().lower()))
    if found is None:
        raise Unmapped(f"{place}: {text!r} is none of `values` ({', '.join(part.values)})")
    return found


# The item's parts.


def _question(row: Row, place: str, part: str | Mapped) -> str:
    value, name = _find(row, place, part, truth=False)
    if is_empty(value) and isinstance(part, Mapped) and part.path:
        raise UserError(f"{place}: {name!r} finds nothing ({has(row)}); correct the file or the benchmark's `fields`")
    text = as_text(value, name, place)
    if isinstance(part, str):
        return text
    match = re.search(part.pattern, text, re.DOTALL) if part.pattern else None
    return _meant(match[1] or "" if match else text, place, part)


def _options(row: Row, place: str, fields: Fields) -> Options:
    """The options as the row has them, checked."""
    found, labels = _found_options(row, place, fields.choices)
    if not isinstance(found, list) or not 2 <= len(found) <= len(LABELS):
        raise UserError(f"{place}: expected a list of 2 to {len(LABELS)} options, found {found!r}")
    if any(map(is_empty, found)):
        raise Unmapped(f"{place}: option {LABELS[[is_empty(each) for each in found].index(True)]} is empty (null)")
    name = fields.choices if isinstance(fields.choices, str) else "choices"
    choices = [squeeze(as_text(choice, name, place, truth=True)) for choice in found]
    if unseen := [label for label, choice in zip(LABELS, choices, strict=False) if not _is_seen(choice)]:
        raise Unmapped(f"{place}: option {unseen[0]} is empty")
    if fields.labels is not None:
        value, name = _find(row, place, fields.labels)
        if not isinstance(value, list | str) or len(value) != len(choices):
            raise UserError(f"{place}: {name!r} holds {value!r}, not a label for each of {len(choices)} options")
        labels = [str(label) for label in value]
    return Options(choices, labels or list(LABELS[: len(choices)]))


def _found_options(row: Row, place: str, choices: str | list[str | Mapped] | Mapped | None) -> tuple[Any, list[str]]:
    """The options as they stand, which should be a list, and their labels where a pattern finds them."""
    assert choices is not None, "a benchmark of kind `choice` has `fields.choices`"
    if isinstance(choices, list):
        return [_text(row, place, part) for part in choices], []
    if isinstance(choices, Mapped) and choices.options:
        return choices.options, []
    found, name = _find(row, place, choices)
    if is_empty(found):
        raise Unmapped(f"{place}: the options {name!r} are empty (null; {has(row)})")
    if isinstance(choices, str):
        return found, []
    labels: list[str] = []
    if choices.pattern:
        matches = _matches(found, name, place, choices.pattern)
        if matches and isinstance(matches[0], tuple):
            labels = [label for label, _ in matches]
            _check_labels(labels, place, is_list=isinstance(found, list))
            matches = [text for _, text in matches]
        found = matches
    if choices.values and isinstance(found, list):
        found = [_meant(as_text(each, name, place, truth=True), place, choices) for each in found]
    return found, labels


def _matches(found: object, name: str, place: str, pattern: str) -> list[Any]:
    """What a pattern finds: every match in a text, or one in each element of a list."""
    if not isinstance(found, list):
        return re.findall(pattern, as_text(found, name, place), re.MULTILINE)
    matches: list[Any] = []
    for each in found:
        if is_empty(each):
            raise Unmapped(f"{place}: option {LABELS[len(matches) % 26]} is empty (null)")
        text = as_text(each, name, place, truth=True)
        match = re.search(pattern, text, re.MULTILINE)
        if not match:
            raise Unmapped(f"{place}: option {text!r} does not match {pattern!r}")
        groups = match.groups(default="")
        matches.append(groups if len(groups) > 1 else groups[0])
    return matches


def _check_labels(labels: list[str], place: str, is_list: bool) -> None:
    """Refuses labels that leave an option out: in a text they begin at the first and go on one by one."""
    in_order = any(labels == [chr(ord(first) + i) for i in range(len(labels))] for first in FIRST)
    if len(set(labels)) != len(labels) or not (in_order or is_list):
        raise Unmapped(f"{place}: the options are labelled {', '.join(labels)}, not A, B, C, … in order")


def _answer(row: Row, place: str, mapping: Mapping, options: Options) -> str:
    fields = mapping.fields
    if fields.answer_is == "scores":
        return LABELS[_highest(row, place, fields.answer, len(options.choices))]
    text = _text(row, place, fields.answer).strip()
    if fields.answer_is == "number":
        number = parse_number(text)
        if number is None:
            raise Unmapped(f"{place}: answer {text!r} is not a number")
        return format_number(number)
    if mapping.kind == "text":
        if not canonical(text):
            raise Unmapped(f"{place}: answer {text!r} has nothing in it but punctuation")
        return squeeze(text)
    if fields.answer_is == "label":
        places = [i for i, label in enumerate(options.labels) if label == text]
    elif fields.answer_is == "text":
        places = [i for i, choice in enumerate(options.choices) if choice == squeeze(text)]
    else:
        whole = re.fullmatch(r"(\d+)(?:\.0+)?", text)
        places = [int(whole[1]) - int(fields.answer_is[-1])] if whole else []
    if len(places) != 1 or not 0 <= places[0] < len(options.choices):
        raise Unmapped(
            f"{place}: answer key {text!r} names none of the {len(options.choices)} options ({fields.answer_is})"
        )
    return LABELS[places[0]]


def _highest(row: Row, place: str, part: str | Mapped, number: int) -> int:
    """The position of the option with the highest score."""
    scores, name = _find(row, place, part)
    scores = list(scores.values()) if isinstance(scores, dict) else scores
    fits = isinstance(scores, list) and len(scores) == number and all(isinstance(s, int | float) for s in scores)
    best = [i for i, score in enumerate(scores) if score == max(scores)] if fits else []
    if len(best) != 1:
        raise Unmapped(f"{place}: {name!r} holds {scores!r}, not a score for each of {number} options with one highest")
    return best[0]


def _solution(row: Row, place: str, part: str | Mapped) -> str:
    """How the answer is reached; empty where the row does not say so, or the pattern finds nothing."""
    value, name = _find(row, place, part, truth=False)
    text = "" if is_empty(value) else as_text(value, name, place)
    if isinstance(part, str) or part.pattern is None:
        return text.strip()
    match = re.search(part.pattern, text, re.DOTALL)
    return (match[1] or "").strip() if match else ""
