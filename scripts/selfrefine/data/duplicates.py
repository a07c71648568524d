"""Finds training items that repeat a test item, or nearly so."""

import collections
import re
import unicodedata
from collections.abc import Sequence

from selfrefine.schema.rows import Item

# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Chinese characters.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u312f\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Vowel signs and accents that no composed letter holds: they belong to the letter before.
MARKS = "".join(chr(i) for i in range(0x300, 0x3100) if unicodedata.category(chr(i))[0] == "M")
WORD = re.compile(rf"[{UNSPACED}][{MARKS}]*|(?:(?![{UNSPACED}])[\w{MARKS}])+(?:[.,]\d+)*")


def plain(text: str) -> str:
    """A text without case, and with one form for characters that Unicode has in several."""
    return unicodedata.normalize("NFKC", text).lower()


def shingles(text: str) -> frozenset[str]:
    """The word 3-grams of a text, without case and punctuation (the whole text where it is shorter).

    In scripts without spaces between words they are the 2-grams of characters, about as long. Numbers count as words:
    benchmarks made from templates repeat a story with other numbers on purpose.
    """
    words = WORD.findall(plain(text))
    grams = []
    for start, word in enumerate(words):
        length = 2 if re.match(f"[{UNSPACED}]", word) else 3
        if start + length <= len(words) or start == 0:
            grams.append(" ".join(words[start : start + length]))
    return frozenset(grams or [""])


def content_of(item: Item) -> tuple[str, ...]:
    """What an item asks, whatever the order of its options and however Unicode writes it."""
    return (
        " ".join(plain(item["question"]).split()),
        *sorted(" ".join(plain(text).split()) for text in item["choices"]),
    )


def near_duplicates(items: Sequence[Item], held_out: Sequence[Item], threshold: float) -> set[str]:
    """The ids of `items` whose shingles and those of one of `held_out` have at least this Jaccard index."""
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
