"""Uncertainty of accuracies and of their differences. Outcomes are matrices bool[seeds, items]: the same items for every seed."""

import numpy as np
from scipy import stats


def wilson(correct: int, n: int, level: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion (scipy)."""
    interval = stats.binomtest(correct, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_means(values: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    """Means of float[seeds, items] over resampled seeds and resampled items, float[resamples].

    Seeds and items are crossed, not nested, so each is resampled as a whole; with one seed this is the bootstrap over items.
    """
    generator = np.random.default_rng(seed)
    seeds, items = values.shape
    means = np.empty(resamples)
    for i in range(resamples):
        rows = generator.integers(seeds, size=seeds)
        columns = np.bincount(generator.integers(items, size=items), minlength=items)
        means[i] = values[rows].mean(axis=0) @ columns / items
    return means


def accuracy(outcomes: np.ndarray, level: float, resamples: int) -> tuple[float, float, float, str]:
    """(estimate, low, high, method) of an accuracy: Wilson's interval for one seed, a bootstrap over seeds and items for more."""
    estimate = float(outcomes.mean())
    if outcomes.shape[0] == 1:
        low, high = wilson(int(outcomes.sum()), outcomes.shape[1], level)
        return estimate, low, high, "wilson"
    low, high = np.quantile(bootstrap_means(outcomes.astype(float), resamples), [(1 - level) / 2, (1 + level) / 2])
    return estimate, float(low), float(high), "bootstrap over seeds and items"


def difference(treated: np.ndarray, control: np.ndarray, level: float, resamples: int) -> tuple[float, float, float]:
    """(estimate, low, high) of the accuracy difference treated - control, paired by item and seed (percentile bootstrap)."""
    gap = treated.astype(float) - control.astype(float)
    low, high = np.quantile(bootstrap_means(gap, resamples), [(1 - level) / 2, (1 + level) / 2])
    return float(gap.mean()), float(low), float(high)


def mcnemar(treated: np.ndarray, control: np.ndarray) -> tuple[int, int, float]:
    """(only treated right, only control right, exact two-sided p) of one seed's paired outcomes, bool[items]."""
    gained, lost = int((treated & ~control).sum()), int((~treated & control).sum())
    return gained, lost, float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
