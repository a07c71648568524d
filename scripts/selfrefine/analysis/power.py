"""Power of so many seeds and items, and assurance from a study that is done.

Power is the probability that a comparison is decided if its true difference and variances are as given. A study that is
done knows neither, and two or three seeds say next to nothing of the variance between seeds: power at its estimates
overpromises. So advice rests on assurance (O'Hagan, Stevens & Campbell 2005, Pharmaceutical Statistics 4:187; Spiegelhalter
& Freedman 1986, Statistics in Medicine 5:1): power averaged over what the study leaves likely.

- The standard deviation between seeds: the mean square of seeds over its expectation is chi-squared over its degrees of
  freedom. Few of them leave a long tail, which a half-Cauchy prior shortens (Gelman 2006, Bayesian Analysis 1:515), here
  with a median of `USUAL_SD`.
- The true difference: normal, by the estimate with the variance that goes with each standard deviation, and a normal prior
  around 0 (`USUAL_DIFFERENCE`), since what is still undecided is small more often than the estimate says.
- The variance between items: a standard error more, since what more seeds cannot decide hangs on it.
- The share of answers that differ: half an item more (Jeffreys' prior), so that arms that never differed are not taken
  for arms that never will.

Tests are those of statistics.py in their normal form: Behrens and Fisher's critical values with the variance estimate as
random as it is, Tango's variance at the bound, and with one seed McNemar's test with its continuity correction. Nothing
is drawn at random. `python bench/simulate.py` compares predicted with found power.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from selfrefine.analysis.statistics import Components, critical

POWER = 0.8
# What advice aims at: more than it promises, because the priors below are guesses.
ASSURANCE = 0.85
# The prior's median of the standard deviation between seeds, of a difference of accuracies: large, to err towards more
# seeds. `bench/simulations/planning.py` shows what it costs where seeds vary less.
USUAL_SD = 0.05
# The prior's standard deviation of true differences: most refinements change an accuracy by less than ten points.
USUAL_DIFFERENCE = 0.1
# Numbers that advice may name, in two digits: close enough, and few, so that critical values are found once.
_DIGITS = (*range(10, 20), *range(20, 50, 2), *range(50, 100, 5))
NUMBERS = (*range(1, 10), *(digits * 10**power for power in range(6) for digits in _DIGITS))
MOST_SEEDS, MOST_ITEMS = 1000, 1_000_000
TINY = 1e-12


class Chances(NamedTuple):
    """The probabilities that a comparison is found to be as the claim says, and that it is found not to be."""

    supported: float
    contradicted: float

    @property
    def decided(self) -> float:
        """Either."""
        return self.supported + self.contradicted


class Truth(NamedTuple):
    """True differences and variances that are taken for possible, each with its weight; arrays of one length."""

    weights: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    between_seeds: np.ndarray
    between_items: float
    residual: float


class Needed(NamedTuple):
    """How many items or seeds decide: if the estimates are true, and whatever is likely; None where no number does."""

    estimated: int | None
    assured: int | None


def _middles(count: int) -> np.ndarray:
    return (np.arange(count) + 0.5) / count


@functools.lru_cache(maxsize=512)
def _chi_squared(df: float) -> np.ndarray:
    """A chi-squared variable over its degrees of freedom, at the middles of 16 equally likely parts."""
    return special.gammaincinv(df / 2, _middles(16)) / (df / 2)


@functools.lru_cache(maxsize=4096)
def _criticals(df: float, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """`critical` at nine shares, which others lie between."""
    shares = np.linspace(0, 1, 9) ** 2
    return shares, np.array([critical(float(share), df, alpha) for share in shares])


def critical_values(shares: np.ndarray, df: float, alpha: float) -> np.ndarray:
    """`critical` of many shares; of a normal distribution where there are no degrees of freedom."""
    return np.interp(shares, *_criticals(df, alpha)) if df else np.full(shares.shape, critical(0.0, 0, alpha))


def of_difference(value: float, square: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Tango's variance of one difference if its mean were `value`, of arrays."""
    gained, lost = (square + mean) / 2, (square - mean) / 2
    b = (2 - gained + lost) * value - gained - lost
    most_likely_lost = (np.sqrt(np.maximum(b * b + 8 * lost * value * (1 - value), 0)) - b) / 4
    return np.maximum(2 * most_likely_lost + value * (1 - value), 0)


