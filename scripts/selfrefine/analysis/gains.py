"""Trained checkpoints against those they started from, by seed and over seeds (comparisons.csv)."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from selfrefine.analysis import effects, statistics
from selfrefine.analysis.accuracy_tables import FACTS, differing, start_of
from selfrefine.analysis.pass_rate import test_of
from selfrefine.analysis.seed_variance import moderated
from selfrefine.errors import UserError
from selfrefine.schema.claim_results import LogOdds

COLUMNS = [*FACTS, "seed", "against", "evaluation", "n", "difference", "low", "high", "gained", "lost", "p", "test"]
COLUMNS += ["holds_for", "log_odds", "log_odds_low", "log_odds_high", "seeds", "mean_difference"]
COLUMNS += ["checkpoints_low", "checkpoints_high", "runs_low", "runs_high", "differs", "samples"]
Gap = tuple[np.ndarray, np.ndarray]


def comparisons_table(answers: pd.DataFrame, level: float, training: Mapping[str, str]) -> pd.DataFrame:
    """comparisons.csv: each trained checkpoint against the arm it started from, on the same items.

    `training`: the log of each checkpoint's training. Log odds and the first interval are of the one checkpoint; the
    means of the arm's seeds, with the intervals for these checkpoints and for new training runs, stand beside.
    """
    groups = {key: group for key, group in answers.groupby(["checkpoint", "evaluation"], sort=False) if key[0]}
    rows: list[dict[str, Any]] = []
    arms: dict[tuple[Any, ...], list[Gap]] = {}
    for (checkpoint, evaluation), group in groups.items():
        start = start_of(checkpoint, group.student.iloc[0])
        control = groups.get((start, evaluation))
        if start is None or control is None:
            continue
        a, b = paired_outcomes(group, control)
        estimate, low, high = statistics.difference(a[None], b[None], level)
        gained, lost, p = statistics.mcnemar(a, b)
        odds = effects.log_odds(a[None], b[None], statistics.paired(a[None], b[None]), level)
        files = group.samples.iloc[0], control.samples.iloc[0]
        row = {name: group[name].iloc[0] for name in [*FACTS, "seed"]}
        arms.setdefault((*(row[name] for name in FACTS), control.arm.iloc[0], evaluation), []).append((a, b))
        rows.append(
            row
            | {"against": control.arm.iloc[0], "evaluation": evaluation, "n": len(a)}
            | {"difference": estimate, "low": low, "high": high, "gained": gained, "lost": lost, "p": p}
            | {"test": test_of(a, b), "holds_for": "this checkpoint"}
            | dict(zip(("log_odds", "log_odds_low", "log_odds_high"), _numbers(odds), strict=True))
            | {"differs": differing(training.get(checkpoint), training.get(start), *files), "samples": " ".join(files)}
        )
    over_seeds = means(arms, level)
    for row in rows:
        row |= over_seeds[(*(row[name] for name in FACTS), row["against"], row["evaluation"])]
    return pd.DataFrame(rows, columns=COLUMNS)


def paired_outcomes(group: pd.DataFrame, control: pd.DataFrame) -> Gap:
    """bool[items] of a checkpoint and of the one it started from, or the shares of several answers."""
    correct = group.set_index("item").correct.sort_index()
    before = control.set_index("item").correct.reindex(correct.index)
    if before.isna().any() or len(control) != len(group):
        raise UserError(f"{group.samples.iloc[0]}: other items than {control.samples.iloc[0]}; evaluate both again")
    of_shares = bool(group.several.any() or control.several.any())
    a, b = (side.to_numpy().astype(float if of_shares else bool) for side in (correct, before))
    return a, b


def means(arms: Mapping[tuple[Any, ...], list[Gap]], level: float) -> dict[tuple[Any, ...], dict[str, float]]:
    """Of each arm on each benchmark the mean difference over seeds, and both of its intervals.

    The variance between seeds is estimated over the benchmarks and arms of one student and phase.
    """
    found: dict[tuple[Any, ...], dict[str, float]] = {}
    places = {name: place for place, name in enumerate(FACTS)}
    stages: dict[Any, list[tuple[Any, ...]]] = {}
    for key in arms:
        stages.setdefault((key[places["student"]], key[places["arm"]], key[-2]), []).append(key)
    for keys in stages.values():
        parts = []
        for key in keys:
            if len({len(a) for a, _ in arms[key]}) > 1:
                raise UserError(f"{key[places['arm']]} on {key[-1]}: seeds have other items; evaluate again")
            treated, control = (np.stack(side) for side in zip(*arms[key], strict=True))
            parts.append(statistics.paired(treated, control))
        runs = [
            tuple(key[places[name]] for name in ("teacher", "share", "select")) + (lineage(key, places),)
            for key in keys
        ]
        for key, of in zip(keys, moderated(parts, runs), strict=True):
            low, high = statistics.interval(statistics.these_checkpoints(of), level)
            runs_low, runs_high = statistics.interval(of, level) if of.seeds > 1 else (math.nan, math.nan)
            found[key] = {"seeds": of.seeds, "mean_difference": of.mean, "checkpoints_low": low}
            found[key] |= {"checkpoints_high": high, "runs_low": runs_low, "runs_high": runs_high}
    return found


def lineage(key: tuple[Any, ...], places: Mapping[str, int]) -> Any:
    """The benchmark of the first training, which all later trainings of its runs share."""
    return key[places["task"]] or key[places["refine_task"]]


def _numbers(odds: LogOdds | None) -> tuple[float, float, float]:
    """The log odds as numbers; an end without a limit is infinite."""
    if odds is None:
        return math.nan, math.nan, math.nan
    low, high = odds["low"], odds["high"]
    return odds["value"], -math.inf if low is None else low, math.inf if high is None else high
