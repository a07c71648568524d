"""Turns a benchmark's raw rows into items of disjoint, balanced splits without duplicates.

An item's id is a hash of its kind, question and choices, so that it is the same in every study and never depends on the
order of rows.
"""

import collections
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from selfrefine.answers.extraction import canonical
from selfrefine.data.duplicates import content_of, near_duplicates
from selfrefine.data.lookup import LABELS, Unmapped, query
from selfrefine.data.mapping import to_item
from selfrefine.data.raw_rows import read_raw_rows
from selfrefine.errors import UserError
from selfrefine.schema.rows import Item
from selfrefine.schema.stages import PrepareSettings

# In so many rows a correct option that always stands at the same place is no coincidence.
ENOUGH = 20


class Pool(NamedTuple):
    """The items of a raw file in the order of their ids, each question once, and what became of its rows."""

    items: list[Item]
    dropped: dict[str, int]
    read: int
    faults: list[str]
    """Why rows were left out as unmapped."""


def prepare(
    path: Path, settings: PrepareSettings, held_out: Mapping[str, Sequence[Item]] | None = None
) -> tuple[list[Item], dict[str, Any]]:
    """A split of items from a raw file, and the counts of what was read, dropped and kept.

    The test split takes the items with the lowest ids, the training split those with the highest, without the test
    items of each benchmark in `held_out` and their near-duplicates. So a larger split leaves the other one as it is,
    until they meet.
    """
    pool = read_pool(path, settings)
    if pool.faults and not settings.drop_unmapped:
        raise UserError(f"{pool.faults[0]}; correct the row, or set `drop_unmapped: true` to leave such rows out")
    return split_of_pool(pool, settings, held_out or {})


def split_of_pool(
    pool: Pool, settings: PrepareSettings, held_out: Mapping[str, Sequence[Item]]
) -> tuple[list[Item], dict[str, Any]]:
    """The items that a split takes from a file's, and the counts."""
    left, dropped = pool.items, dict(pool.dropped)
    further: dict[str, Any] = {}
    if settings.name == "train":
        left, apart = _held_apart(left, held_out, settings.near_duplicate)
        dropped |= {"in_test": apart.pop("in_test"), "near_duplicate_of_test": apart.pop("near_duplicate_of_test")}
        further["held_apart_from"] = apart["by_benchmark"]
        left.reverse()
    if settings.split.skip is not None:
        left, further["skipped"] = _without_first(left, settings)
    items = _take(left, settings)
    counts: dict[str, Any] = {
        "read": pool.read,
        "dropped": dropped,
        "not_needed": len(left) - len(items),
        "items": len(items),
        **further,
    }
    if settings.kind == "choice":
        counts["answers"] = dict(sorted(collections.Counter(item["answer"] for item in items).items()))
    if settings.shuffle:
        counts["options_shuffled_by"] = "sha256 of the item's id before and the option's position"
    return items, counts


def _without_first(items: list[Item], settings: PrepareSettings) -> tuple[list[Item], dict[str, int]]:
    """The items without those that a split of size `skip` would take, which is another study's, and their like."""
    size = settings.split.model_copy(update={"size": settings.split.skip})
    first = _take(items, settings.model_copy(update={"split": size}))
    left, counts = _held_apart(items, {"first": first}, settings.near_duplicate)
    return left, {"items": counts["in_test"], "near_duplicates": counts["near_duplicate_of_test"]}


def _held_apart(
    items: list[Item], held_out: Mapping[str, Sequence[Item]], threshold: float
) -> tuple[list[Item], dict[str, Any]]:
    """The items that repeat no test item of any benchmark, and how many do; in total and by benchmark."""
    repeated: set[str] = set()
    near: set[str] = set()
    by_benchmark: dict[str, dict[str, int]] = {}
    for benchmark, tested in held_out.items():
        contents = {content_of(item) for item in tested}
        same = {item["id"] for item in items if content_of(item) in contents}
        close = near_duplicates([item for item in items if item["id"] not in same], tested, threshold)
        by_benchmark[benchmark] = {"in_test": len(same), "near_duplicate_of_test": len(close)}
        repeated |= same
        near |= close
    near -= repeated
    left = [item for item in items if item["id"] not in repeated | near]
    counts = {"in_test": len(repeated), "near_duplicate_of_test": len(near), "by_benchmark": by_benchmark}
    return left, counts


