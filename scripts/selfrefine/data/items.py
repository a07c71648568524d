"""Reads prepared items, and picks a seeded share of them."""

import hashlib
from pathlib import Path
from typing import cast

from selfrefine.errors import UserError
from selfrefine.schema.rows import Demonstration, Item, Pair, SampledPath
from selfrefine.store.files import read_jsonl


def subset(ids: list[str], share: int, seed: int) -> set[str]:
    """The ids in the first `share` percent of a seeded order; smaller shares are contained in larger ones."""
    ranked = sorted(ids, key=lambda item_id: hashlib.sha256(f"{seed}:{item_id}".encode()).digest())
    return set(ranked[: round(len(ranked) * share / 100)])


def read_items(path: Path) -> dict[str, Item]:
    """The items of a prepared split, by id."""
    items: dict[str, Item] = {}
    for number, row in enumerate(read_jsonl(path), 1):
        missing = Item.__required_keys__ - row.keys()
        if missing:
            raise UserError(
                f"{path}:{number}: not a prepared item ({', '.join(sorted(missing))} missing); run the prepare stage "
                "again"
            )
        items[row["id"]] = cast(Item, row)
    if not items:
        raise UserError(f"{path}: holds no item; run the prepare stage again")
    return items


def known_item(items: dict[str, Item], row: SampledPath | Demonstration | Pair) -> Item:
    """The item that a row of another file belongs to; `UserError` if the two files are of different studies."""
    if row["item"] not in items:
        raise UserError(
            f"{row['id']}: its item {row['item']} is not among the prepared items; run the stage that made it again"
        )
    return items[row["item"]]
