"""How often k samples solve an item: one is correct (pass@k), or the majority's answer is (maj@k)."""

import collections
import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import TypedDict

from selfrefine.schema.rows import EvaluatedAnswer, extracted_of, judged_correct

MEASURES = ("pass", "maj")


class Sample(TypedDict):
    """What counts of a sampled answer."""

    style: str
    item: str
    sample: int
    extracted: str | None
    correct: bool


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """The chance that of k of an item's samples, drawn without replacement, at least one is correct.

    The unbiased estimator of Chen et al. 2021 (arXiv 2107.03374): 1 - C(samples - correct, k) / C(samples, k).
    """
    return float(1 - Fraction(math.comb(samples - correct, k), math.comb(samples, k)))


def majority_at_k(answers: Sequence[str | None], correct: Sequence[bool], k: int) -> float:
    """The chance that the most frequent answer of k samples, drawn without replacement, is correct.

    Ties are split evenly. Samples without an answer (None) do not vote; without any vote the item is not solved. So
    maj@1 is pass@1.
    """
    votes = collections.Counter(zip(answers, correct, strict=True))
    silent = sum(count for (answer, _), count in votes.items() if answer is None)
    spoken = sorted((count, is_correct) for (answer, is_correct), count in votes.items() if answer is not None)
    return _majority(silent, tuple(spoken), k)


@functools.cache
def _majority(silent: int, votes: tuple[tuple[int, bool], ...], k: int) -> float:
    """`majority_at_k` from the number of silent samples and (votes, is correct) of each answer."""
    # Ways to draw so far, by (samples drawn, most votes, answers that have as many, correct ones among these).
    ways: dict[tuple[int, ...], int] = {
        (drawn, 0, 0, 0): math.comb(silent, drawn) for drawn in range(min(silent, k) + 1)
    }
    for count, is_correct in votes:
        longer: dict[tuple[int, ...], int] = collections.Counter()
        for (drawn, most, leading, hits), number in ways.items():
            for more in range(min(count, k - drawn) + 1):
                if more > most:
                    state = (more, 1, int(is_correct))
                else:
                    ties = 0 < more == most
                    state = (most, leading + ties, hits + (ties and is_correct))
                longer[drawn + more, *state] += number * math.comb(count, more)
        ways = longer
    solved = sum(
        Fraction(number * hits, leading) for (drawn, _, leading, hits), number in ways.items() if drawn == k and leading
    )
    return float(solved / math.comb(silent + sum(count for count, _ in votes), k))


def depths(samples: int) -> list[int]:
    """The numbers k at which curves are drawn: the powers of two up to the number of samples, and that number."""
    return sorted({*(2**i for i in range(samples.bit_length()) if 2**i <= samples), samples})


def of_answers(answers: Sequence[EvaluatedAnswer], extractor: str) -> list[Sample]:
    """The samples in a file of several answers to each item of a test split; none if there is one answer to each."""
    legacy = extractor == "legacy"
    return [
        {
            "style": "",
            "item": row["item"],
            "sample": row["sample"],
            "extracted": row["legacy_extracted"] if legacy else extracted_of(row, extractor),
            "correct": judged_correct(row, "strict" if extractor == "unanimous" else extractor),
        }
        for row in answers
        if "sample" in row and "legacy_extracted" in row
    ]


def solved(paths: Sequence[Sample]) -> dict[tuple[str, str, int], dict[str, float]]:
    """{(style, measure, k): {item: value}} of one file of judged paths; k goes up to the fewest samples of an item."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for path in sorted(paths, key=lambda path: path["sample"]):
        groups.setdefault((path["style"], path["item"]), []).append(path)
    values: dict[tuple[str, str, int], dict[str, float]] = {}
    for style in sorted({style for style, _ in groups}):
        mine = {item: rows for (other, item), rows in groups.items() if other == style}
        for k in depths(min(map(len, mine.values()))):
            for item, rows in mine.items():
                correct = [bool(row["correct"]) for row in rows]
                answers = [row["extracted"] for row in rows]
                values.setdefault((style, "pass", k), {})[item] = pass_at_k(len(rows), sum(correct), k)
                values.setdefault((style, "maj", k), {})[item] = majority_at_k(answers, correct, k)
    return values
