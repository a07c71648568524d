"""The power of a whole claim before its study runs: all comparisons, corrected by Holm.

Comparisons are drawn by their summaries: the estimate normal around the true difference, the variance estimate with the
chi-squared part of the seeds (power.py). They are drawn as independent. Those that share an arm or items go together,
which makes all of them found more often than this says where one of them is found.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from selfrefine.analysis.comparing import bounds_of
from selfrefine.analysis.paper_claims import Arm, Claim
from selfrefine.analysis.power import TINY, critical_values, of_difference
from selfrefine.analysis.seed_variance import moderated
from selfrefine.analysis.statistics import Components
from selfrefine.analysis.verdicts import pairs_of, recipes_of

DRAWS = 1000
# Levels between those that Holm asks of the first and the last of the comparisons.
LEVELS = 8


class Assumed(NamedTuple):
    """What is assumed of one comparison, as shares of 1; `spreads` are standard deviations between seeds, with weights."""

    difference: float
    discordance: float
    stable: float
    """Of the variance within a seed, the share that is an item's own under every seed."""
    spreads: tuple[float, ...]
    weights: tuple[float, ...]


def pairs_by_recipe(claim: Claim, arms: list[Arm]) -> dict[str, list[list[tuple[Arm, Arm]]]]:
    """By preference recipe, the comparisons (treated, control) of each part of a claim."""
    found: dict[str, list[list[tuple[Arm, Arm]]]] = {
        recipe: [[] for _ in claim.parts] for recipe in recipes_of(claim, arms)
    }
    for recipe, part, treated, control in pairs_of(claim, arms):
        found[recipe][claim.parts.index(part)].append((treated, control))
    return found


@functools.lru_cache(maxsize=256)
def usual_df(seeds: int, runs: int) -> float:
    """The degrees of freedom of a variance between seeds that is moderated over so many independent training runs.

    Drawn where seeds vary alike everywhere: the middle of 20 studies.
    """
    if seeds == 1 or runs < 2:
        return seeds - 1
    generator, items, found = np.random.default_rng([seeds, runs]), 1000, []
    for _ in range(20):
        squares = generator.chisquare(seeds - 1, runs) / (seeds - 1)
        drawn = [
            Components(seeds, items, 0.0, 0.3, max(square - 0.2, 0.0) / items, 0.05, 0.2, 0.0)._replace(
                seed_share=min(square / (max(square - 0.2, 0.0) + seeds * 0.05 + 0.2), 1.0)
            )
            for square in squares
        ]
        found.append(moderated(drawn, range(runs))[0].df)
    return float(np.median(found))


def power_of_claim(
    comparisons: Sequence[tuple[Assumed, int]],
    says: str,
    margin: float,
    alpha: float,
    seeds: int,
    family: int,
    runs: int = 1,
) -> float:
    """The probability that all comparisons (what is assumed, items) are supported.

    `alpha` is two-sided; `runs` is over how many independent training runs the variance between seeds is estimated. Holm
    counts `family` comparisons; those of other preference recipes are taken as not found, which asks for the most.
    """
    passed = _passed_each(comparisons, _sides(says, margin), alpha, seeds, family, runs)
    # The j-th largest p is at most alpha / j, or alpha over more where others are not found.
    others = family - len(comparisons)
    levels = -_levels(alpha, family)
    ok: np.ndarray = np.ones(DRAWS, bool)
    for last in range(len(comparisons)):
        place = np.searchsorted(levels, -alpha / (others + last + 1) - TINY)
        ok &= (passed > place).sum(axis=0) >= len(comparisons) - last
    return float(ok.mean())


def contradiction_of_claim(
    comparisons: Sequence[tuple[Assumed, int]],
    says: str,
    margin: float,
    alpha: float,
    seeds: int,
    family: int,
    runs: int = 1,
) -> float:
    """The probability that a comparison contradicts the claim at the level of Holm's first step: at least so often.

    The arguments are those of `power_of_claim`.
    """
    first = len(_levels(alpha, family))
    # The claim's bounds, each from the side on which it does not hold.
    beyond = [[(bound, -sign)] for bound, sign in _sides(says, margin)]
    found = [_passed_each(comparisons, sides, alpha, seeds, family, runs) == first for sides in beyond]
    return float(np.any(found, axis=(0, 1)).mean())


def _passed_each(
    comparisons: Sequence[tuple[Assumed, int]],
    sides: Sequence[tuple[float, int]],
    alpha: float,
    seeds: int,
    family: int,
    runs: int,
) -> np.ndarray:
    """By comparison and draw, at how many levels it is found to lie on these sides of the bounds."""
    generator, df = np.random.default_rng([seeds, len(comparisons)]), usual_df(seeds, runs)
    levels = _levels(alpha, family)
    return np.array([_passed(one, sides, levels, (seeds, items, df), generator) for one, items in comparisons])


def _levels(alpha: float, family: int) -> np.ndarray:
    """Levels from alpha down to alpha over the family, each of Holm's rounded down to one of them."""
    every = alpha / np.arange(1, family + 1)
    return every[np.unique(np.round(np.geomspace(1, family, min(LEVELS, family))).astype(int)) - 1]


def _passed(
    one: Assumed,
    sides: Sequence[tuple[float, int]],
    levels: np.ndarray,
    size: tuple[int, int, float],
    generator: np.random.Generator,
) -> np.ndarray:
    """Of each draw, at how many of the levels (falling) the comparison is found on these sides of the bounds.

    `size` are seeds, items, and the degrees of freedom of the variance between seeds.
    """
    seeds, items, df = size
    spreads = np.asarray(one.spreads)[generator.choice(len(one.spreads), DRAWS, p=one.weights)]
    square = np.full(DRAWS, max(one.discordance, abs(one.difference)))
    whole = np.maximum(square - one.difference**2, TINY)
    between = np.minimum(spreads**2, whole) if seeds > 1 else np.zeros(DRAWS)
    within = whole - between
    of_items, residual = one.stable * within / items, (1 - one.stable) * within / (seeds * items)
    variance = between / seeds + of_items + residual
    estimate = one.difference + np.sqrt(variance) * generator.standard_normal(DRAWS)
    if seeds == 1:
        factor, shares = np.ones(DRAWS), np.zeros(DRAWS)
    else:
        share = (between / seeds + residual) / variance
        points = generator.chisquare(df, DRAWS) / df
        factor = np.maximum(share * points + 1 - share, 1 - between / seeds / variance)
        shares = np.minimum(share * points / factor, 1.0)
    n = whole / variance
    found = np.full((len(levels), DRAWS), True)
    for bound, sign in sides:
        null = np.sqrt(of_difference(bound, square, np.full(DRAWS, one.difference)) / n * factor)
        correction = 1 / items if seeds == 1 and bound == 0 else 0.0
        statistic = (sign * (estimate - bound) - correction) / null
        found &= np.array([statistic > critical_values(shares, df, float(level)) for level in levels])
    return found.sum(axis=0)


def _sides(says: str, margin: float) -> list[tuple[float, int]]:
    """The bounds of a claim, and on which side of each it holds."""
    first, *others = bounds_of(says, margin)
    return [(first, 1), *((bound, -1) for bound in others)]
