"""The figures: the same bytes at every drawing, intervals on every number, nothing on top of a legend or beyond the page."""

import csv
import itertools
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from conftest import run
from selfrefine import curves, figures, overview, shown
from selfrefine.arms import in_domain, read_table, whole
from selfrefine.files import write_jsonl

BENCHMARKS = {"csqa": "CommonsenseQA", "piqa": "PIQA", "gsm8k": "GSM8K", "multi": "MultiArith"}
FACTS = ["arm", "student", "teacher", "family", "task", "refine_task", "recipe", "share"]
STUDENTS = {"llama-2-7b": "llama", "mistral-7b": "mistral"}
TEACHERS = {"llama-2-70b": "llama", "mixtral-8x7b": "mistral", "gpt-3.5": "gpt"}


def plant(
    students=STUDENTS, teachers=TEACHERS, tasks=tuple(BENCHMARKS), shares=(50, 100), recipes=("cot",)
) -> pd.DataFrame:
    """A study's arms on every benchmark, with all arms but `cross`; the accuracies differ."""
    rows = []

    def add(arm: str, **facts) -> None:
        for place, task in enumerate(BENCHMARKS):
            value = 0.2 + 0.05 * (len(rows) % 9) + 0.02 * place
            numbers = {"accuracy": value, "low": value - 0.06, "high": value + 0.04, "tokens": 100 * value}
            rows.append(
                dict.fromkeys(FACTS, "")
                | {"share": np.nan}
                | facts
                | {"arm": arm, "evaluation": task, "n": 100}
                | numbers
            )

    for student, family in students.items():
        add("baseline", student=student)
        for share, task in itertools.product(shares, tasks):
            for recipe in recipes:
                add("refine-only", student=student, refine_task=task, recipe=recipe, share=share)
            for teacher, own in teachers.items():
                facts = {"student": student, "teacher": teacher, "task": task, "share": share}
                facts["family"] = "in" if own == family else "out"
                add("instruct", **facts)
                for recipe in recipes:
                    add("refine", refine_task=task, recipe=recipe, **facts)
    for teacher in teachers:
        add("teacher", teacher=teacher)
    return pd.DataFrame(rows)


def lengths(arms: pd.DataFrame) -> pd.DataFrame:
    return arms.assign(low=90 * arms.accuracy, high=110 * arms.accuracy)


def solving(students=tuple(STUDENTS), teachers=("", *TEACHERS), tasks=tuple(BENCHMARKS)) -> pd.DataFrame:
    rows = []
    for student, teacher, task, measure, k in itertools.product(students, teachers, tasks, ("pass", "maj"), (1, 2, 4)):
        facts = {
            "student": student,
            "teacher": teacher,
            "task": task if teacher else "",
            "after": "",
            "refine_task": task,
        }
        value = 0.3 + 0.1 * k * (measure == "pass")
        numbers = {"k": k, "items": 50, "value": value, "low": value - 0.05, "high": value + 0.05, "share": 100}
        rows += [facts | {"style": style, "measure": measure} | numbers for style in ("cot", "plain")]
    return pd.DataFrame(rows)


def yields() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    rates = solving()
    starts = rates[(rates.k == 1) & (rates.measure == "pass")]
    paths = starts.assign(paths=200, correct=60, committed=150)
    pairs = starts[starts["style"] == "cot"].assign(
        recipe="cot", items=50, items_with_pairs=30, dropped_no_chosen=15, dropped_same_text=0, dropped_no_rejected=5
    )
    return paths, pairs.assign(low=0.5, high=0.7), rates


def costs() -> pd.DataFrame:
    stages = ("teach", "instruct", "sample", "pair", "refine", "evaluate", "another")
    rows = [
        (s, arm, share, stage, 90 * share, 50 * share)
        for s in STUDENTS
        for arm in ("instruct", "refine")
        for share in (50, 100)
        for stage in stages
    ]
    return pd.DataFrame(rows, columns=["student", "arm", "share", "stage", "wall_seconds", "tokens"])


def logs(folder: Path) -> dict[str, str]:
    """Logs, by checkpoint, of an instruction, a refinement on pairs, and one on chosen texts alone."""
    step = {"step": 1, "loss": 0.5}
    pair = {"split": "validation", "margin": 0.1, "accuracy": 1.0}
    rows = {
        "a": [step],
        "b": [step | pair, step | pair | {"split": "train"}],
        "c": [step | {"split": "train", "margin": None, "accuracy": None}],
    }
    for name, lines in rows.items():
        write_jsonl(folder / name / "training.jsonl", lines)
    return {f"s/{name}": str(folder / name / "training.jsonl") for name in rows}


