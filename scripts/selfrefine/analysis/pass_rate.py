"""pass@1 from several answers to each item, with its interval over samples."""

from typing import Literal

import numpy as np

from selfrefine.analysis import statistics


def pass_rate(shares: np.ndarray, level: float) -> tuple[float, float, float, str]:
    """(estimate, low, high, method) of pass@1, from the shares of correct samples float[seeds, items].

    A score interval as `accuracy` has it. Its number of items is what independent answers would take to vary as the
    shares do, so more samples of an item narrow it.
    """
    parts = statistics.components(shares)
    passing = statistics.critical(parts.seed_share, parts.df, 1 - level)
    spread, variance = statistics.of_accuracy(parts.mean), parts.variance(parts.seeds, parts.items)
    n = spread / variance if variance and spread else parts.items
    method = "wilson over samples" if parts.seeds == 1 else "wilson over samples, seeds and items"
    return parts.mean, *statistics.score_interval(parts.mean, statistics.of_accuracy, n, passing, 0.0), method


def test_of(treated: np.ndarray, control: np.ndarray) -> Literal["mcnemar", "score"]:
    """Which test `statistics.mcnemar` makes of two sides: a score test, where one has shares."""
    return "mcnemar" if treated.dtype == control.dtype == bool else "score"
