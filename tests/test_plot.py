"""The figures: the same bytes at every drawing, every number with its interval, nothing overlaps."""

import csv
import itertools
import json
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from conftest import run
from selfrefine.report.figures import style, wording
from selfrefine.report.figures.accuracy_points import draw_accuracy
from selfrefine.report.figures.claim_dots import draw_claims, levels_of
from selfrefine.report.figures.cost_bars import draw_cost
from selfrefine.report.figures.family_bars import draw_families
from selfrefine.report.figures.sampling_yields import draw_solving, draw_yields
from selfrefine.report.figures.selection_curves import draw_selection
from selfrefine.report.figures.share_curves import draw_low_resource
from selfrefine.report.figures.training_curves import Run, draw_training
from selfrefine.report.labels import UNREFINED, checkpoint_label
from selfrefine.report.selection import in_domain, in_figure, whole
from selfrefine.report.study_tables import StudyTables
from selfrefine.schema.ways import WAYS
from selfrefine.store.files import write_jsonl

BENCHMARKS = {"csqa": "CommonsenseQA", "piqa": "PIQA", "gsm8k": "GSM8K", "multi": "MultiArith"}
FACTS = ["arm", "student", "teacher", "family", "task", "refine_task", "recipe", "share"]
STUDENTS = {"llama-2-7b": "llama", "mistral-7b": "mistral"}
TEACHERS = {"llama-2-70b": "llama", "mixtral-8x7b": "mistral", "gpt-3.5": "gpt"}
LONG = {"a-student-whose-name-is-long-1.7b-instruct": "llama", "another-student-of-some-length-3b": "gpt"}
FIVE = {f"a-teacher-of-many-words-{number}": ("llama", "gpt")[number % 2] for number in range(5)}


def plant(
    students=STUDENTS,
    teachers=TEACHERS,
    tasks=tuple(BENCHMARKS),
    shares=(50, 100),
    recipes=("cot",),
    arms=None,
    unrefined=0,
) -> list[dict]:
    """The rows of a study's arms on every benchmark, with all arms but `cross`; the accuracies differ."""
    rows = []

    def add(arm: str, **facts) -> None:
        for place, task in enumerate(BENCHMARKS):
            value = 0.2 + 0.05 * (len(rows) % 9) + 0.02 * place
            numbers = {"accuracy": value, "low": value - 0.06, "high": value + 0.04, "tokens": 100 * value}
            numbers["unrefined"] = unrefined if arm.startswith("refine") else 0
            blank = dict.fromkeys(FACTS, "")
            if arms is None or arm in arms:
                rows.append(blank | facts | {"arm": arm, "evaluation": task, "n": 100, "seeds": 3} | numbers)

    for student, family in students.items():
        add("baseline", student=student)
        for share, task in itertools.product(map(str, shares), tasks):
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
    return rows


def rising(arms: list[dict]) -> list[dict]:
    """The rows with later students far better than earlier ones."""
    place = {student: number for number, student in enumerate(STUDENTS)}
    better = {"accuracy": 0.4, "low": 0.4, "high": 0.4}
    return [
        row | {name: row[name] + more * place.get(row["student"], 0) for name, more in better.items()} for row in arms
    ]


def lengths(arms: list[dict]) -> list[dict]:
    return [row | {"low": 90 * row["accuracy"], "high": 110 * row["accuracy"]} for row in arms]


def solving(students=tuple(STUDENTS), teachers=("", *TEACHERS), tasks=tuple(BENCHMARKS)) -> list[dict]:
    rows = []
    for student, teacher, task, measure, k in itertools.product(students, teachers, tasks, ("pass", "maj"), (1, 2, 4)):
        facts = {"student": student, "teacher": teacher, "task": task if teacher else "", "after": ""}
        facts |= {"refine_task": task, "share": "100", "measure": measure, "k": k, "items": 50}
        value = 0.3 + 0.1 * k * (measure == "pass")
        numbers = {"value": value, "low": value - 0.05, "high": value + 0.05}
        rows += [facts | {"style": style} | numbers for style in ("cot", "plain")]
    return rows