DRAWINGS = {
    "accuracy": lambda folder: overview.draw_accuracy(plant(), BENCHMARKS),
    "matrix": lambda folder: overview.draw_matrix(plant(), BENCHMARKS),
    "in-family": lambda folder: figures.draw_families(plant(), BENCHMARKS, ("in",), "accuracy"),
    "out-family": lambda folder: figures.draw_families(plant(), BENCHMARKS, ("in", "out"), "accuracy"),
    "several recipes": lambda folder: figures.draw_families(
        plant(recipes=("cot", "answer")), BENCHMARKS, ("in", "out"), "accuracy"
    ),
    "one benchmark": lambda folder: figures.draw_families(
        plant({"s": "x"}, {"t": "y"}, ("piqa",)), BENCHMARKS, ("in", "out"), "accuracy"
    ),
    "lengths": lambda folder: figures.draw_families(lengths(plant()), BENCHMARKS, ("in", "out"), "tokens"),
    "low-resource": lambda folder: figures.draw_low_resource(plant(shares=(25, 50, 75, 100)), BENCHMARKS, "llama-2-7b"),
    "low-resource, one teacher": lambda folder: figures.draw_low_resource(
        plant({"s": "x"}, {"t": "y"}, ("piqa",), recipes=("cot", "answer")), BENCHMARKS, "s"
    ),
    "solving": lambda folder: curves.draw_solving(solving(), BENCHMARKS, "llama-2-7b"),
    "yields": lambda folder: curves.draw_yields(*yields(), BENCHMARKS, "llama-2-7b"),
    "cost": lambda folder: curves.draw_cost(costs()),
    "training": lambda folder: curves.draw_training(logs(folder)),
}


@pytest.fixture
def style():
    with plt.rc_context(figures.STYLE):
        yield
    plt.close("all")


@pytest.mark.parametrize("name", DRAWINGS)
def test_nothing_overlaps_or_leaves_the_page(name, tmp_path, style):
    figure = DRAWINGS[name](tmp_path)
    figure.canvas.draw()
    renderer, page = figure.canvas.get_renderer(), figure.bbox
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes if axes.axison]
    boxes += [legend.get_window_extent(renderer) for legend in figure.legends]
    for box in boxes:
        assert page.x0 - 3 <= box.x0 and box.x1 <= page.x1 + 3 and page.y0 - 3 <= box.y0 and box.y1 <= page.y1 + 3, box
    for one, other in itertools.combinations(boxes, 2):
        width = min(one.x1, other.x1) - max(one.x0, other.x0)
        height = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert width < 3 or height < 3, (name, one, other)
    assert round(figure.get_size_inches()[0], 2) in (figures.COLUMN, figures.PAGE)


def test_bars_have_their_values_and_intervals_and_lines_are_the_teachers(style):
    arms = plant({"s": "x"}, {"t": "y"}, ("piqa",))
    figure = figures.draw_families(arms, BENCHMARKS, ("in", "out"), "accuracy")
    panel = figure.axes[0]
    shown = whole(arms)
    expected = in_domain(shown)[lambda rows: (rows.evaluation == "piqa") & (rows.arm != "refine-only")].set_index("arm")
    bars = ["baseline", "instruct", "refine"]
    assert [bar.get_height() for bar in panel.patches] == pytest.approx(list(100 * expected.accuracy[bars]))
    lines = [tuple(line.get_ydata()) for line in panel.lines if line.get_color() == "black"]
    assert lines[:3] == [pytest.approx((100 * expected.low[arm], 100 * expected.high[arm])) for arm in bars]
    assert lines[3] == pytest.approx((100 * expected.accuracy["teacher"],) * 2)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "baseline",
        "instruct",
        "refine",
        "teacher t (out-family)",
    ]


def test_in_family_bars_leave_out_the_other_teachers(style):
    figure = figures.draw_families(plant(), BENCHMARKS, ("in",), "accuracy")
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "llama-2-70b (in-family)" in texts and not any("gpt" in text for text in texts)
    assert all(len(panel.patches) == 2 * 3 for panel in figure.axes if panel.axison)


