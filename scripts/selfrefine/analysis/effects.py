"""Effects beside a difference in points: log odds of gains to losses, and the mean over benchmarks."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from selfrefine.analysis import statistics
from selfrefine.analysis.statistics import Components
from selfrefine.schema.claim_results import LogOdds


def log_odds(treated: np.ndarray, control: np.ndarray, like: Components, level: float) -> LogOdds | None:
    """The conditional log odds of a gain to a loss, from bool[seeds, items] or shares; None where nothing differs.

    Given that a pair differs, it is a gain with a probability whose odds are the ratio of the odds of being correct
    (the paired case of Breslow & Day 1980, Statistical Methods in Cancer Research I, section 5.2). The interval is
    Wilson's of that probability, at the number of differing pairs that tells as much as the clustered ones do: the
    variance of the ratio of gains to all differing pairs, linearised (Korn & Graubard 1998). `like` says what is
    drawn, as it does for the difference: items, or seeds too. The estimate has half a pair added to both counts
    (Anscombe 1956, Biometrika 43:461), so that it is finite.
    """
    differences = treated.astype(float) - control.astype(float)
    gains, unlike = differences.clip(min=0), np.abs(differences)
    seeds, items = differences.shape
    count = float(unlike.mean()) * items
    if not count:
        return None
    share = float(gains.mean() / unlike.mean())
    residuals = statistics.components((gains - share * unlike) / unlike.mean())
    if not like.seeds_drawn or not like.df:
        residuals = statistics.these_checkpoints(residuals)
    elif like.between_seeds and residuals.residual:
        # As much of the variance is between seeds as in the difference, whose part is estimated over the stage.
        ratio = like.between_seeds / max(like.residual, statistics.TINY)
        between = max(residuals.between_seeds, ratio * residuals.residual)
        residuals = residuals._replace(between_seeds=between)
    variance = residuals.variance(seeds, items)
    pairs = min(share * (1 - share) / variance if variance and 0 < share < 1 else count, count * seeds)
    passing = statistics.critical(like.seed_share, like.df, 1 - level)
    low, high = statistics.score_interval(share, statistics.of_accuracy, pairs, passing, 0.0)
    return {
        "value": math.log((share * count + 0.5) / ((1 - share) * count + 0.5)),
        "low": float(special.logit(low)) if low > statistics.TINY else None,
        "high": float(special.logit(high)) if high < 1 - statistics.TINY else None,
    }


class Mean(NamedTuple):
    """A mean over benchmarks, and the variance between their true effects."""

    estimate: float
    low: float
    high: float
    between: float


def mean_over(effects: Sequence[float], errors: Sequence[float], level: float) -> Mean:
    """The random-effects mean of two effects or more, with their standard errors.

    The variance between effects is that of Paule & Mandel (1982, Journal of Research of the NBS 87:377; advised by
    Veroniki et al. 2016, Research Synthesis Methods 7:55). The interval is Hartung and Knapp's (2001, Statistics in
    Medicine 20:3875; Sidik & Jonkman 2002, 21:3153), Student's t on one degree less than effects, with their factor
    not below 1 (Knapp & Hartung 2003, 22:2693), which keeps few effects that happen to agree from being too sure.
    """
    values, squares = np.asarray(effects, dtype=float), np.square(np.asarray(errors, dtype=float))
    df = len(values) - 1

    def spread(between: float) -> tuple[float, float, float]:
        weights = 1 / (squares + between)
        mean = float(weights @ values / weights.sum())
        return mean, float(weights @ np.square(values - mean)), float(weights.sum())

    most = float(np.ptp(values)) ** 2 * len(values) + 1.0
    between = 0.0 if spread(0.0)[1] <= df else float(optimize.brentq(lambda v: spread(v)[1] - df, 0.0, most))
    mean, square, weight = spread(between)
    reach = -float(special.stdtrit(df, (1 - level) / 2)) * math.sqrt(max(square / df, 1.0) / weight)
    return Mean(mean, max(mean - reach, -1.0), min(mean + reach, 1.0), between)
