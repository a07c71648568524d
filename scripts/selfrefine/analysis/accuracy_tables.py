"""Accuracy of checkpoints and arms, and of trained checkpoints against those they started from."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from selfrefine.analysis import statistics
from selfrefine.errors import UserError
from selfrefine.schema.results import EvaluatedCell, Facts
from selfrefine.store.environment import environment_differences
from selfrefine.store.files import read_json, read_jsonl
from selfrefine.store.provenance import record_of

FACTS = list(Facts.__annotations__)


def read_answers(cells: Sequence[EvaluatedCell], extractor: str) -> pd.DataFrame:
    """One row per cell and item: the cell's facts, the item's id, and what is known of the answer."""
    frames = []
    for cell in cells:
        rows = read_jsonl(Path(cell["samples"]))
        teacher = cell["arm"] == "teacher"
        frame = pd.DataFrame(
            {
                "item": [row["item"] if teacher else row["id"] for row in rows],
                "correct": [bool(row[extractor]) for row in rows],
                "legacy": [bool(row["legacy"]) for row in rows],
                "committed": [row["extracted"] is not None for row in rows],
                "chain": [bool(row["chain"]) for row in rows],
                "cut": [row["finish_reason"] == "length" for row in rows],
                "tokens": [row["tokens"] for row in rows],
            }
        )
        frames.append(frame.assign(**cell))
    return pd.concat(frames, ignore_index=True)


def accuracy_table(answers: pd.DataFrame, level: float) -> pd.DataFrame:
    """accuracy.csv: per checkpoint and evaluation task."""
    rows = []
    named = [*FACTS, "seed", "evaluation"]
    for facts, group in answers.groupby([*named, "checkpoint", "samples"], sort=False, dropna=False):
        n, correct = len(group), int(group.correct.sum())
        low, high = statistics.wilson(correct, n, level)
        *facts, checkpoint, samples = facts
        rows.append(
            dict(zip(named, facts, strict=True))
            | {"n": n, "correct": correct, "accuracy": correct / n, "low": low, "high": high}
            | {
                "legacy_accuracy": group.legacy.mean(),
                "committed": group.committed.mean(),
                "chains": group.chain.mean(),
                "cut": group.cut.mean(),
            }
            | {"mean_tokens": group.tokens.mean(), "checkpoint": checkpoint, "samples": samples}
        )
    return pd.DataFrame(rows)


def outcomes(group: pd.DataFrame) -> pd.DataFrame:
    """bool[seeds, items] of one arm on one task; every seed must have every item."""
    matrix = group.pivot(index="seed", columns="item", values="correct")
    if matrix.isna().any(axis=None):
        raise UserError(f"{group.samples.iloc[0]}: other items than in the arm's other seeds; evaluate again")
    return matrix.astype(bool)


def arms_table(answers: pd.DataFrame, level: float) -> pd.DataFrame:
    """arms.csv: per arm and evaluation task, over seeds."""
    rows = []
    for facts, group in answers.groupby([*FACTS, "evaluation"], sort=False, dropna=False):
        matrix = outcomes(group).to_numpy()
        estimate, low, high, method = statistics.accuracy(matrix, level)
        rows.append(
            dict(zip([*FACTS, "evaluation"], facts, strict=True))
            | {
                "seeds": matrix.shape[0],
                "n": matrix.shape[1],
                "accuracy": estimate,
                "low": low,
                "high": high,
                "level": level,
                "interval": method,
                "samples": " ".join(dict.fromkeys(group.samples)),
            }
        )
    return pd.DataFrame(rows)


def comparisons_table(answers: pd.DataFrame, level: float, training: Mapping[str, str]) -> pd.DataFrame:
    """comparisons.csv: each trained checkpoint against the arm it started from, on the same items.

    `training`: the log of each checkpoint's training.
    """
    groups = {key: group for key, group in answers.groupby(["checkpoint", "evaluation"], sort=False) if key[0]}
    rows = []
    for (checkpoint, evaluation), group in groups.items():
        start = start_of(checkpoint, group.student.iloc[0])
        control = groups.get((start, evaluation))
        if start is None or control is None:
            continue
        treated_correct = group.set_index("item").correct
        control_correct = control.set_index("item").correct.reindex(treated_correct.index)
        if control_correct.isna().any():
            raise UserError(f"{group.samples.iloc[0]}: other items than {control.samples.iloc[0]}; evaluate both again")
        a, b = treated_correct.to_numpy(bool), control_correct.to_numpy(bool)
        estimate, low, high = statistics.difference(a[None], b[None], level)
        gained, lost, p = statistics.mcnemar(a, b)
        files = group.samples.iloc[0], control.samples.iloc[0]
        rows.append(
            {name: group[name].iloc[0] for name in [*FACTS, "seed"]}
            | {"against": control.arm.iloc[0], "evaluation": evaluation, "n": len(a)}
            | {"difference": estimate, "low": low, "high": high, "gained": gained, "lost": lost, "mcnemar_p": p}
            | {"differs": differing(training.get(checkpoint), training.get(start), *files), "samples": " ".join(files)}
        )
    columns = [*FACTS, "seed", "against", "evaluation", "n", "difference", "low", "high", "gained", "lost", "mcnemar_p"]
    columns += ["differs", "samples"]
    return pd.DataFrame(rows, columns=columns)


def start_of(checkpoint: str, student: str) -> str | None:
    """The checkpoint that one was trained from; None for a base model."""
    if "/refine/" in checkpoint:
        return checkpoint.split("/refine/", 1)[0]
    return f"{student}/base" if "/instruct/" in checkpoint else None


def differing(trained: str | None, start: str | None, samples: str, against: str) -> str:
    """Versions and hardware that differ between two arms: in their evaluations, and in the trainings behind them.

    `trained` and `start` are the trainings' logs.
    """
    pairs = [(provenance_of(samples), provenance_of(against))]
    if trained and start:
        pairs.append((provenance_of(trained), provenance_of(start)))
    return "; ".join(dict.fromkeys(text for pair in pairs for text in environment_differences(*pair)))


@functools.cache
def provenance_of(path: str) -> dict[str, Any]:
    """The record beside an artifact."""
    found: dict[str, Any] = read_json(record_of(path))
    return found
