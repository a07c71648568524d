"""Held-out pairs at the update whose weights a refinement kept, and whether other weights ordered more correctly."""

import math
from pathlib import Path

import pandas as pd
import pytest

from selfrefine.analysis.held_out import at_kept_update
from selfrefine.analysis.refinements import refinements_table
from selfrefine.report.details import held_out_table, worse
from selfrefine.report.study_tables import StudyTables
from selfrefine.store.files import write_json, write_jsonl

FACTS = {"student": "tiny", "teacher": "big", "task": "sums", "after": "", "refine_task": "sums", "share": "100"}


def validated(step, loss, accuracy, chosen=-1.0, rejected=-2.0):
    return {
        "step": step,
        "split": "validation",
        "loss": loss,
        "accuracy": accuracy,
        "chosen_token_logp": chosen,
        "rejected_token_logp": rejected,
    }


def updated(step, loss=0.5, accuracy=1.0):
    return validated(step, loss, accuracy) | {"split": "train"}


@pytest.mark.parametrize(
    ("log", "kept", "expected"),
    [
        ([validated(10, 0.6, 0.9, -2), validated(20, 0.5, 0.8)], 20, (0.5, 0.8, 0.9, 10, -2)),
        ([validated(10, 0.5, 0.8), validated(20, 0.6, 0.9, -3)], 10, (0.5, 0.8, 0.9, 20, -3)),
        ([validated(10, 0.6, 0.9, -2), validated(20, 0.5, 0.9)], 20, (0.5, 0.9, 0.9, 10, -2)),
        # What was trained on does not count, however well it is ordered.
        ([updated(1), updated(10), validated(10, 0.6, 0.7)], 10, (0.6, 0.7, 0.7, 10, -1)),
        # Objectives without pairs.
        ([validated(10, 0.6, None), validated(20, 0.7, None)], 10, (0.6, math.nan, math.nan, 10, -1)),
    ],
)
def test_the_kept_update_is_held_against_the_one_of_highest_accuracy(log, kept, expected):
    found = at_kept_update(log, kept)
    names = ("loss", "accuracy", "highest_accuracy", "highest_update", "highest_chosen_token_logp")
    assert tuple(found[name] for name in names) == pytest.approx(expected, nan_ok=True)


def test_without_a_validation_there_is_nothing_to_say():
    assert at_kept_update([updated(1)], 1) == {}


@pytest.mark.parametrize(
    ("n", "kept", "highest", "expected"),
    [
        (57, 0.74, 0.95, 1),  # by McNemar's exact test at least 12 lost of 57, none gained: p below 0.001
        (57, 0.91, 0.95, 0),
        (3, 2 / 3, 1.0, 0),
        (1, 0.0, 1.0, 0),
        (6, 0.0, 1.0, 1),
        (400, 0.90, 0.95, 1),
        (400, 0.95, 0.95, 0),
        (400, None, None, 0),
    ],
)
def test_kept_weights_are_worse_only_beyond_chance(tmp_path, n, kept, highest, expected):
    log = recorded(tmp_path, "first", [validated(10, 0.6, highest), validated(20, 0.5, kept)], n)
    (row,) = made(tmp_path, [log])
    assert (row["worse"], row["held_out"], row["kept_update"], row["seed"]) == (expected, n, 20, "0")


@pytest.mark.parametrize(
    ("kept", "chosen", "expected"),
    [
        (14 / 19, -0.75, 1),  # as far as one of the pilot, which cost its student 28 points
        (14 / 19, -0.28, 0),
        (17 / 19, -0.75, 0),
        (0.85, -0.36, 1),
    ],
)
def test_few_pairs_tell_with_the_likelihood_of_their_chosen_responses(tmp_path, kept, chosen, expected):
    highest = 0.95 if kept == 0.85 else 18 / 19
    log = recorded(tmp_path, "first", [validated(10, 0.6, highest, -0.25), validated(20, 0.5, kept, chosen)], 19)
    assert made(tmp_path, [log])[0]["worse"] == expected


def test_trainings_that_learned_from_no_pairs_have_no_row(tmp_path):
    instructed = recorded(tmp_path, "instructed", [{"step": 1, "loss": 1.0}], 0, stage="instruct")
    online = recorded(tmp_path, "online", [{"step": 1, "reward": 1.0}], 0, stage="refine_online")
    unrefined = recorded(tmp_path, "unrefined", [], 0, updates=0)
    assert made(tmp_path, [instructed, online, unrefined]) == []


def test_a_reader_is_told_by_whom_and_when(tmp_path):
    log = recorded(tmp_path, "first", [validated(10, 0.6, 1.0, -0.4), validated(20, 0.5, 0.2, -2.345)], 40)
    unpaired = recorded(tmp_path, "unpaired", [validated(20, 0.5, None)], 40)
    rows = made(tmp_path, [log, unpaired])
    table = held_out_table(rows, {"sums": "Sums"})
    first, second = ([str(cell) for cell in row] for row in table.rows)
    assert first[2:] == ["20", "40", "20", "0.500", "20.0", "-2.35", "-2.00", "10", "100.0", "-0.40"]
    assert second[6] == "–" and second[7:9] == ["-1.00", "-2.00"] and second[9:] == ["–"] * 3
    assert worse(rows) == rows[:1]


def recorded(folder: Path, name, rows, held_out, stage="refine", updates=20):
    """A training's log with a record beside it."""
    (folder / name).mkdir()
    log = folder / name / "training.jsonl"
    write_jsonl(log, rows)
    figures = {"updates": updates, "kept_update": updates, "pairs": {"train": 9, "validation": held_out}}
    write_json(log.with_name("record.json"), {"stage": stage, "figures": figures})
    return str(log)


def made(folder: Path, logs):
    """The rows that a reader of the tables gets."""
    origins = {log: FACTS | {"recipe": "cot", "seed": "0"} for log in logs}
    table = refinements_table(logs, origins, 0.95)
    assert isinstance(table, pd.DataFrame)
    table.to_csv(folder / "refinements.csv", index=False)
    return StudyTables(folder).refinements()
