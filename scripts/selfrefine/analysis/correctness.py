"""Which answers are correct, as judged files say it: 0 or 1, and nothing else."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from selfrefine.errors import UserError
from selfrefine.schema.rows import item_of, verdict_key
from selfrefine.store.files import read_jsonl


def judged_rows(path: Path) -> list[Any]:
    """The rows of a file of judged answers; one at least."""
    rows = read_jsonl(path)
    if not rows:
        raise UserError(f"{path}: holds no answers, so there is nothing to compare; evaluate again")
    return rows


def verdict(row: Mapping[str, Any], key: str, path: Path, line: int) -> bool:
    """A verdict on an answer: true, false, or a number that is 0 or 1."""
    key = verdict_key(row, key)
    value = row.get(key)
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    shown = repr(value) if key in row else "missing"
    raise UserError(f"{path}:{line}: item {item_of(row)}: {key!r} is {shown}, not 0 or 1; evaluate again")


class Answers:
    """Which answers are correct, by item, under one extractor; each file is read once."""

    def __init__(self, extractor: str):
        self.extractor = extractor
        self._read: dict[Path, dict[str, bool | float]] = {}

    def of(self, path: Path) -> dict[str, bool | float]:
        """{item: correct} of a file of judged answers, a student's or a teacher's; of several answers, their share."""
        if path not in self._read:
            self._read[path] = correct_by_item(judged_rows(path), self.extractor, path)
        return self._read[path]


def tokens_of(path: Path) -> dict[str, float]:
    """{item: tokens} of a file of judged answers; of several answers, their mean; 0 where none were generated."""
    answers: dict[str, list[float]] = {}
    for row in judged_rows(path):
        answers.setdefault(item_of(row), []).append(row.get("tokens") or 0.0)
    return {item: sum(tokens) / len(tokens) for item, tokens in answers.items()}


def correct_by_item(rows: Iterable[Mapping[str, Any]], extractor: str, path: Path) -> dict[str, bool | float]:
    """{item: correct} of the judged answers of a file; of several answers to an item, the share that is correct."""
    answers: dict[str, dict[int, bool]] = {}
    for line, row in enumerate(rows, 1):
        item, sample = item_of(row), row.get("sample", 0)
        if sample in answers.setdefault(item, {}):
            raise UserError(f"{path}: item {item} is answered twice; evaluate again")
        answers[item][sample] = verdict(row, extractor, path, line)
    several = any(len(of_item) > 1 for of_item in answers.values())
    return {
        item: sum(of_item.values()) / len(of_item) if several else next(iter(of_item.values()))
        for item, of_item in answers.items()
    }