def yields(unrefined: int = 0, **design) -> tuple[list[dict], list[dict], list[dict]]:
    rates = solving(**design)
    starts = [row for row in rates if (row["k"], row["measure"]) == (1, "pass")]
    paths = [row | {"paths": 200, "correct": 60, "committed": 150} for row in starts]
    gave = {"recipe": "cot", "items": 50, "items_with_pairs": 30, "low": 0.5, "high": 0.7}
    gave |= {"seed": "0", "unrefined": unrefined}
    gave["dropped"] = {"no_chosen": 15, "same_text": 0, "no_rejected": 5}
    return paths, [row | gave for row in starts if row["style"] == "cot"], rates


def costs(students=tuple(STUDENTS), lacking: int = 0) -> list[dict]:
    stages = ("teach", "instruct", "sample", "pair", "refine", "evaluate", "another")
    of = itertools.product(students, ("instruct", "refine"), (50, 100), stages)
    columns = ("student", "arm", "share", "stage", "checkpoints", "unrefined", "wall_seconds", "tokens")
    return [
        dict(zip(columns, (student, arm, str(share), stage, 3, lacking, 90.0 * share, 50.0 * share), strict=True))
        for student, arm, share, stage in of
    ]


def comparison(difference: float, seeds=(0.1, 0.2, 0.2), verdict: str = "supported", level=0.95, **facts) -> dict:
    """A comparison of a claim, as claims.json has it; `seeds`: the difference of each."""
    blank = dict.fromkeys(("teacher", "against_teacher", "task", "refine_task"), "")
    known = {"arm": "refine", "against": "instruct", "student": "llama-2-7b", "share": 100, "evaluation": "csqa"}
    by_seed = [{"seed": n, "gained": max(100 * d, 0), "lost": max(-100 * d, 0)} for n, d in enumerate(seeds)]
    kinds = [("these checkpoints", 0.02)] + ([("new training runs", 0.15)] if len(seeds) > 1 else [])
    ends = [{"holds_for": of, "low": difference - reach, "high": difference + reach} for of, reach in kinds]
    numbers = {"difference": difference, "items": 100, "by_seed": by_seed, "verdict": verdict, "interval_level": level}
    return {**blank, **known, **numbers, "estimates": ends, "left_out": [], "unrefined": [], **facts}


def claims(students=tuple(STUDENTS), teachers=tuple(TEACHERS), tasks=("csqa", "gsm8k"), **more) -> list[dict]:
    """Three claims, one of each kind, with verdicts of each kind."""
    found = []
    for number, (says, level) in enumerate((("above", 0.95), ("not below", 0.9), ("about", 0.9)), 1):
        verdicts = itertools.cycle(("supported", "contradicted", "undecided"))
        rows = [
            comparison(
                0.1 * (number - 2), verdict=next(verdicts), level=level, student=student, teacher=teacher, task=task,
                refine_task=task, evaluation=task, **more
            )
            for student, teacher, task in itertools.product(students, teachers, tasks)
        ]  # fmt: skip
        parts = [{"title": "", "comparisons": rows}]
        claim = {"claim": number, "title": "Refined students beat instructed ones, and these the baseline"}
        found.append(claim | {"says": says, "recipe": "cot", "verdict": "undecided", "parts": parts})
    return found


POLICY = {"level": 0.95, "margin": 5.0}


def runs(folder: Path, student: str = "s", updates: int = 1) -> list[Run]:
    """An instruction, a refinement on pairs, and one on chosen responses alone, with their logs."""
    steps = [{"step": number + 1, "loss": 0.5 / (number + 1)} for number in range(updates)]
    pair = {"margin": 0.1, "accuracy": 1.0}
    kinds = {
        "instruct": steps,
        "refine": [step | pair | {"split": split} for step in steps for split in ("validation", "train")],
        "chosen": [step | {"split": "train", "margin": None, "accuracy": None} for step in steps],
    }
    found = []
    for name, lines in kinds.items():
        log = folder / name / "training.jsonl"
        write_jsonl(log, lines)
        facts = {"student": student, "teacher": "t", "task": "piqa", "share": "100", "seed": "0"}
        found.append(Run(facts | ({} if name == "instruct" else {"refine_task": "piqa", "recipe": name}), log))
    return found


