"""Mixtures of teachers: which of them answers an item.

Each item draws its teacher by itself, so that an item's teacher is the same in every share of the training data and in
every benchmark's split. Where one share of a mixture grows, items only move to the teacher whose share it is.
"""

import hashlib
import math
from collections.abc import Mapping

from selfrefine.schema.rows import Item
from selfrefine.schema.stages import Drawn, MixSettings


def teacher_for(item: str, mixture: MixSettings) -> str:
    """The teacher that a mixture draws for an item, each with the probability of its share.

    The earliest of independent exponential arrivals, one for each teacher with its share as rate (weighted rendezvous
    hashing): the draw follows from the item, the seed and the teachers' names alone.
    """

    def arrival(teacher: str) -> float:
        digest = hashlib.sha256(f"{mixture.seed}:{teacher}:{item}".encode()).digest()
        return -math.log((int.from_bytes(digest[:8]) + 1) / (2**64 + 1)) / mixture.shares[teacher]

    return min(sorted(mixture.shares), key=arrival)


def asked(items: Mapping[str, Item], drawn: Drawn | None) -> dict[str, Item]:
    """The items that a teacher is asked: all, or those that one of the mixtures draws for it."""
    if drawn is None:
        return {**items}
    return {
        name: item
        for name, item in items.items()
        if any(teacher_for(name, mixture) == drawn.teacher for mixture in drawn.mixtures)
    }
