"""Every checkpoint on every benchmark as a point with its interval; lines at the teachers' accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt

from selfrefine.report.figures import style, wording
from selfrefine.report.figures.wording import cells, upright_title, width_at_most, wrapped
from selfrefine.report.labels import checkpoint_label, several, unrefined_mark
from selfrefine.report.selection import in_order
from selfrefine.schema.results import ArmRow

FACTS = ("arm", "student", "teacher", "task", "refine_task", "recipe", "select")
Checkpoint = tuple[str, ...]
# Inches around a student's panels; characters of a line of a checkpoint's name.
AROUND, WIDE = 0.3, 44
# Letters of a title that may lean over its neighbours'.
LEANING = 20


def draw_accuracy(rows: Sequence[ArmRow], titles: Mapping[str, str]) -> plt.Figure:
    """Panels: benchmarks across, students down; a point is filled where its benchmark was trained on."""
    tasks = list(dict.fromkeys(row["evaluation"] for row in rows))
    own = [row for row in rows if row["arm"] == "teacher"]
    trained = in_order([row for row in rows if row["arm"] != "teacher"])
    students = list(dict.fromkeys(row["student"] for row in trained))
    dashes = style.cycle((row["teacher"] for row in own), style.BROKEN)
    colours = style.cycle(dashes, style.LINES)
    shown = {student: labels([row for row in trained if row["student"] == student], titles) for student in students}
    lines = {student: style.rows_of(shown[student].values(), WIDE) for student in students}
    left = max((rows.inches for rows in lines.values()), default=0.0)
    shown_titles, turned, above = titles_of([titles[task] for task in tasks], left)
    figure, axes = plt.subplots(
        len(students),
        len(tasks),
        figsize=(style.PAGE, sum(wording.LINE * rows.lines + AROUND for rows in lines.values()) + above),
        height_ratios=[rows.lines for rows in lines.values()],
        sharex="col",
        squeeze=False,
        layout="constrained",
    )
    for panels, student in zip(axes, students, strict=True):
        for panel, task in zip(panels, tasks, strict=True):
            places = dict(zip(shown[student], lines[student].places, strict=True))
            here = [row for row in trained if (row["student"], row["evaluation"]) == (student, task)]
            draw_points(panel, here, places)
            for row in (row for row in own if row["evaluation"] == task):
                look = {"color": colours[row["teacher"]], "linestyle": dashes[row["teacher"]], "linewidth": 1}
                panel.axvspan(100 * row["low"], 100 * row["high"], color="0.92", zorder=0, linewidth=0)
                panel.axvline(100 * row["accuracy"], zorder=1, **look)
            lines[student].fit(panel)
            panel.set_yticks([])
            panel.xaxis.set_major_formatter("{x:g} %")
        lines[student].label(panels[0])
        panels[0].set_ylabel(
            wrapped(student, max(wording.LINE * lines[student].lines * wording.CHARACTERS, len(student) / 4))
        )
    for panel, title in zip(axes[0], shown_titles, strict=True):
        # Not before all students are drawn: it ends the scaling of the panels below, too.
        panel.set_xlim(left=0)
        panel.set_title(title, rotation=turned)
    for panel, task in zip(axes[-1], tasks, strict=True):
        panel.set_xlabel(f"n = {next(row['n'] for row in rows if row['evaluation'] == task)}")
    handles = [style.line(f"teacher {name}", color=colours[name], linestyle=dashes[name]) for name in dashes]
    style.legend(figure, [*_points(), *handles, *style.unrefined_note(rows)], left)
    return figure


def titles_of(titles: Sequence[str], left: float) -> tuple[list[str], int, float]:
    """(titles, rotation, inches above and below the panels); more than three are turned, long ones stand upright."""
    if len(titles) <= 3:
        return list(titles), 0, 0.5
    if max(map(cells, titles)) <= LEANING:
        return list(titles), 30, 1
    shown = [upright_title(title, (style.PAGE - left) / len(titles)) for title in titles]
    longest = max(width_at_most(line) for title in shown for line in title.split("\n"))
    return shown, 90, 0.5 + longest / wording.CHARACTERS


def draw_points(panel: plt.Axes, rows: Sequence[ArmRow], places: Mapping[Checkpoint, float]) -> None:
    """The points of one student on one benchmark."""
    for row in rows:
        place, colour = places[checkpoint_of(row)], colour_of(row["arm"])
        is_trained = row["evaluation"] in (row["task"], row["refine_task"])
        panel.plot([100 * row["low"], 100 * row["high"]], [place, place], color=colour, linewidth=0.9)
        look = {"color": colour, "markerfacecolor": colour if is_trained else "white"}
        panel.plot(100 * row["accuracy"], place, style.MARKERS[row["arm"]], **look)


def checkpoint_of(row: ArmRow) -> Checkpoint:
    """What tells a checkpoint's rows from another's."""
    return tuple(str(row.get(fact)) for fact in FACTS)


def colour_of(arm: str) -> str:
    """The colour of an arm's points; the baseline's bars are white."""
    return style.BLACK if arm == "baseline" else style.ARMS[arm]


def labels(rows: Sequence[ArmRow], titles: Mapping[str, str]) -> dict[Checkpoint, str]:
    """One student's checkpoints in words, in the order of their arms; teacher and recipe where there are several."""
    told = several(rows, "teacher", "recipe")
    return {checkpoint_of(row): checkpoint_label(row, titles, told) + unrefined_mark(row) for row in rows}


def _points() -> list[Any]:
    look = {"color": "black", "marker": "o", "linestyle": ""}
    return [
        style.line("trained on the benchmark", markerfacecolor="black", **look),
        style.line("not trained on it", markerfacecolor="white", **look),
    ]