def families(figure: str, arms: list[dict], value: str = "accuracy") -> plt.Figure:
    return draw_families(in_figure(figure, "", arms, "arms"), BENCHMARKS, value)


def shares(arms: list[dict], student: str) -> plt.Figure:
    return draw_low_resource(in_figure("low-resource", student, arms, "arms"), BENCHMARKS)


def chosen(arms: list[dict], student: str) -> plt.Figure:
    whole = [row | {"select": ""} for row in arms if row["share"] in ("", "100")]
    parts = [row for row in arms if row["share"] not in ("", "100")]
    rows = whole + [row | {"select": way} for way in WAYS for row in parts]
    return draw_selection(in_figure("selection", student, rows, "arms"), BENCHMARKS)


def accuracy(arms: list[dict]) -> plt.Figure:
    return draw_accuracy(in_figure("accuracy", "", arms, "arms"), BENCHMARKS)


def sampling(student: str, *tables: list[dict]) -> plt.Figure:
    names = ("paths", "pairs", "solving")
    rows = (in_figure("yields", student, rows, name) for rows, name in zip(tables, names, strict=True))
    return draw_yields(*rows, BENCHMARKS)


def solved(student: str, rows: list[dict]) -> plt.Figure:
    return draw_solving(in_figure("solving", student, rows, "solving"), BENCHMARKS)


ONE = plant({"s": "x"}, {"t": "y"}, ("piqa",))
DRAWINGS = {
    "accuracy": lambda folder: accuracy(plant()),
    "accuracy, one teacher": lambda folder: accuracy(ONE),
    "accuracy, five teachers with long names": lambda folder: accuracy(plant(LONG, FIVE, ("csqa", "gsm8k"))),
    "accuracy, the second student is better": lambda folder: accuracy(rising(plant())),
    "low-resource, the second student is better": lambda folder: shares(rising(plant()), "mistral-7b"),
    "in-family": lambda folder: families("in-family", plant()),
    "out-family": lambda folder: families("out-family", plant()),
    "nine students": lambda folder: families(
        "out-family", plant({f"student-{n}-of-a-long-name": "x" for n in range(9)}, {"t": "y"}, ("piqa",))
    ),
    "several recipes": lambda folder: families("out-family", plant(recipes=("cot", "answer"))),
    "one benchmark": lambda folder: families("out-family", ONE),
    "five teachers with long names": lambda folder: families("out-family", plant(LONG, FIVE)),
    "one benchmark, five teachers": lambda folder: families("out-family", plant(LONG, FIVE, ("piqa",))),
    "lengths": lambda folder: families("lengths", lengths(plant()), "tokens"),
    "low-resource": lambda folder: shares(plant(shares=(25, 50, 75, 100)), "llama-2-7b"),
    "low-resource, one teacher": lambda folder: shares(
        plant({"s": "x"}, {"t": "y"}, ("piqa",), recipes=("cot", "answer")), "s"
    ),
    "low-resource, five teachers": lambda folder: shares(plant(LONG, FIVE), [*LONG][0]),
    "selection": lambda folder: chosen(plant(shares=(10, 25, 100)), "llama-2-7b"),
    "selection, one share": lambda folder: chosen(plant({"s": "x"}, {"t": "y"}, ("piqa",), shares=(25,)), "s"),
    "selection, five teachers": lambda folder: chosen(
        plant(LONG, FIVE, ("piqa",), recipes=("cot", "answer"), shares=(25, 100)), [*LONG][0]
    ),
    "solving": lambda folder: solved("llama-2-7b", solving()),
    "solving, five teachers": lambda folder: solved("s", solving(("s",), ("", *FIVE), ("csqa",))),
    "yields": lambda folder: sampling("llama-2-7b", *yields()),
    "yields, one start": lambda folder: sampling("s", *yields(students=("s",), teachers=("t",), tasks=("csqa",))),
    "yields, five teachers": lambda folder: sampling("s", *yields(students=("s",), teachers=("", *FIVE))),
    "cost": lambda folder: draw_cost(in_figure("cost", "", costs(), "costs")),
    "cost, long names": lambda folder: draw_cost(in_figure("cost", "", costs(tuple(LONG)), "costs")),
    "accuracy, too few pairs": lambda folder: accuracy(plant(unrefined=1)),
    "out-family, too few pairs": lambda folder: families("out-family", plant(unrefined=3)),
    "low-resource, too few pairs": lambda folder: shares(plant(unrefined=2), "llama-2-7b"),
    "yields, too few pairs": lambda folder: sampling("llama-2-7b", *yields(unrefined=1)),
    "cost, too few pairs": lambda folder: draw_cost(in_figure("cost", "", costs(lacking=3), "costs")),
    "claims": lambda folder: draw_claims(claims(), BENCHMARKS, POLICY),
    "claims, long names": lambda folder: draw_claims(claims([*LONG], [*FIVE], ("csqa",)), BENCHMARKS, POLICY),
    "claims, one comparison": lambda folder: draw_claims(claims(["s"], ["t"], ("csqa",))[:1], BENCHMARKS, POLICY),
    "claims, seeds left out": lambda folder: draw_claims(claims(left_out=[1]), BENCHMARKS, POLICY),
    "claims, none": lambda folder: draw_claims([], BENCHMARKS, POLICY),
    "training": lambda folder: draw_training(runs(folder), BENCHMARKS),
    "training, long names": lambda folder: draw_training(runs(folder, [*LONG][0], 7), BENCHMARKS),
}


