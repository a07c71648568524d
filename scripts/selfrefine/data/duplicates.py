"""Finds training items that repeat a test item, or nearly so."""

import collections
import functools
import html
import re
import unicodedata
from collections.abc import Sequence

from selfrefine.schema.rows import Item

# Scripts without spaces between words, or with spaces that writers leave out: Thai, Lao, Burmese, Khmer, kana, Chinese
# characters, Hangul.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u312f\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)


def _among(*categories: str) -> str:
    """The characters of some of Unicode's categories, below its rarer scripts and among the emoji."""
    places = (*range(0x80, 0x3100), *range(0x1F000, 0x1FB00))
    return "".join(chr(place) for place in places if unicodedata.category(chr(place)) in categories)


# Vowel signs and accents that no composed letter holds: they belong to the letter before.
MARKS = _among("Mn", "Mc", "Me")
# What is not seen, or is written at will: joiners, marks of direction, soft hyphens, the vowels of Hebrew and Arabic.
UNSEEN = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc]|(?<=i)\u0307"
)
DASHES = re.compile("[\u2010-\u2015\u2212]")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# Signs that questions differ by, as by a word: of arithmetic, and pictures. A hyphen is a minus before a number.
SIGNS = rf"[+*/^%=<>~{re.escape(_among('Sm', 'So'))}]|-(?=\s?[\d(]|\s\w\b)"
WORD = re.compile(rf"[{UNSPACED}][{MARKS}]*|(?:(?![{UNSPACED}])[\w{MARKS}])+(?:[.,]\d+)*|{SIGNS}")


@functools.lru_cache(1 << 16)
def plain(text: str) -> str:
    """A text without case, and with one form for what is written in several: characters, digits, vowels, dashes."""
    text = unicodedata.normalize("NFKC", html.unescape(text)).casefold()
    if not text.isascii():
        text = DASHES.sub("-", UNSEEN.sub("", unicodedata.normalize("NFKC", text)))
        text = re.sub(r"\d", lambda digit: str(unicodedata.decimal(digit[0])), text)
    return THOUSANDS.sub("", text)


def shingles(text: str) -> frozenset[str]:
    """The word 3-grams of a text, without case and punctuation (the whole text where it is shorter).

    In scripts without spaces between words they are the 2-grams of characters, about as long. Numbers and the signs of
    arithmetic count as words: benchmarks made from templates repeat a story with other numbers on purpose.
    """
    text = plain(text)
    words = WORD.findall(text)
    grams = []
    for start, word in enumerate(words):
        length = 2 if re.match(f"[{UNSPACED}]", word) else 3
        if start + length <= len(words) or start == 0:
            grams.append(" ".join(words[start : start + length]))
    return frozenset(grams or ["".join(text.split())])


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
