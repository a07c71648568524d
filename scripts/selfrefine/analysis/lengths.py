"""How long answers are, and whether training lengthens them: a gain in accuracy may be one of length."""

import math
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from selfrefine.analysis import statistics


def by_seed(group: pd.DataFrame) -> pd.DataFrame:
    """float[seeds, items]: the tokens of one arm's answers on one benchmark."""
    return group.pivot(index="seed", columns="item", values="tokens").astype(float)


def mean_and_interval(values: np.ndarray, level: float) -> list[float]:
    """[mean, low, high] of float[seeds, items], over seeds and items (analysis/statistics.py says how)."""
    parts = statistics.components(values)
    passing = statistics.critical(parts.seed_share, parts.df, 1 - level)
    reach = passing * math.sqrt(parts.variance(parts.seeds, parts.items))
    return [parts.mean, parts.mean - reach, parts.mean + reach]


def _joined(names: Iterable[str]) -> str:
    return " ".join(dict.fromkeys(names))


def lengths_table(
    answers: pd.DataFrame,
    facts: list[str],
    start_of: Callable[[str, str], str | None],
    level: float,
) -> pd.DataFrame:
    """lengths.csv: per arm and benchmark the mean tokens of an answer, and how many more than the arm it started from.

    `answers` has one row per answer with `facts`, seed, evaluation, checkpoint, samples, item and tokens; `start_of`
    names the checkpoint that a student's checkpoint was trained from. `longer` is paired by item and seed; it is empty
    where nothing came before.
    """
    starts = {key: group for key, group in answers.groupby(["checkpoint", "evaluation"], sort=False) if key[0]}
    rows = []
    for key, group in answers.groupby([*facts, "evaluation"], sort=False, dropna=False):
        matrix = by_seed(group)
        row = dict(zip([*facts, "evaluation"], key, strict=True))
        row |= {"seeds": matrix.shape[0], "n": matrix.shape[1]}
        row |= dict(zip(("tokens", "low", "high"), mean_and_interval(matrix.to_numpy(), level), strict=True))
        places = {
            seed: (start_of(checkpoint, row["student"]), row["evaluation"])
            for seed, checkpoint in zip(group.seed, group.checkpoint, strict=True)
        }
        before = {seed: starts[place] for seed, place in places.items() if place in starts}
        row["against"], gained, sources = "", [np.nan] * 3, []
        if len(before) == len(places):
            row["against"] = next(iter(before.values())).arm.iloc[0]
            sources = [before[seed].samples.iloc[0] for seed in matrix.index]
            control = np.stack(
                [before[seed].set_index("item").tokens[matrix.columns].to_numpy(float) for seed in matrix.index]
            )
            gained = mean_and_interval(matrix.to_numpy() - control, level)
        row |= dict(zip(("longer", "longer_low", "longer_high"), gained, strict=True)) | {"level": level}
        row |= {"samples": _joined(group.samples), "against_samples": _joined(sources)}
        rows.append(row)
    return pd.DataFrame(rows)