@pytest.fixture
def drawn():
    with plt.rc_context(style.STYLE):
        yield
    plt.close("all")


@pytest.mark.filterwarnings("error:constrained_layout")
@pytest.mark.parametrize("name", DRAWINGS)
def test_nothing_overlaps_or_leaves_the_page(name, tmp_path, drawn):
    assert_nothing_overlaps(DRAWINGS[name](tmp_path), name)


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("qwen2.5-coder-0.5b", 12, ["qwen2.5-", "coder-0.5b"]),
        ("SmolLM2-135M teaches", 14, ["SmolLM2-", "135M teaches"]),
        ("fits-as-it-is", 40, ["fits-as-it-is"]),
        ("nohyphens", 5, ["nohyp", "hens"]),
        ("a-verylongpart", 6, ["a-very", "longpa", "rt"]),
    ],
)
def test_names_are_broken_at_hyphens_before_they_are_broken_anywhere(text, width, expected):
    assert wording.wrapped(text, width).split("\n") == expected


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_point_lies_within_its_panel(name, tmp_path, drawn):
    figure = DRAWINGS[name](tmp_path)
    figure.canvas.draw()
    for panel in figure.axes:
        for line in panel.lines:
            places = line.get_transform().transform(line.get_xydata())
            places = places[np.isfinite(places).all(axis=1)]
            low, high = panel.bbox.min - 1, panel.bbox.max + 1
            assert ((low <= places) & (places <= high)).all(), (panel.get_title(), line)


def assert_nothing_overlaps(figure: plt.Figure, name: str) -> None:
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
    assert round(figure.get_size_inches()[0], 2) in (style.COLUMN, style.PAGE)


def test_bars_have_their_values_and_intervals_and_lines_are_the_teachers(drawn):
    figure = families("out-family", ONE)
    panel = figure.axes[0]
    expected = {row["arm"]: row for row in in_domain(whole(ONE)) if row["evaluation"] == "piqa"}
    arms = ["baseline", "instruct", "refine"]
    assert [bar.get_height() for bar in panel.patches] == pytest.approx(
        [100 * expected[arm]["accuracy"] for arm in arms]
    )
    lines = [tuple(line.get_ydata()) for line in panel.lines if line.get_color() == "black"]
    ends = [(100 * expected[arm]["low"], 100 * expected[arm]["high"]) for arm in arms]
    assert lines[:3] == [pytest.approx(of_arm) for of_arm in ends]
    assert lines[3] == pytest.approx((100 * expected["teacher"]["accuracy"],) * 2)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "baseline",
        "instruct",
        "refine",
        "teacher t (out-family)",
    ]