def test_arms_that_are_missing_leave_no_trace(style):
    arms = plant()
    arms = arms[~arms.arm.isin(("baseline", "refine", "refine-only"))]
    figure = figures.draw_families(arms, BENCHMARKS, ("in",), "accuracy")
    assert all(len(panel.patches) == 2 for panel in figure.axes if panel.axison)
    figures.draw_low_resource(arms, BENCHMARKS, "llama-2-7b")
    overview.draw_accuracy(arms, BENCHMARKS)
    overview.draw_matrix(arms, BENCHMARKS)


def test_a_cell_that_the_study_leaves_out_is_a_dash(style):
    arms = plant({"s": "x"}, {"t": "y"}, ("piqa",))
    arms = arms[~arms.arm.isin(("baseline", "refine-only")) & ((arms.evaluation == "piqa") | (arms.arm == "teacher"))]
    texts = [text.get_text() for text in overview.draw_matrix(arms, BENCHMARKS).axes[0].texts]
    assert texts.count("–") == 2 * (len(BENCHMARKS) - 1)
    assert sum("[" in text for text in texts) == 2 + len(BENCHMARKS)
    panels = overview.draw_accuracy(arms, BENCHMARKS).axes
    assert [panel.get_xlabel() for panel in panels] == ["n = 100"] * len(BENCHMARKS)


@pytest.mark.parametrize(("figure", "families"), [("in-family", ("in",)), ("out-family", ("in", "out"))])
def test_a_trace_finds_the_bars_that_are_drawn(style, tmp_path, figure, families):
    arms = plant(teachers={"llama-2-70b": "llama", "gpt-3.5": "gpt"})
    arms.to_csv(tmp_path / "arms.csv", index=False)
    with open(tmp_path / "arms.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    found = [row for row in shown.in_figure(figure, "", rows, "arms") if row["arm"] != "teacher"]
    panels = figures.draw_families(arms, BENCHMARKS, families, "accuracy").axes
    bars = [bar.get_height() for panel in panels for bar in panel.patches]
    assert sorted(100 * float(row["accuracy"]) for row in found) == pytest.approx(sorted(bars))
    assert len(shown.in_domain(rows)) == len(in_domain(arms))
    assert len(shown.whole(rows)) == len(whole(arms))


def test_the_largest_share_counts_where_shares_are_not_compared():
    assert set(whole(plant(shares=(25, 50))).share.dropna()) == {50}


@pytest.mark.parametrize("draw", [overview.draw_accuracy, overview.draw_matrix])
def test_rows_name_what_they_were_trained_on_by_title(draw):
    names = [label.get_text() for label in draw(plant(), BENCHMARKS).axes[0].get_yticklabels()]
    trained = [name for name in names if " on " in name]
    assert trained and all(any(title in name for title in BENCHMARKS.values()) for name in trained)
    assert not any(f"on {task}" in name for name in names for task in BENCHMARKS)


@pytest.mark.parametrize("figure", ["out-family", "low-resource"])
def test_a_figure_is_the_same_bytes_every_time(figure, tmp_path):
    tables = tmp_path / "tables"
    tables.mkdir()
    plant({"llama-2.5": "llama"}, tasks=("piqa", "csqa")).to_csv(tables / "arms.csv", index=False)
    student = "llama-2.5" if figure == "low-resource" else ""
    recipe = {"figure": figure, "student": student, "titles": BENCHMARKS}
    made = []
    for place in ("one", "two"):
        command = ["python", "scripts/plot.py", "--recipe", json.dumps(recipe), "--tables", tables / "record.json"]
        run(*command, "--record", tmp_path / place / "record.json")
        made.append({path.name: path.read_bytes() for path in (tmp_path / place).iterdir()})
    records = [json.loads(files.pop("record.json")) for files in made]
    name = f"{figure}-{student}" if student else figure
    assert set(made[0]) == {f"{name}.{suffix}" for suffix in ("svg", "pdf", "png")}
    assert made[0] == made[1]
    assert [list(record["inputs"]) for record in records] == [[str(tables / "arms.csv")]] * 2


def test_a_table_is_read_back_as_it_was_written(tmp_path):
    arms = plant()
    arms.to_csv(tmp_path / "arms.csv", index=False)
    pd.testing.assert_frame_equal(read_table(tmp_path, "arms"), arms, check_dtype=False)


def test_the_curves_are_labelled_with_the_checkpoints_that_a_listing_names(tmp_path, style):
    figure = curves.draw_training(logs(tmp_path))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["s/a", "s/b", "s/c", "validation"]
