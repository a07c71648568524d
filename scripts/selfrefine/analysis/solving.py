"""pass@k and maj@k of the answers sampled from an arm, with intervals over seeds and items.

An item's samples are averaged before, for they are no independent trials.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import special

from selfrefine.analysis import statistics
from selfrefine.analysis.pass_at_k import MEASURES, Sample, solved
from selfrefine.analysis.pass_rate import pass_rate


def interval(values: np.ndarray, level: float) -> tuple[float, float]:
    """The interval of the mean of float[seeds, items], each in [0, 1]; NaN where a seed left an item out.

    It is that of an accuracy, and wider than need be where items are solved in part.
    Where seeds drew items of their own, a seed's mean is one observation, and the interval is Student's over seeds.
    """
    if not np.isnan(values).any():
        _, low, high, _ = statistics.accuracy(values, level)
        return low, high
    means = np.nanmean(values, axis=1)
    reach = -special.stdtrit(len(means) - 1, (1 - level) / 2) * means.std(ddof=1) / math.sqrt(len(means))
    return max(0.0, float(means.mean() - reach)), min(1.0, float(means.mean() + reach))


def interval_of_answers(values: np.ndarray, level: float) -> tuple[float, float]:
    """The interval of the mean of float[seeds, items] of answers to a test split, which all seeds have in common."""
    _, low, high, _ = pass_rate(values, level)
    return low, high


def summarised(
    files: Sequence[Sequence[Sample]],
    level: float,
    interval: Callable[[np.ndarray, float], tuple[float, float]] = interval,
) -> pd.DataFrame:
    """One row per style, measure and k: {style, measure, k, seeds, items, value, low, high}; `files`: one per seed."""
    by_seed = [solved(paths) for paths in files]
    rows = []
    for key in sorted(set.intersection(*map(set, by_seed)), key=lambda key: (key[0], MEASURES.index(key[1]), key[2])):
        frame = pd.DataFrame([seed[key] for seed in by_seed])
        values = frame.to_numpy(float)
        value = float(np.nanmean(values, axis=1).mean())
        rows.append((*key, len(files), frame.shape[1], value, *interval(values, level)))
    return pd.DataFrame(rows, columns=["style", "measure", "k", "seeds", "items", "value", "low", "high"])
