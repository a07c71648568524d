"""Chooses which training items a teacher is asked, by what the student itself makes of the questions."""

import hashlib
from collections.abc import Sequence

import numpy as np

from selfrefine.data.spread import spread
from selfrefine.schema.stages import ChooseSettings
from selfrefine.schema.ways import WAYS

# How a preferred perplexity enters the logarithm of an item's quality.
SIGN = {"low": -1.0, "high": 1.0}


def chosen(
    ids: Sequence[str],
    settings: ChooseSettings,
    log_perplexity: np.ndarray | None = None,
    embeddings: np.ndarray | None = None,
) -> tuple[list[str], dict[str, int]]:
    """The items that a way chooses, in its order, and what it counted.

    Fewer items are the beginning of more, so smaller shares are contained in larger ones. What nothing else tells apart
    comes in the order of `subset` (data/items.py), which is all there is for a way that looks at nothing.
    """
    way, number = WAYS[settings.way], round(len(ids) * settings.share / 100)
    seeded = sorted(
        range(len(ids)), key=lambda place: hashlib.sha256(f"{settings.seed}:{ids[place]}".encode()).digest()
    )
    counts = {"rounds": 0}
    quality = None
    if way.perplexity:
        if log_perplexity is None:
            raise ValueError(f"{settings.way} chooses by perplexities")
        quality = SIGN[settings.prefer] * log_perplexity[seeded]
    if way.spread:
        if embeddings is None:
            raise ValueError(f"{settings.way} chooses by embeddings")
        weighted = None if quality is None else settings.weight * quality
        taken, counts["rounds"] = spread(embeddings[seeded], number, weighted)
    elif quality is not None:
        taken = [int(place) for place in np.argsort(-quality, kind="stable")[:number]]
    else:
        taken = list(range(number))
    return [ids[seeded[place]] for place in taken], counts