def test_each_comparison_has_its_estimate_intervals_and_a_dot_per_seed(drawn):
    rows = claims(["s"], ["t", "u"], ("csqa",))[1:2]
    figure = draw_claims(rows, BENCHMARKS, POLICY)
    (panel,) = figure.axes
    lines = [line for line in panel.lines if len({*line.get_ydata()} - {0, 1}) or line.get_marker() != "None"]
    dots = [line for line in panel.lines if line.get_marker() == "."]
    assert [sorted(line.get_xdata()) for line in dots] == [pytest.approx([10, 20, 20])] * 2
    # No dot covers another.
    assert all(len({*zip(line.get_xdata(), line.get_ydata(), strict=True)}) == 3 for line in dots)
    widths = {line.get_linewidth(): sorted(line.get_xdata()) for line in lines if len(line.get_xdata()) == 2}
    assert widths[2.4] == pytest.approx([-2, 2]) and widths[0.9] == pytest.approx([-15, 15])
    assert "90 % intervals" in panel.get_title().replace("\n", " ")
    margins = [line.get_xdata()[0] for line in panel.lines if line.get_linestyle() == "--"]
    assert margins == [-5]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"these checkpoints", "new training runs", "one seed", "margin, 5 points"} < {*labels}


def test_one_seed_has_one_interval(drawn):
    row = comparison(0.1, seeds=(0.1,), teacher="t")
    claim = claims()[0] | {"parts": [{"title": "", "comparisons": [row]}]}
    figure = draw_claims([claim], BENCHMARKS, POLICY)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "these checkpoints" in labels and "new training runs" not in labels
    assert "95 % intervals" in figure.axes[0].get_title().replace("\n", " ")


@pytest.mark.parametrize(
    ("values", "levels"), [([], []), ([1.0], [0]), ([1, 1, 1, 5], [0, 1, 2, 0]), ([0, 0.9, 1.8], [0, 1, 0])]
)
def test_dots_that_would_cover_each_other_stand_on_levels(values, levels):
    assert levels_of(values) == levels


MARKED = {
    "accuracy, too few pairs": "some runs",
    "out-family, too few pairs": "not refined",
    "low-resource, too few pairs": "some runs",
    "yields, too few pairs": "not refined",
    "cost, too few pairs": "not refined",
    "claims, seeds left out": "left out",
}


@pytest.mark.parametrize("name", MARKED)
def test_what_had_too_few_pairs_is_marked_and_the_legend_says_so(name, tmp_path, drawn):
    figure = DRAWINGS[name](tmp_path)
    (note,) = (text.get_text() for text in figure.legends[0].get_texts() if UNREFINED in text.get_text())
    assert MARKED[name] in note.replace("\n", " ")
    outside = [text for text in figure.findobj(Text) if UNREFINED in text.get_text()]
    assert len(outside) > 1
    plain = DRAWINGS[name.split(",")[0]](tmp_path)
    assert not any(UNREFINED in text.get_text() for text in plain.findobj(Text))


def test_in_family_bars_leave_out_the_other_teachers(drawn):
    figure = families("in-family", plant())
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "llama-2-70b (in-family)" in texts and not any("gpt" in text for text in texts)
    assert all(len(panel.patches) == 2 * 3 for panel in figure.axes if panel.axison)


def test_arms_that_are_missing_leave_no_trace(drawn):
    arms = plant(arms=("instruct", "teacher"))
    figure = families("in-family", arms)
    assert all(len(panel.patches) == 2 for panel in figure.axes if panel.axison)
    shares(arms, "llama-2-7b")
    accuracy(arms)


def test_a_cell_that_the_study_leaves_out_has_no_point(drawn):
    arms = [
        row
        for row in ONE
        if row["arm"] in ("instruct", "refine") and row["evaluation"] == "piqa" or row["arm"] == "teacher"
    ]
    panels = accuracy(arms).axes
    points = [[line for line in panel.lines if line.get_marker() in ("o", "s")] for panel in panels]
    assert [len(of_panel) for of_panel in points] == [2, 0, 0, 0]
    assert [panel.get_xlabel() for panel in panels] == ["n = 100"] * len(BENCHMARKS)


