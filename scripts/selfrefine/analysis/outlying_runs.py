"""Training runs that came out unlike the others of their arm, as collapsed ones do."""

import math
from collections.abc import Sequence

import numpy as np

# The expected length of the shortest half of so many standard normal values, from two on (tests simulate them).
HALVES = (1.128, 0.453, 0.990, 0.647, 0.988, 0.758, 1.008, 0.833, 1.029, 0.887)
FAR = 5.0  # robust standard errors
LEAST = 0.10  # of accuracy: less is no collapse, whatever its error


def outlying(accuracies: Sequence[float], items: int) -> list[int]:
    """Which seeds' accuracies lie far from the median of their arm's other seeds; needs three seeds.

    Far is five robust standard errors, and ten accuracy points at least. The error is the binomial one of the seed
    and of the median, and the others' spread: the length of their shortest half over what it is of normal values
    (Rousseeuw & Leroy 1987, Robust Regression and Outlier Detection, section 4.2), which outliers among them leave
    alone.
    """
    values = np.asarray(accuracies, dtype=float)
    if len(values) < 3:
        return []
    found = []
    for place, value in enumerate(values):
        others: np.ndarray = np.delete(values, place)
        middle = float(np.median(others))
        spread = shortest_half(others) / HALVES[min(len(others) - 2, len(HALVES) - 1)]
        mean = (middle * len(others) + value) / len(values)
        binomial = mean * (1 - mean) / items * (1 + 1 / len(others))
        if abs(value - middle) > max(FAR * math.sqrt(spread**2 + binomial), LEAST):
            found.append(place)
    return found


def shortest_half(values: np.ndarray) -> float:
    """The length of the shortest interval that holds more than half of the values."""
    ordered, more = np.sort(values), len(values) // 2
    return float((ordered[more:] - ordered[: len(ordered) - more]).min())


def unseen(seeds: int, level: float) -> float:
    """The highest share of collapsing runs with which so many runs all stay whole with probability 1 - level."""
    return float(1 - (1 - level) ** (1 / seeds))
