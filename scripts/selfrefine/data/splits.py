"""Turns a benchmark's raw rows into items of disjoint, balanced splits without duplicates.

An item's id is a hash of its kind, question and choices, so that it is the same in every study and never depends on the
order of rows.
"""

import collections
import itertools
from pathlib import Path
from typing import Any

from selfrefine.data.duplicates import near_duplicates
from selfrefine.data.mapping import to_item
from selfrefine.data.raw_rows import Unmapped, read_raw_rows
from selfrefine.errors import UserError
from selfrefine.schema.rows import Item
from selfrefine.schema.stages import PrepareSettings


def prepare(path: Path, settings: PrepareSettings, held_out: list[Item]) -> tuple[list[Item], dict[str, Any]]:
    """A split of items from a raw file, and the counts of what was read, dropped and kept.

    The test split takes the items with the lowest ids, the training split those with the highest, without the test
    items (`held_out`) and their near-duplicates. So a larger split leaves the other one as it is, until they meet.
    """
    pool, dropped, read = _pool(path, settings)
    if settings.name == "train":
        taken = {item["id"] for item in held_out}
        rest = [item for item in pool if item["id"] not in taken]
        near = near_duplicates(rest, held_out, settings.near_duplicate)
        dropped["in_test"], dropped["near_duplicate_of_test"] = len(pool) - len(rest), len(near)
        pool = [item for item in reversed(rest) if item["id"] not in near]
    items = _take(pool, settings)
    counts: dict[str, Any] = {
        "read": read,
        "dropped": dropped,
        "not_needed": len(pool) - len(items),
        "items": len(items),
    }
    if settings.kind == "choice":
        counts["answers"] = dict(sorted(collections.Counter(item["answer"] for item in items).items()))
    return items, counts


def _pool(path: Path, settings: PrepareSettings) -> tuple[list[Item], dict[str, int], int]:
    """The items of a raw file in the order of their ids, each question once; counts of rows dropped; rows read."""
    rows = read_raw_rows(path)
    items: dict[str, Item] = {}
    contradicted: set[str] = set()
    unmapped = repeated = 0
    for place, row in rows:
        try:
            item = to_item(row, place, settings)
        except Unmapped as fault:
            if not settings.drop_unmapped:
                raise UserError(
                    f"{fault}; correct the row, or set `drop_unmapped: true` to leave such rows out"
                ) from None
            unmapped += 1
            continue
        if item["id"] in items:
            repeated += 1
            if items[item["id"]]["answer"] != item["answer"]:
                contradicted.add(item["id"])
        else:
            items[item["id"]] = item
    for item_id in contradicted:
        del items[item_id]
    if not items:
        raise UserError(f"{path}: no usable row among {len(rows)}; check the benchmark's `fields`")
    dropped = {"answer_unmapped": unmapped, "repeated": repeated, "contradictory_answers": len(contradicted)}
    return [items[item_id] for item_id in sorted(items)], dropped, len(rows)


def _take(items: list[Item], settings: PrepareSettings) -> list[Item]:
    """The first items of a pool, in the order of their ids; equally many per answer where the split is balanced."""
    name, split = settings.name, settings.split
    if not items:
        raise UserError(f"split {name!r}: no item is left; the test split or its near-duplicates cover all of the file")
    balance = split.balance if split.balance is not None else settings.kind == "choice" and split.size is not None
    if balance:
        by_answer: dict[str, list[Item]] = collections.defaultdict(list)
        for item in items:
            by_answer[item["answer"]].append(item)
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
