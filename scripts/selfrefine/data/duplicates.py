"""Finds training items that nearly repeat a test item."""

import collections
import re
from collections.abc import Sequence

from selfrefine.schema.rows import Item


def shingles(text: str) -> frozenset[str]:
    """The word 3-grams of a text, without case and punctuation (the whole text where it is shorter).

    Numbers count as words: benchmarks made from templates repeat a story with other numbers on purpose.
    """
    words = re.findall(r"\w+(?:[.,]\d+)*", text.lower())
    return frozenset(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))


def near_duplicates(items: Sequence[Item], held_out: Sequence[Item], threshold: float) -> set[str]:
    """The ids of `items` whose word 3-grams and those of one of `held_out` have at least this Jaccard index."""
    index: dict[str, list[int]] = collections.defaultdict(list)
    sets = [shingles(" ".join([item["question"], *item["choices"]])) for item in held_out]
    for number, grams in enumerate(sets):
        for gram in grams:
            index[gram].append(number)
    near = set()
    for item in items:
        grams = shingles(" ".join([item["question"], *item["choices"]]))
        shared = collections.Counter(number for gram in grams for number in index.get(gram, ()))
        if any(count / (len(grams) + len(sets[number]) - count) >= threshold for number, count in shared.items()):
            near.add(item["id"])
    return near