def read_pool(path: Path, settings: PrepareSettings) -> Pool:
    """The items of a raw file, with rows that cannot be mapped left out."""
    rows = read_raw_rows(path, settings.reading)
    items: dict[str, Item] = {}
    contradicted: set[str] = set()
    mapped = 0
    faults: list[str] = []
    repeated = filtered = 0
    for place, row in rows:
        if settings.where and not _is_true(query(row, settings.where, place)):
            filtered += 1
            continue
        try:
            item = to_item(row, place, settings)
        except Unmapped as fault:
            faults.append(str(fault))
            continue
        mapped += 1
        if item["id"] in items:
            repeated += 1
            if answer_of(items[item["id"]]) != answer_of(item):
                contradicted.add(item["id"])
        else:
            items[item["id"]] = item
    same, unclear = _same_questions(items)
    contradicted |= unclear
    for item_id in contradicted | same:
        del items[item_id]
    if not items:
        left_out = f" ({filtered} are left out by `where`)" if filtered else ""
        example = f"; for example {faults[0]}" if faults else ""
        key = "where" if filtered == len(rows) and rows else "fields"
        raise UserError(f"{path}: no usable row among {len(rows)}{left_out}; check the benchmark's `{key}`{example}")
    if settings.kind == "choice":
        _check_that_golds_move(path, collections.Counter(item["answer"] for item in items.values()), mapped)
    dropped = {"filtered": filtered} if settings.where else {}
    dropped |= {
        "answer_unmapped": len(faults),
        "repeated": repeated + len(same - contradicted),
        "contradictory_answers": len(contradicted),
    }
    return Pool([items[item_id] for item_id in sorted(items)], dropped, len(rows), faults)


def _same_questions(items: Mapping[str, Item]) -> tuple[set[str], set[str]]:
    """The ids of items that ask what one of a lower id asks, and of those that have no one correct answer.

    Such are questions that give another answer where their options stand in another order, and items whose correct
    option stands there twice.
    """
    alike: dict[tuple[str, ...], list[Item]] = collections.defaultdict(list)
    for item in items.values():
        alike[content_of(item)].append(item)
    same: set[str] = set()
    unclear = {item["id"] for item in items.values() if item["choices"].count(_correct(item)) > 1}
    for group in alike.values():
        ids = sorted(item["id"] for item in group)
        if len({_correct(item) for item in group}) > 1:
            unclear.update(ids)
        same.update(ids[1:])
    return same, unclear


def _correct(item: Item) -> str:
    """The correct answer's text."""
    return item["choices"][LABELS.index(item["answer"])] if item["choices"] else answer_of(item)


def answer_of(item: Item) -> str:
    """An item's answer in the form that equal answers share."""
    return canonical(item["answer"]) if item["kind"] == "text" else item["answer"]


def _is_true(found: object) -> bool:
    """Whether JMESPath takes a value for true: numbers are, also 0."""
    return found is not None and found is not False and found not in ("", [], {})


def _check_that_golds_move(path: Path, golds: collections.Counter[str], rows: int) -> None:
    if rows >= ENOUGH and len(golds) == 1:
        (label,) = golds
        raise UserError(
            f"{path}: the correct option is {label} in all of {golds.total()} rows, so that always answering {label} "
            "would be correct; set the benchmark's `shuffle: true` to put the options of each item into an order of "
            "its own, or correct `fields.answer`"
        )


def _take(items: list[Item], settings: PrepareSettings) -> list[Item]:
    """The first items of a pool, in the order of their ids; equally many per answer where the split is balanced."""
    name, split = settings.name, settings.split
    if not items:
        raise UserError(f"split {name!r}: no item is left; the test split or its near-duplicates cover all of the file")
    balance = split.balance if split.balance is not None else settings.kind == "choice" and split.size is not None
    if balance:
        by_answer: dict[str, list[Item]] = collections.defaultdict(list)
        for item in items:
            by_answer[answer_of(item)].append(item)
        share = -(-split.size // len(by_answer)) if split.size else min(map(len, by_answer.values()))
        short = {answer: len(found) for answer, found in sorted(by_answer.items()) if len(found) < share}
        if short:
            raise UserError(
                f"split {name!r}: {share} items per answer are asked for, but only {short} are there; lower `size` "
                "or set `balance: false`"
            )
        rounds = itertools.zip_longest(*(found[:share] for _, found in sorted(by_answer.items())))
        items = [item for one_per_answer in rounds for item in one_per_answer if item is not None]
    if split.size is not None and len(items) < split.size:
        raise UserError(
            f"split {name!r}: {split.size} items are asked for, but only {len(items)} are left; lower `size`"
        )
    return sorted(items[: split.size], key=lambda item: item["id"])
