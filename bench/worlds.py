"""Simulated studies: how answers come about, rivals of the shipped tests, and tables of shares with their errors.

An answer is correct where the sum of item difficulty, a part of the arm and item, a part of the training seed
(correlated between the arms, which pair by seed) and noise is above a threshold. Seeds' spread is the standard
deviation of an arm's accuracy over seeds, in points.
"""

import math
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import special

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from selfrefine.analysis import statistics  # noqa: E402
from selfrefine.analysis.statistics import Components  # noqa: E402

LEVEL = 0.95
ALPHA = 0.05
DIFFICULTY, ARM_AND_ITEM = 0.75**2, 0.1  # variances, of 1 in all


class World:
    """How answers come about: the control's accuracy, the seeds' spread in points, whether the control has seeds."""

    def __init__(self, accuracy: float = 0.4, spread: float = 0.0, fixed_control: bool = False):
        self.accuracy = accuracy
        self.fixed_control = fixed_control
        density = math.exp(-(special.ndtri(accuracy) ** 2) / 2) / math.sqrt(2 * math.pi)
        self.seed_variance = (spread / 100 / density) ** 2

    def runs(self, generator: np.random.Generator, seeds: int, arms: int) -> np.ndarray:
        """float[arms, seeds, 1]: what training runs add; halves of the variance are a seed's and an arm's own."""
        shared = generator.standard_normal((1, seeds, 1))
        return math.sqrt(self.seed_variance / 2) * (shared + generator.standard_normal((arms, seeds, 1)))

    def study(
        self,
        generator: np.random.Generator,
        seeds: int,
        items: int,
        effects: list[float],
        runs: np.ndarray | None = None,
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """(treated, one for each effect; control), bool[seeds, items]; accuracies truly differ by the effects."""
        runs = self.runs(generator, seeds, len(effects) + 1) if runs is None else runs
        difficulty = math.sqrt(DIFFICULTY) * generator.standard_normal((1, items))

        def arm(accuracy: float, of_runs: np.ndarray) -> np.ndarray:
            own = math.sqrt(ARM_AND_ITEM) * generator.standard_normal((1, items))
            left = 1 - DIFFICULTY - ARM_AND_ITEM - self.seed_variance
            noise = math.sqrt(left) * generator.standard_normal((seeds, items))
            return special.ndtri(accuracy) + difficulty + own + of_runs + noise > 0

        if self.fixed_control:
            own = math.sqrt(ARM_AND_ITEM) * generator.standard_normal((1, items))
            control = special.ndtri(self.accuracy) * math.sqrt(DIFFICULTY + ARM_AND_ITEM) + difficulty + own > 0
        else:
            control = arm(self.accuracy, runs[-1])
        return [arm(self.accuracy + effect, one) for effect, one in zip(effects, runs, strict=False)], control

    def of_checkpoints(self, runs: np.ndarray, effect: float) -> float:
        """The true difference of the very checkpoints of these runs, over all items."""
        scale = math.sqrt(1 - self.seed_variance)
        treated, control = (
            special.ndtr((special.ndtri(accuracy) + one) / scale).mean()
            for accuracy, one in ((self.accuracy + effect, runs[0]), (self.accuracy, runs[-1]))
        )
        return float(treated - (self.accuracy if self.fixed_control else control))

    def truth(self, seeds: int, items: int, effect: float) -> Components:
        """The true variance components of the difference, from one study larger than any."""
        (treated,), control = self.study(np.random.default_rng(0), 200, 20000, [effect])
        return statistics.paired(treated, control)._replace(seeds=seeds, items=items)


class Shown(NamedTuple):
    """A table: what it shows, its columns, and how a row is made of a number of studies and a setting."""

    title: str
    header: list[str]
    settings: list[tuple[Any, ...]]
    row: Callable[..., list[Any]]


def share(hits: Sequence[bool], promised: float | None = None) -> str:
    """A share of studies in percent with its standard error, marked if it is an error rate above what is promised."""
    if not len(hits):
        return "–"
    p, n = float(np.mean(hits)), len(hits)
    error = math.sqrt(p * (1 - p) / n)
    beyond = promised is not None and p > promised + 3 * math.sqrt(promised * (1 - promised) / n)
    return f"{100 * p:.1f} ± {100 * error:.1f}{'!' if beyond else ''}"


def show(title: str, header: list[str], rows: Iterable[list]) -> None:
    cells = [header, *([str(cell) for cell in row] for row in rows)]
    print(f"\n{textwrap.fill(title, 100)}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}", flush=True)
    for row in cells[1:]:
        print(f"| {' | '.join(row)} |", flush=True)


def bootstrap_means(values: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    """float[resamples]: means of float[seeds, items] over resampled seeds and items, each resampled as a whole."""
    generator = np.random.default_rng(seed)
    seeds, items = values.shape
    rows = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    # Drawn one by one: counts of each item, as those of the few seeds, take several times as long.
    columns = generator.integers(items, size=(resamples, items))
    return np.take_along_axis(rows @ values, columns, axis=1).mean(axis=1) / seeds


def bootstrap_rejects(treated: np.ndarray, control: np.ndarray, seed: int, resamples: int = 200) -> bool:
    """Whether the percentile interval of the bootstrap over seeds and items leaves out 0."""
    means = bootstrap_means(treated.astype(float) - control, resamples, seed)
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    return not low <= 0 <= high


def items_alone_reject(treated: np.ndarray, control: np.ndarray) -> bool:
    """Whether the test that takes seeds for fixed, and items alone for drawn, rejects."""
    gaps = (treated.astype(float) - control).mean(axis=0)
    return gaps.any() and abs(gaps.mean()) > -special.ndtri(ALPHA / 2) * gaps.std() / math.sqrt(len(gaps))
