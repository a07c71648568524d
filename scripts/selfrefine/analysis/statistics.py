"""How sure accuracies and their differences are: intervals, tests, and what a study could have seen.

Values are matrices [seeds, items]: the same items under every training seed. A difference is taken item by item, so
each item is its own control. Seeds and items are crossed random effects. One standard error holds the variance between
seeds, the variance between items and the rest (variance components as in Owen 2007, Annals of Applied Statistics 1:386;
Clark 1973 for the case of language materials), and speaks of new seeds and new items of the same kinds.

With one to five seeds, resampling seeds does not do: the resamples never leave the few values at hand, and percentile
intervals cover far too seldom. The part of the standard error that rests on S - 1 degrees of freedom is treated as
such: the reference distribution is Behrens and Fisher's, Student's t for that part plus a normal for the part of the
items. It is conservative (Robinson 1976, Annals of Statistics 4:963). It becomes the t test over seeds where seeds vary
most, and the z test over items where they do not vary. Answers are correct or incorrect, and either may be rare, so
intervals are score intervals at the effective number of items (Korn & Graubard 1998, Survey Methodology 24:193):
Wilson's for an accuracy (Brown, Cai & DasGupta 2001, Statistical Science 16:101), Tango's for a paired difference
(1998, Statistics in Medicine 17:891).

With one seed nothing is known of other seeds: results are of that checkpoint, and a difference from 0 is tested by
McNemar's exact test; of shares of several answers to an item, by a score test. `python bench/simulate.py` measures the
coverage and size of all this, and of its rivals. Nothing is drawn at random. Beside this module: seed_variance.py
estimates the variance between seeds over several comparisons, power.py says what a study could have seen.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

TINY = 1e-9


class Components(NamedTuple):
    """What a matrix of values tells of their mean. Variances are of one value; never below 0."""

    seeds: int
    items: int
    mean: float
    square: float  # the mean of the squared values: of differences, the share of answers that differ
    between_seeds: float  # 0 with one seed, which says nothing about it
    between_items: float
    residual: float
    seed_share: float  # of the mean's variance, the share whose estimate rests on seeds - 1 degrees of freedom
    shares: bool = False  # whether values are of several answers each, so that no exact test applies
    seed_df: float | None = None  # of that share, where they are not seeds - 1
    item_df: float | None = None  # of the variance of items' means over seeds; None with one seed
    seeds_drawn: bool = True  # whether the mean is of new seeds, too, or of those at hand

    @property
    def df(self) -> float:
        """The degrees of freedom of the share of the variance that is estimated from few values."""
        return self.seeds - 1 if self.seed_df is None else self.seed_df

    @property
    def between_square(self) -> float:
        """The mean square between seeds, as measured: items x between_seeds + residual, had nothing been truncated."""
        return self.seed_share * self.variance(self.seeds, self.items) * self.seeds * self.items

    @property
    def spread(self) -> float:
        """The variance of one value."""
        return max(self.square - self.mean**2, 0.0)

    def variance(self, seeds: int, items: int) -> float:
        """The variance of a mean over so many seeds and items."""
        return self.between_seeds / seeds + self.between_items / items + self.residual / (seeds * items)

    def effective(self, seeds: int, items: int) -> float:
        """The number of independent items under one seed that would tell as much of the mean."""
        variance = self.variance(seeds, items)
        return min(self.spread / variance, seeds * items) if variance and self.spread else items


def components(values: np.ndarray) -> Components:
    """The variance components of float[seeds, items], from the mean squares of a crossed layout without replicates."""
    seeds, items = values.shape
    if not seeds or not items or not np.isfinite(values).all():
        raise ValueError(f"{seeds} seeds and {items} items: needs one of each at least, and finite values")
    mean, square = float(values.mean()), float(np.square(values).mean())
    if seeds == 1 or items == 1:
        return Components(seeds, items, mean, square, 0.0, max(square - mean**2, 0.0), 0.0, 0.0)
    of_seeds = items * np.square(values.mean(axis=1) - mean).sum() / (seeds - 1)
    of_items = seeds * np.square(values.mean(axis=0) - mean).sum() / (items - 1)
    whole = seeds * items * (square - mean**2)
    rest = (whole - (seeds - 1) * of_seeds - (items - 1) * of_items) / ((seeds - 1) * (items - 1))
    rest = max(float(rest), 0.0)
    between_seeds, between_items = max(of_seeds - rest, 0.0) / items, max(of_items - rest, 0.0) / seeds
    variance = items * between_seeds + seeds * between_items + rest
    share = min(of_seeds / variance, 1.0) if variance else 0.0
    found = Components(seeds, items, mean, square, float(between_seeds), float(between_items), rest, float(share))
    return found._replace(item_df=_degrees_of_freedom(values.mean(axis=0)))


def _degrees_of_freedom(values: np.ndarray) -> float | None:
    """Those of the values' variance, by its own variance, which grows with the kurtosis; None if they do not vary.

    Satterthwaite 1946 (Biometrics Bulletin 2:110), as Pan & Wall 2002 (Statistics in Medicine 21:1429) for clusters. Where
    few of the items differ between arms, the variance rests on these few.
    """
    squares = np.square(values - values.mean())
    variance = float(squares.mean())
    if not variance:
        return None
    beyond = float(np.square(squares).mean()) / variance**2 - 1
    return min(2 * len(values) / max(beyond, 2 / len(values)), len(values) - 1.0)


def these_checkpoints(of: Components) -> Components:
    """The components where seeds are not drawn: of the very checkpoints at hand, and new items of the same kind.

    An item's mean over seeds is one observation, so that the variance is that of means over items: the error clustered
    by item (Miller 2024, arXiv 2411.00640, section 2.2). The mean square between items is items' variance and the
    residual; the seeds' own variance is no part of it. It is estimated from the items at hand, so the reference is
    Student's t.
    """
    if of.seeds == 1:
        return of._replace(seeds_drawn=False)
    share = 0.0 if of.item_df is None else 1.0
    return of._replace(between_seeds=0.0, seed_share=share, seed_df=of.item_df or 0.0, seeds_drawn=False)


@functools.lru_cache(maxsize=256)
def chi_squared(df: float) -> tuple[np.ndarray, np.ndarray]:
    """A chi-squared variable over its degrees of freedom: points and weights for averages over it."""
    low, high = special.gammaincinv(df / 2, 1e-16), special.gammainccinv(df / 2, 1e-16)
    logs = np.linspace(np.log(low), np.log(high), 400)
    densities = df / 2 * logs - np.exp(logs)
    weights = np.exp(densities - densities.max())
    return np.exp(logs) / (df / 2), weights / weights.sum()


def tail(statistic: float, share: float, df: float) -> float:
    """The two-sided tail of Behrens and Fisher's distribution: sqrt(share) t(df) + sqrt(1 - share) z."""
    if not share:
        return float(2 * special.ndtr(-abs(statistic)))
    points, weights = chi_squared(df)
    return float(2 * weights @ special.ndtr(-abs(statistic) / np.sqrt(share / points + 1 - share)))