def known(mean: float, square: float, between_seeds: float, between_items: float, residual: float) -> Truth:
    """A truth without doubt."""
    one = np.ones(1)
    return Truth(one, mean * one, max(square, abs(mean)) * one, between_seeds * one, between_items, residual)


def chances(
    truth: Truth, says: str, margin: float, alpha: float, seeds: int, items: int, df: float | None = None
) -> Chances:
    """What a comparison of so many seeds and items is found to be, at level `alpha` (two-sided).

    `says` is what the claim says, `margin` as a share of 1; `df` are the degrees of freedom of the variance between
    seeds, those of the seeds alone without it. An exact test is taken where one seed is compared with 0.
    """
    df = seeds - 1 if df is None else df
    of_seeds = truth.between_seeds / seeds
    within = truth.residual / (seeds * items)
    # A study's items cannot tell less than independent answers would.
    spread = np.maximum(truth.square - truth.mean**2, 0.0)
    variance = np.maximum(of_seeds + truth.between_items / items + within, spread / (seeds * items))
    variance = np.maximum(variance, TINY)
    if not df:
        estimates, passing = np.ones((1, 1)), np.array([[critical(0.0, 0, alpha)]])
    else:
        share = np.minimum((of_seeds + within) / variance, 1.0)[:, None]
        points = _chi_squared(df)[None, :]
        estimates = np.maximum(share * points + 1 - share, 1 - (of_seeds / variance)[:, None])
        passing = critical_values(np.minimum(share * points / estimates, 1.0), df, alpha)
    n = np.where(spread > 0, spread / variance, items)
    correction = 1 / items if seeds == 1 and says == "above" else 0.0

    def beyond(bound: float, sign: int) -> np.ndarray:
        """How far the estimate must come to pass the bound, in standard errors from its mean: a normal passes it."""
        null = np.sqrt(of_difference(bound, truth.square, truth.mean) / n)[:, None]
        distance = sign * (truth.mean - bound)[:, None] - correction
        return (distance - passing * np.sqrt(estimates) * null) / np.sqrt(variance)[:, None]

    if says == "about":
        low, high = beyond(-margin, 1), beyond(margin, -1)
        supported = np.maximum(special.ndtr(low) + special.ndtr(high) - 1, 0.0)
        contradicted = special.ndtr(beyond(-margin, -1)) + special.ndtr(beyond(margin, 1))
    else:
        bound = -margin if says == "not below" else 0.0
        supported, contradicted = special.ndtr(beyond(bound, 1)), special.ndtr(beyond(bound, -1))
    return Chances(*(float(truth.weights @ found.mean(axis=1)) for found in (supported, contradicted)))


def _smoothed(of: Components) -> tuple[float, float]:
    """(share of answers that differ, variance between items), with half an item more that differs."""
    square = (of.items * of.square + 0.5) / (of.items + 1)
    return square, max(of.between_items + square - of.square, 0.0)


def _error_of_items(of: Components) -> float:
    """The standard error of the variance between items, a difference of two mean squares of chi-squared kind."""
    if of.seeds == 1 or of.items == 1:
        return 0.0
    of_items = (of.seeds * of.between_items + of.residual) ** 2
    rest = of.residual**2 / (of.seeds - 1)
    return math.sqrt(2 * (of_items + rest) / (of.items - 1)) / of.seeds


def likely(of: Components, difference: bool = True) -> Truth:
    """What a study leaves likely of the variance between seeds and, if asked for, of the true difference."""
    square, between_items = _smoothed(of)
    between_items += _error_of_items(of)
    spreads, weights = _likely_spreads(of)
    if not difference:
        one = np.ones_like(weights)
        return Truth(weights, of.mean * one, square * one, spreads**2, between_items, of.residual)
    variance = spreads**2 / of.seeds + between_items / of.items + of.residual / (of.seeds * of.items)
    kept = USUAL_DIFFERENCE**2 / (USUAL_DIFFERENCE**2 + variance)
    steps = special.ndtri(_middles(16))
    means = np.clip((kept * of.mean)[:, None] + np.sqrt(kept * variance)[:, None] * steps, -1, 1).ravel()
    return Truth(
        np.repeat(weights / len(steps), len(steps)),
        means,
        np.maximum(square, abs(means)),
        np.repeat(spreads**2, len(steps)),
        between_items,
        of.residual,
    )