def test_points_are_filled_where_the_benchmark_was_trained_on(drawn):
    panels = accuracy(ONE).axes
    for panel, task in zip(panels, BENCHMARKS, strict=True):
        filled = {line.get_marker(): line.get_markerfacecolor() != "white" for line in panel.lines if line.get_marker()}
        assert filled["D"] is False and filled["s"] is filled["o"] is (task == "piqa")


@pytest.mark.parametrize("figure", ["in-family", "out-family"])
def test_a_trace_finds_the_bars_that_are_drawn(drawn, tmp_path, figure):
    arms = plant(teachers={"llama-2-70b": "llama", "gpt-3.5": "gpt"})
    rows = written(tmp_path / "arms.csv", arms)
    found = [row for row in in_figure(figure, "", rows, "arms") if row["arm"] != "teacher"]
    heights = [bar.get_height() for panel in families(figure, arms).axes for bar in panel.patches]
    assert sorted(100 * float(row["accuracy"]) for row in found) == pytest.approx(sorted(heights))


def written(path: Path, rows: list[dict]) -> list[dict[str, str]]:
    """Rows written as a table, as the text that stands there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_chosen_alike_as_text_and_as_numbers(tmp_path):
    arms = plant(shares=(25, 50, 100))
    rows = written(tmp_path / "arms.csv", arms)
    for figure in ("accuracy", "in-family", "out-family", "low-resource"):
        student = "llama-2-7b" if figure == "low-resource" else ""
        chosen = [[row["accuracy"] for row in in_figure(figure, student, of, "arms")] for of in (arms, rows)]
        assert chosen[0] == [float(text) for text in chosen[1]] and 0 < len(chosen[0]) < len(arms)


def test_the_largest_share_counts_where_shares_are_not_compared():
    assert {row["share"] for row in whole(plant(shares=(25, 50)))} == {"", "50"}


def test_a_share_is_compared_as_a_number():
    assert {row["share"] for row in whole(plant(shares=(25, 100)))} == {"", "100"}


def test_low_resource_curves_have_the_baseline_of_their_benchmarks_alone():
    rows = in_figure("low-resource", "s", ONE, "arms")
    assert {row["evaluation"] for row in rows} == {"piqa"}
    assert {row["arm"] for row in rows} == {"baseline", "refine-only", "instruct", "refine"}


def test_rows_name_what_they_were_trained_on_by_title(drawn):
    names = [label.get_text().replace("\n", " ") for label in accuracy(plant()).axes[0].get_yticklabels()]
    assert "instructed by gpt-3.5 on CommonsenseQA, then refined" in names
    assert not any(f"on {task}" in name for name in names for task in BENCHMARKS)
    assert "instructed on PIQA" in [label.get_text() for label in accuracy(ONE).axes[0].get_yticklabels()]


LABELS = [
    ({}, "baseline"),
    ({"task": "piqa"}, "instructed by t on PIQA, 50 %, seed 1"),
    (
        {"task": "piqa", "refine_task": "piqa", "recipe": "cot"},
        "instructed by t on PIQA, then refined (cot), 50 %, seed 1",
    ),
    (
        {"task": "piqa", "refine_task": "csqa", "recipe": "cot", "after": "answer"},
        "instructed by t on PIQA, then refined on CommonsenseQA (answer, then cot), 50 %, seed 1",
    ),
    (
        {"teacher": "", "refine_task": "piqa", "recipe": "cot"},
        "refined on PIQA without instruction (cot), 50 %, seed 1",
    ),
]


@pytest.mark.parametrize(("facts", "label"), LABELS)
def test_a_checkpoint_is_named_in_words(facts, label):
    trained = {"teacher": "t", "share": "50", "seed": "1"} | facts
    assert checkpoint_label(trained, BENCHMARKS, {"teacher", "recipe", "share", "seed"}) == label
    short = re.sub(r" by t| \(.*\)|, 50 %|, seed 1", "", label)
    assert checkpoint_label(trained, BENCHMARKS, set()) == short


@pytest.mark.parametrize("figure", ["out-family", "low-resource"])
def test_a_figure_is_the_same_bytes_every_time(figure, tmp_path):
    tables = tmp_path / "tables"
    arms = plant({"llama-2.5": "llama"}, tasks=("piqa", "csqa"))
    written(tables / "arms.csv", [row | {"level": 0.95, "interval": "wilson", "samples": ""} for row in arms])
    student = "llama-2.5" if figure == "low-resource" else ""
    settings = {"figure": figure, "student": student, "titles": BENCHMARKS}
    made = []
    for place in ("one", "two"):
        command = ["python", "scripts/plot.py", "--settings", json.dumps(settings), "--tables", tables / "record.json"]
        run(*command, "--record", tmp_path / place / "record.json")
        made.append({path.name: path.read_bytes() for path in (tmp_path / place).iterdir()})
    records = [json.loads(files.pop("record.json")) for files in made]
    name = f"{figure}-{student}" if student else figure
    assert set(made[0]) == {f"{name}.{suffix}" for suffix in ("svg", "pdf", "png")}
    assert made[0] == made[1]
    assert [list(record["inputs"]) for record in records] == [[str(tables / "arms.csv")]] * 2


def test_a_table_is_read_as_typed_rows(tmp_path):
    arms = [row | {"level": 0.95, "interval": "wilson", "samples": "a b"} for row in plant()]
    written(tmp_path / "arms.csv", [row | {"another": 1} for row in arms])
    assert StudyTables(tmp_path).arms() == [
        {"select": ""} | {name: row[name] for name in row if name != "tokens"} for row in arms
    ]


def test_the_curves_are_labelled_in_words_with_whole_numbers_of_updates(tmp_path, drawn):
    figure = draw_training(runs(tmp_path, updates=3), BENCHMARKS)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "s, instructed by t on PIQA",
        "s, instructed by t on PIQA, then refined (refine)",
        "s, instructed by t on PIQA, then refined (chosen)",
        "held-out pairs",
    ]
    figure.canvas.draw()
    assert all(float(tick).is_integer() for panel in figure.axes for tick in panel.get_xticks())


def test_chosen_responses_that_become_less_likely_are_seen_though_the_margin_rises(tmp_path, drawn):
    """Displacement: the figure has a panel for the likelihood of each side."""
    logged = [
        {"step": step, "split": split, "loss": 0.7 - 0.1 * step, "margin": 0.2 * step, "accuracy": 1.0}
        | {"chosen_token_logp": -0.5 - 0.1 * step, "rejected_token_logp": -0.6 - 0.4 * step}
        for step in (1, 2, 3)
        for split in ("train", "validation")
    ]
    write_jsonl(tmp_path / "log.jsonl", logged)
    facts = {"student": "s", "teacher": "t", "task": "piqa", "refine_task": "piqa", "recipe": "cot", "share": "100"}
    figure = draw_training([Run(facts, tmp_path / "log.jsonl")], BENCHMARKS)
    shown = {panel.get_ylabel(): [list(line.get_ydata()) for line in panel.lines] for panel in figure.axes}
    chosen = shown["chosen: nats per token"]
    assert chosen == [pytest.approx([-0.6, -0.7, -0.8])] * 2
    assert shown["rejected: nats per token"] == [pytest.approx([-1.0, -1.4, -1.8])] * 2
    assert shown["reward margin (nats)"] == [pytest.approx([0.2, 0.4, 0.6])] * 2


def test_a_log_from_before_likelihoods_were_logged_is_drawn_without_them(tmp_path, drawn):
    figure = draw_training(runs(tmp_path, updates=3), BENCHMARKS)
    shown = {panel.get_ylabel(): panel for panel in figure.axes}
    for line in shown["chosen: nats per token"].lines:
        assert all(value != value for value in line.get_ydata())
    assert shown["reward margin (nats)"].lines


def test_the_colours_are_those_that_colour_blind_readers_tell_apart(tmp_path, drawn):
    okabe_ito = {"#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"}
    for name in ("accuracy", "out-family", "solving", "yields", "cost", "training", "claims"):
        figure = DRAWINGS[name](tmp_path)
        patches = {to_hex(patch.get_facecolor()) for panel in figure.axes for patch in panel.patches}
        lines = {to_hex(line.get_color()) for panel in figure.axes for line in panel.lines}
        greys = {colour for colour in patches | lines if colour[1:3] == colour[3:5] == colour[5:7]}
        assert (patches | lines) - greys <= okabe_ito, name