@functools.lru_cache(maxsize=4096)
def critical(share: float, df: float, alpha: float) -> float:
    """The value that a statistic passes with probability `alpha` (two-sided) by chance alone."""
    if not share:
        return float(-special.ndtri(alpha / 2))
    highest = -special.stdtrit(df, alpha / 2) - special.ndtri(alpha / 2)
    return optimize.brentq(lambda value: tail(value, share, df) - alpha, 0, highest)


def wilson(correct: int, n: int, level: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion."""
    z, share = -special.ndtri((1 - level) / 2), correct / n
    middle = share + z * z / (2 * n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = ((middle + sign * reach) / (1 + z * z / n) for sign in (-1, 1))
    return float(low) if correct else 0.0, float(high) if correct < n else 1.0


def of_accuracy(value: float) -> float:
    """The variance of one answer's verdict where the accuracy is `value`."""
    return value * (1 - value)


def of_difference(value: float, square: float, mean: float) -> float:
    """The variance of one difference if their mean were `value`, as `square` and `mean` make it likely (Tango 1998)."""
    gained, lost = (square + mean) / 2, (square - mean) / 2
    b = (2 - gained + lost) * value - gained - lost
    most_likely_lost = (math.sqrt(max(b * b + 8 * lost * value * (1 - value), 0.0)) - b) / 4
    return max(2 * most_likely_lost + value * (1 - value), 0.0)


def score_interval(
    mean: float, variance: Callable[[float], float], n: float, passing: float, lowest: float
) -> tuple[float, float]:
    """The values from `lowest` to 1 whose score statistic `mean` does not take past `passing`."""

    def excess(value: float) -> float:
        return abs(mean - value) - passing * math.sqrt(variance(value) / n)

    # The estimate itself is a root where the variance is 0 there.
    low = lowest if excess(lowest) <= 0 else optimize.brentq(excess, lowest, mean - TINY)
    high = 1.0 if excess(1.0) <= 0 else optimize.brentq(excess, mean + TINY, 1.0)
    return low, high


def accuracy(outcomes: np.ndarray, level: float) -> tuple[float, float, float, str]:
    """(estimate, low, high, method) of the accuracy of bool[seeds, items]; with one seed it is Wilson's interval.

    The outcomes may be shares, in [0, 1]; then the interval is wider than need be.
    """
    parts = components(outcomes.astype(float))
    passing = critical(parts.seed_share, parts.df, 1 - level)
    n = parts.effective(parts.seeds, parts.items)
    method = "wilson" if parts.seeds == 1 else "wilson over seeds and items"
    return parts.mean, *score_interval(parts.mean, of_accuracy, n, passing, 0.0), method


def mcnemar(treated: np.ndarray, control: np.ndarray) -> tuple[float, float, float]:
    """(only treated correct, only control correct, exact two-sided p) of one seed's paired outcomes, bool[items].

    Of shares of correct samples, float[items]: the gains, the losses, and the p of the paired score test.
    """
    if treated.dtype != bool or control.dtype != bool:
        gains = treated.astype(float) - control.astype(float)
        p = p_value(paired(treated[None], control[None]), 0.0)
        return float(gains.clip(min=0).sum()), float(np.abs(gains.clip(max=0)).sum()), p
    gained, lost = int((treated & ~control).sum()), int((~treated & control).sum())
    return gained, lost, exact_p(gained, lost)


def exact_p(gained: int, lost: int) -> float:
    """McNemar's exact two-sided p: twice the smaller tail of a fair coin."""
    return min(1.0, float(2 * special.bdtr(min(gained, lost), gained + lost, 0.5)))


def paired(treated: np.ndarray, control: np.ndarray) -> Components:
    """The components of the differences of bool[seeds, items], or of shares; a side without seeds is bool[1, items]."""
    parts = components(treated.astype(float) - control.astype(float))
    return parts if treated.dtype == control.dtype == bool else parts._replace(shares=True)


def p_value(of: Components, bound: float) -> float:
    """The two-sided p of the true difference lying at `bound`: McNemar's for one seed at 0, a score test otherwise."""
    if of.seeds == 1 and bound == 0 and not of.shares:
        gained = round(of.items * (of.square + of.mean) / 2)
        return exact_p(gained, round(of.items * of.square) - gained)
    if of.mean == bound:
        return 1.0
    n = of.effective(of.seeds, of.items)
    error = math.sqrt(of_difference(bound, of.square, of.mean) / n)
    return tail((of.mean - bound) / error, of.seed_share, of.df)


def interval(of: Components, level: float) -> tuple[float, float]:
    """The differences that the test does not reject at `level`; one that the exact test cannot tell from 0 holds 0."""

    def variance(value: float) -> float:
        return of_difference(value, of.square, of.mean)

    passing = critical(of.seed_share, of.df, 1 - level)
    n = of.effective(of.seeds, of.items)
    low, high = score_interval(of.mean, variance, n, passing, -1.0)
    if of.seeds == 1 and p_value(of, 0.0) > 1 - level:
        low, high = min(low, 0.0), max(high, 0.0)
    return low, high


def difference(treated: np.ndarray, control: np.ndarray, level: float) -> tuple[float, float, float]:
    """(estimate, low, high) of the accuracy difference treated - control, paired by item and seed."""
    parts = paired(treated, control)
    return parts.mean, *interval(parts, level)


def holm(p_values: list[float]) -> list[float]:
    """Holm's adjusted p values: rejecting those up to alpha errs anywhere with probability alpha at most."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = highest
    return adjusted
