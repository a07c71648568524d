"""Levels for studies that are judged more than once, as where seeds are added until it is decided.

Looks may be declared, as numbers of seeds. Then the level is spent over them (Lan & DeMets 1983, Biometrika 70:659):
by the look at a share t of the last look's seeds, errors have at most probability

    4 - 4 Phi(z / sqrt(t))       like O'Brien and Fleming's boundaries: little early, nearly all at the end
    alpha log(1 + (e - 1) t)     like Pocock's: about as much at every look

Boundaries are those of a process with independent increments (Armitage, McPherson & Rowe 1969, Journal of the Royal
Statistical Society A 132:235) and are used as nominal levels of p (Jennison & Turnbull 2000, Group Sequential
Methods, chapter 3). All looks share their items, so their statistics depend on each other more than that, and the
errors are fewer. z is the normal quantile of 1 - alpha / 4.

Or no look need be declared: at S seeds the level is alpha / (S (S - 1)). These add up to alpha over all S, so that
errors have at most probability alpha however often one looks, whenever one stops, and whatever dependence there is
(Boole's inequality; the same weights make the confidence sequences of Darling & Robbins 1967, PNAS 58:66, hold for
all times).
"""

import functools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import optimize, special

Spending = Literal["obrien-fleming", "pocock"]
Looks = tuple[int, ...] | Literal["any"] | None
GRID = 1201
FARTHEST = 38.0  # beyond it the normal tail is 0
REACH = 8.0  # of the grid, in standard deviations


def level_at(seeds: int, alpha: float, looks: Looks, spending: Spending = "obrien-fleming") -> float:
    """The nominal level of p at so many seeds; 0 at a look that was not declared, at which nothing is decided.

    One seed is no look: its verdict is on its checkpoint, and says nothing of the training runs that looks are about.
    """
    if looks is None or seeds == 1:
        return alpha
    if looks == "any":
        return alpha / (seeds * (seeds - 1))
    if seeds not in looks:
        return 0.0
    return nominal_levels(tuple(look / looks[-1] for look in looks), alpha, spending)[looks.index(seeds)]


def spent(time: float, alpha: float, spending: Spending) -> float:
    """The probability of errors that is spent by a share of the last look's information."""
    if spending == "pocock":
        return alpha * math.log(1 + (math.e - 1) * time)
    return float(4 * special.ndtr(special.ndtri(alpha / 4) / math.sqrt(time)))


@functools.lru_cache(maxsize=64)
def nominal_levels(times: Sequence[float], alpha: float, spending: Spending) -> list[float]:
    """The two-sided nominal level at each look: `times` as shares of the last look's information, ascending."""
    points, density, before, used, levels = np.zeros(1), np.ones(1), 0.0, 0.0, []
    for time in times:
        allowed, step = spent(time, alpha, spending) - used, math.sqrt(time - before)
        z = _boundary(points, density, step, math.sqrt(time), allowed)
        levels.append(float(2 * special.ndtr(-z)))
        # What goes on: the density between the boundaries, on a grid with trapezoid weights.
        bound = min(z, REACH) * math.sqrt(time)
        last, points = points, np.linspace(-bound, bound, GRID)
        weights = np.full(GRID, points[1] - points[0])
        weights[[0, -1]] /= 2
        kernel = np.exp(-np.square((points[:, None] - last) / step) / 2) / (step * math.sqrt(2 * math.pi))
        density = weights * (kernel @ density)
        before, used = time, used + allowed
    return levels


def _boundary(points: np.ndarray, density: np.ndarray, step: float, scale: float, allowed: float) -> float:
    """The z that is passed at this look, and at none before, with the probability that is allowed."""

    def excess(z: float) -> float:
        ends = special.ndtr((points - z * scale) / step) + special.ndtr((-points - z * scale) / step)
        return float(density @ ends) - allowed

    return float(optimize.brentq(excess, 0.0, FARTHEST, xtol=1e-10))
