"""Chooses items that are unlike each other, by a determinantal point process (DPP).

This is greedy MAP inference. The kernel is L = diag(q) V V' diag(q), with an item's quality q and, as the rows of V,
embeddings of length 1. Each time that item is taken which enlarges det(L) of those taken most: by q^2 and the part of
its embedding that those taken do not span (Chen, Zhang and Zhou 2018, arXiv 1709.05135). Their incremental Cholesky
factor has a row of inner products with one more direction for each item that is taken. As the kernel's factor V is at
hand, that row is V times the direction itself, so neither the kernel nor the factor is kept: memory is that of V and of
the directions, n d + min(k, d) d numbers, and time n d k.

At most d items span all there is, and then no determinant differs from 0. What is left is chosen from in further
rounds, each a process of its own on the items that are not taken yet.
"""

from typing import NamedTuple

import numpy as np

# What is left of an embedding, as a share of its squared length, below which it counts as spanned: float32's rounding
# of two equal embeddings leaves a hundredth of it.
SPANNED = 1e-10
# Logarithms of gains that differ by less are equal: the order of the items decides.
TIE = 1e-9


class Spread(NamedTuple):
    """The places of the items, in the order in which they were taken, and how many rounds it took."""

    taken: list[int]
    rounds: int


def spread(vectors: np.ndarray, number: int, log_quality: np.ndarray | None = None) -> Spread:
    """The first `number` items of the greedy order; of equal ones, the first in the order of the rows.

    `vectors` are embeddings [items, width]; `log_quality` are logarithms of the items' qualities, without which all are
    alike. Fewer items are the beginning of more.
    """
    found = _unit(vectors)
    gains = np.zeros(len(found)) if log_quality is None else 2 * np.asarray(log_quality, dtype=np.float64)
    is_free: np.ndarray = np.ones(len(found), dtype=bool)
    taken: list[int] = []
    rounds = 0
    while len(taken) < min(number, len(found)):
        rounds += 1
        taken += _one_round(found, min(number, len(found)) - len(taken), gains, is_free)
    return Spread(taken, rounds)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """The rows scaled to length 1, in float64; a row of zeros stays."""
    exact = np.array(vectors, dtype=np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    return np.divide(exact, lengths, out=exact, where=lengths > 0)


def _one_round(vectors: np.ndarray, number: int, gains: np.ndarray, is_free: np.ndarray) -> list[int]:
    """Items of one process, until there are `number` or they span all that are left; marks them as taken."""
    left = np.square(vectors).sum(axis=1)
    directions = np.zeros((min(number, vectors.shape[1]), vectors.shape[1]))
    taken: list[int] = []
    while len(taken) < number:
        is_open = is_free & (left > SPANNED)
        if not is_open.any() or len(taken) == len(directions):
            break
        score = np.full(len(vectors), -np.inf)
        score[is_open] = gains[is_open] + np.log(left[is_open])
        place = int(np.argmax(score >= score.max() - TIE))
        direction = _beside(vectors[place], directions[: len(taken)])
        taken.append(place)
        is_free[place] = False
        if direction is None:
            left[place] = 0.0
            continue
        directions[len(taken) - 1] = direction
        left -= np.square(vectors @ direction)
    if not taken:
        # Embeddings of zeros alone are left: nothing tells them apart.
        rest = np.flatnonzero(is_free)[:number]
        is_free[rest] = False
        return [int(place) for place in rest]
    return taken


def _beside(vector: np.ndarray, directions: np.ndarray) -> np.ndarray | None:
    """The direction of what others leave of a vector; they are taken away twice, as rounding leaves some of them."""
    rest = vector - directions.T @ (directions @ vector)
    rest -= directions.T @ (directions @ rest)
    length = float(np.linalg.norm(rest))
    return rest / length if length > 0 else None