def _likely_spreads(of: Components) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations between seeds with their posterior weights, from the mean square of seeds."""
    if not of.df:
        return np.zeros(1), np.ones(1)
    values, logs = seed_spreads([of])
    weights = np.exp(logs - logs.max())
    kept = weights > 1e-3
    return values[kept], weights[kept] / weights[kept].sum()


def seed_spreads(studies: Sequence[Components]) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations between seeds that are equally likely before, and the log-likelihood of each over studies."""
    values = USUAL_SD * np.tan(np.pi / 2 * _middles(40))
    values = values[values < 1]
    logs = np.zeros_like(values)
    for of in studies:
        expected = np.maximum(of.items * values**2 + of.residual, TINY)
        logs -= of.df / 2 * (np.log(expected) + of.between_square / expected)
    return values, logs


def least_found(
    truth: Truth,
    says: str,
    margin: float,
    alpha: float,
    seeds: int,
    items: int,
    df: float | None = None,
    highest: float = 1.0,
) -> float | None:
    """The least distance from the bound, to where the claim holds, that is found with power 0.8; None if none is.

    Means in `truth` do not count. The bound is 0, and nothing beyond `highest` counts, what the control's accuracy leaves
    room for. Or it is the margin below, and nothing beyond the true difference 0 counts: who is as good as the control
    would not be found to be.
    """
    bound = 0.0 if says == "above" else -margin

    def found(distance: float) -> float:
        mean = np.full_like(truth.mean, bound + distance)
        # The share of answers that differ is at least the difference.
        planted = truth._replace(mean=mean, square=np.maximum(truth.square, abs(mean)))
        return chances(planted, says, margin, alpha, seeds, items, df).supported

    low, high = 0.0, highest if says == "above" else margin
    if found(high) < POWER:
        return None
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) >= POWER else (middle, high)
    return high


def detectable(of: Components, says: str, margin: float, alpha: float, highest: float = 1.0) -> float | None:
    """`least_found` by a study of the size of this one, whatever it leaves likely of the variance between seeds."""
    return least_found(likely(of, difference=False), says, margin, alpha, of.seeds, of.items, of.df, highest)


def fewest(decided: Callable[[int], float], enough: float, more_than: int, most: int) -> int | None:
    """The least of `NUMBERS` above `more_than` at which `decided` is `enough`; None if `most` is too few."""
    numbers = [number for number in NUMBERS if more_than < number <= most]
    if not numbers or decided(numbers[-1]) < enough:
        return None
    low, high = -1, len(numbers) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(numbers[middle]) >= enough else (middle, high)
    return numbers[high]


def sizes(unit: str, number: int, seeds: int, items: int) -> tuple[int, int]:
    """(seeds, items) of a study that is given `number` of a unit: of both, so many seeds, and items in proportion."""
    return {
        "items": (seeds, number),
        "seeds": (number, items),
        "both": (number, math.ceil(items * number / seeds)),
    }[unit]


def needed(comparisons: Sequence[Components], says: str, margin: float, alpha: float, unit: str) -> Needed:
    """How many items (under as many seeds) or seeds (on the same items, or on more in proportion: `both`) decide a claim.

    `comparisons` are its open ones, `alpha` is the level of each. The claim is decided when all are found to be as it
    says or one is found not to be; they are taken as independent. For one comparison it is the number that decides it.
    One seed tells nothing of others, so that no number of seeds is known.
    """
    if unit != "items" and any(each.seeds == 1 for each in comparisons):
        return Needed(None, None)
    truths = [(as_estimated(each), likely(each)) for each in comparisons]

    def decided(number: int, place: int) -> float:
        found = []
        for each, both in zip(comparisons, truths, strict=True):
            seeds, items = sizes(unit, number, each.seeds, each.items)
            # What other comparisons tell of the variance between seeds stays as it is.
            df = each.df - each.seeds + seeds
            found.append(chances(both[place], says, margin, alpha, seeds, items, df))
        return decided_claim(found)

    has = max(each.items if unit == "items" else each.seeds for each in comparisons)
    most = MOST_ITEMS if unit == "items" else MOST_SEEDS
    estimated = fewest(functools.partial(decided, place=0), POWER, has, most)
    return Needed(estimated, fewest(functools.partial(decided, place=1), ASSURANCE, has, most))


def decided_claim(found: Sequence[Chances]) -> float:
    """The probability that a claim is decided by independent comparisons."""
    supported = math.prod(each.supported for each in found)
    return supported + 1 - math.prod(1 - each.contradicted for each in found)


def as_estimated(of: Components) -> Truth:
    """The estimates of a study, taken for true."""
    square, between_items = _smoothed(of)
    return known(of.mean, square, of.between_seeds, between_items, of.residual)
