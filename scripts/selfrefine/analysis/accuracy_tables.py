"""Accuracy of checkpoints and arms."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from selfrefine.analysis import statistics
from selfrefine.analysis.correctness import judged_rows, verdict
from selfrefine.analysis.pass_rate import pass_rate
from selfrefine.errors import UserError
from selfrefine.schema.results import SELECT, EvaluatedCell, Facts
from selfrefine.schema.rows import extracted_of, item_of
from selfrefine.store.environment import environment_differences
from selfrefine.store.files import read_json
from selfrefine.store.provenance import record_of

FACTS = list(Facts.__annotations__)
VERDICTS = ("correct", "legacy", "committed", "chain", "cut")


def read_answers(cells: Sequence[EvaluatedCell], extractor: str) -> pd.DataFrame:
    """One row per cell and item: the cell's facts, the item's id, and what is known of the answer.

    Of several answers to an item, the means: `correct` is then the share that is.
    """
    frames = []
    for cell in cells:
        path = Path(cell["samples"])
        rows = judged_rows(path)
        verdicts = {"correct": extractor, "legacy": "legacy", "chain": "chain"}
        frame = pd.DataFrame(
            {"item": [item_of(row) for row in rows]}
            | {name: [verdict(row, key, path, n) for n, row in enumerate(rows, 1)] for name, key in verdicts.items()}
            | {
                "committed": [extracted_of(row, extractor) is not None for row in rows],
                "cut": [row["finish_reason"] == "length" for row in rows],
                "tokens": [row["tokens"] for row in rows],
            }
        )
        several = bool(frame["item"].duplicated().any())
        if several:
            frame = frame.groupby("item", sort=False).mean().reset_index()
        frames.append(frame.assign(several=several, **{SELECT: "", **cell}))
    found = pd.concat(frames, ignore_index=True)
    # Verdicts beside shares, as of teachers beside students that answer several times.
    mixed = [name for name in VERDICTS if found[name].dtype == object]
    return found.astype(dict.fromkeys(mixed, float))


def accuracy_table(answers: pd.DataFrame, level: float) -> pd.DataFrame:
    """accuracy.csv: per checkpoint and evaluation task."""
    rows = []
    named = [*FACTS, "seed", "evaluation"]
    for facts, group in answers.groupby([*named, "checkpoint", "samples"], sort=False, dropna=False):
        n, verdicts = len(group), outcomes_of(group.correct.to_numpy())
        if verdicts.dtype == bool:
            correct: float = int(verdicts.sum())
            low, high = statistics.wilson(int(correct), n, level)
        else:
            correct = float(verdicts.sum())
            _, low, high, _ = pass_rate(verdicts[None], level)
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


def outcomes(group: pd.DataFrame) -> np.ndarray:
    """bool[seeds, items] of one arm on one task, or shares; every seed must have every item."""
    matrix = group.pivot(index="seed", columns="item", values="correct")
    if matrix.isna().any(axis=None):
        raise UserError(f"{group.samples.iloc[0]}: other items than in the arm's other seeds; evaluate again")
    return outcomes_of(matrix.to_numpy())


def outcomes_of(correct: np.ndarray) -> np.ndarray:
    """Outcomes as bool or, where items were answered several times, as the shares that are correct."""
    shares: np.ndarray = correct.astype(float)
    return shares.astype(bool) if np.isin(shares, (0.0, 1.0)).all() else shares


def arms_table(answers: pd.DataFrame, level: float) -> pd.DataFrame:
    """arms.csv: per arm and evaluation task, over seeds."""
    rows = []
    for facts, group in answers.groupby([*FACTS, "evaluation"], sort=False, dropna=False):
        matrix = outcomes(group)
        estimate, low, high, method = (statistics.accuracy if matrix.dtype == bool else pass_rate)(matrix, level)
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


def start_of(checkpoint: str, student: str) -> str | None:
    """The checkpoint that one was trained from; None for a base model, and for a teacher, which has no checkpoint."""
    if not checkpoint:
        return None
    # student/base or student/instruct/teacher/task/share/seed, then the refinements; a name may be "refine", too.
    parts = checkpoint.split("/")
    began = 2 if parts[1] == "base" else 6
    if len(parts) > began:
        return "/".join(parts[:began])
    return f"{student}/base" if parts[1] == "instruct" else None


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
