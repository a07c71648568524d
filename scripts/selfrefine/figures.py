"""Figures of what the arms reach: bars per benchmark, curves over the share of demonstrations, all checkpoints at once.

Sizes are those of a page of two columns, so that figures are pasted as they are; one size of type; greys, hatches and markers
only, so that they can be told apart in print. Intervals are those of the tables.
"""

import math
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from selfrefine.arms import ORDER, in_domain, whole

# Inches: a column and the page of the ACL's style.
COLUMN, PAGE = 3.03, 6.3
TYPE = 7
STYLE = {
    "svg.hashsalt": "selfrefine",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "font.size": TYPE,
    "axes.titlesize": TYPE,
    "axes.labelsize": TYPE,
    "xtick.labelsize": TYPE,
    "ytick.labelsize": TYPE,
    "legend.fontsize": TYPE,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "hatch.linewidth": 0.5,
    "lines.linewidth": 1,
    "lines.markersize": 3.5,
}
HATCHES = ("/////", ".....", "xxxxx", "-----", "+++++")
LINES = ("-", "--", ":", "-.")
MARKERS = {"instruct": "s", "refine-only": "^", "refine": "o"}
# Inches that a panel's axis takes, and that a bar needs at least.
AXIS, BAR = 0.5, 0.075


def teachers_of(table: pd.DataFrame) -> dict[str, str]:
    """What a legend calls each teacher that trained someone: its name and, if it is the same for all, its family."""
    names = {}
    for teacher, rows in table[table.arm.isin(("instruct", "refine"))].groupby("teacher", sort=False):
        families = set(rows.family) - {""}
        names[teacher] = f"{teacher} ({families.pop()}-family)" if len(families) == 1 else teacher
    return names


def grid(panels: int, columns: int, height: float) -> tuple[plt.Figure, list[plt.Axes]]:
    """A figure of panels in rows; `height` of one row in inches. A single panel takes one column of the page."""
    columns = min(columns, panels)
    rows = math.ceil(panels / columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(COLUMN if panels == 1 and columns == 1 else PAGE, height * rows),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[panels:]:
        axis.set_axis_off()
    return figure, list(axes.flat[:panels])


def legend(figure: plt.Figure, handles: list) -> None:
    """A legend below the panels, as wide as they are; the figure grows by its lines."""
    widest = max(len(handle.get_label()) for handle in handles)
    width, height = figure.get_size_inches()
    columns = max(1, min(len(handles), int(width / (0.062 * widest + 0.45))))
    figure.set_size_inches(width, height + 0.14 * math.ceil(len(handles) / columns) + 0.1)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2, columnspacing=1.2)


class Looks(NamedTuple):
    """How bars are told apart: the greys of arms and recipes, the hatches of teachers, and the teachers' names."""

    greys: dict[str, str]
    hatches: dict[str, str]
    teachers: dict[str, str]


def draw_families(table: pd.DataFrame, titles: dict[str, str], families: tuple[str, ...], value: str) -> plt.Figure:
    """Per benchmark and student the bars baseline, instruct and refine, and a line at each teacher's own value.

    `families` are the teachers shown, "in" and "out" of the student's family, in this order. `value` is a column with `low` and
    `high`: `accuracy` is shown in percent, tokens as they are.
    """
    table = in_domain(whole(table))
    shown = table[table.family.isin(families) & table.arm.isin(("instruct", "refine"))]
    tasks, students = list(shown.evaluation.unique()), list(shown.student.unique())
    looks = looks_of(shown)
    groups = {(task, student): bars_of(table, shown, task, student, families) for task in tasks for student in students}
    width = max(sum(len(groups[task, student]) + 1 for student in students) for task in tasks)
    columns = next((n for n in (3, 2) if (PAGE / n - AXIS) / width >= BAR), 1)
    figure, panels = grid(len(tasks), columns, 1.55)
    tight = max(map(len, students)) * 0.055 > (PAGE / columns - AXIS) / len(students)
    turned = {"rotation": 20, "ha": "right", "rotation_mode": "anchor"} if tight else {}
    for panel, task in zip(panels, tasks, strict=True):
        here = table[table.evaluation == task]
        start, middles = 0, []
        for student in students:
            bars = groups[task, student]
            draw_group(panel, start, bars, here[here.arm == "teacher"], value, looks)
            middles.append(start + (len(bars) - 1) / 2)
            start += len(bars) + 1
        panel.set_title(f"{titles[task]} (n = {here.n.iloc[0]})")
        panel.set_xticks(middles, students, **turned)
        panel.tick_params(axis="x", length=0)
        panel.set_ylim(bottom=0)
        panel.set_ylabel("accuracy (%)" if value == "accuracy" else "tokens per answer")
    arms = [arm for arm in ("baseline", "instruct") if arm in {*table.arm}] + [
        name for name in shown.recipe.unique() if name
    ]
    legend(figure, handles_of(looks, arms))
    return figure


def looks_of(shown: pd.DataFrame) -> Looks:
    """Refinements are the darker the later their recipe comes; a single teacher needs no hatch."""
    recipes = [name for name in shown.recipe.unique() if name]
    greys = dict(zip(recipes, map(str, np.linspace(0.45, 0.15, max(2, len(recipes)))), strict=False))
    teachers = teachers_of(shown)
    hatches = dict(zip(teachers, HATCHES * len(teachers), strict=False)) if len(teachers) > 1 else {}
    return Looks({"baseline": "1.0", "instruct": "0.78"} | greys, hatches, teachers)


def draw_group(panel: plt.Axes, start: int, bars: list, own: pd.DataFrame, value: str, looks: Looks) -> None:
    """One student's bars from place `start` on, and over those of each teacher a line with a band at its own value."""
    scale = 100 if value == "accuracy" else 1
    for place, bar in enumerate(bars, start):
        grey, hatch = looks.greys[bar.recipe or bar.arm], looks.hatches.get(bar.teacher, "")
        panel.bar(
            place, scale * getattr(bar, value), width=1, color=grey, edgecolor="black", hatch=hatch, linewidth=0.6
        )
        # The white edge lets an interval show on a dark bar.
        for colour, width in (("white", 2), ("black", 0.8)):
            panel.plot([place, place], [scale * bar.low, scale * bar.high], color=colour, linewidth=width, zorder=3)
    for row in own.itertuples():
        places = [place for place, bar in enumerate(bars, start) if bar.teacher == row.teacher]
        if places:
            ends = (min(places) - 0.5, max(places) + 0.5)
            panel.fill_between(ends, scale * row.low, scale * row.high, color="0.9", zorder=0, linewidth=0)
            for colour, width in (("white", 2.4), ("black", 1.2)):
                panel.plot(ends, [scale * getattr(row, value)] * 2, color=colour, linewidth=width, zorder=4)


def handles_of(looks: Looks, arms: list[str]) -> list:
    """What a legend shows of the bars; `arms` are arms, and recipes of refinements."""
    recipes = [arm for arm in arms if arm not in ("baseline", "instruct")]
    named = {recipe: f"refine ({recipe})" if len(recipes) > 1 else "refine" for recipe in recipes}
    handles = [Patch(facecolor=looks.greys[arm], edgecolor="black", label=named.get(arm, arm)) for arm in arms]
    if len(looks.teachers) == 1:
        names = list(looks.teachers.values())
        return [*handles, Line2D([], [], color="black", linewidth=1.2, label=f"teacher {names[0]}")]
    for teacher, name in looks.teachers.items():
        handles.append(Patch(facecolor="1.0", edgecolor="black", hatch=looks.hatches[teacher], label=name))
    return [*handles, Line2D([], [], color="black", linewidth=1.2, label="the teacher itself")]


def bars_of(table: pd.DataFrame, shown: pd.DataFrame, task: str, student: str, families: tuple[str, ...]) -> list:
    """A student's bars on one benchmark: as it came, then teacher by teacher."""
    base = table[(table.arm == "baseline") & (table.student == student) & (table.evaluation == task)]
    mine = shown[(shown.student == student) & (shown.evaluation == task)].copy()
    mine["rank"] = [families.index(family) for family in mine.family]
    mine = mine.sort_values(["rank", "teacher", "arm", "recipe"], kind="stable")
    return [*base.itertuples(), *mine.itertuples()]


def draw_low_resource(arms: pd.DataFrame, titles: dict[str, str], student: str) -> plt.Figure:
    """Accuracy of one student over the share of the demonstrations, a panel per benchmark; grey line: the student as it came."""
    table = in_domain(arms[arms.student == student])
    trained = table[table.arm.isin(MARKERS)]
    tasks, shares = list(trained.evaluation.unique()), sorted(trained.share.unique())
    named = teachers_of(trained)
    styles = dict(zip(named, LINES * len(named), strict=False)) | {"": (0, (1, 1))}
    recipes = [name for name in trained.recipe.unique() if name]
    kinds = list(trained.groupby(["arm", "teacher", "recipe"], sort=False).groups)
    kinds.sort(key=lambda kind: (ORDER.index(kind[0]), list(styles).index(kind[1]), kind[2]))
    figure, panels = grid(len(tasks), 3 if len(kinds) <= 4 else 2, 1.7)
    step = min(np.diff(shares)) * 0.3 / len(kinds)
    for panel, task in zip(panels, tasks, strict=True):
        for base in table[(table.arm == "baseline") & (table.evaluation == task)].itertuples():
            panel.axhline(100 * base.accuracy, color="0.6", linewidth=0.8)
            panel.axhspan(100 * base.low, 100 * base.high, color="0.93", zorder=0, linewidth=0)
        here = trained[trained.evaluation == task]
        for place, (arm, teacher, recipe) in enumerate(kinds):
            rows = here[(here.arm == arm) & (here.teacher == teacher) & (here.recipe == recipe)].sort_values("share")
            panel.errorbar(
                rows.share + step * (place - (len(kinds) - 1) / 2),
                100 * rows.accuracy,
                yerr=[100 * (rows.accuracy - rows.low), 100 * (rows.high - rows.accuracy)],
                elinewidth=0.6,
                **look(arm, recipe, recipes),
                linestyle=styles[teacher],
            )
        panel.set_title(f"{titles[task]} (n = {here.n.iloc[0]})")
        panel.set_xticks(shares, [f"{share:g}" for share in shares])
        panel.set_xlabel("share of the demonstrations (%)")
        panel.set_ylabel("accuracy (%)")
        panel.set_ylim(bottom=0)
    arms_shown = dict.fromkeys((arm, recipe) for arm, _, recipe in kinds)
    handles = [
        Line2D([], [], **look(arm, recipe, recipes), linestyle=styles[""] if arm == "refine-only" else "-", label=name)
        for arm, recipe in arms_shown
        for name in [f"{arm} ({recipe})" if recipe and len(recipes) > 1 else arm]
    ]
    handles += [Line2D([], [], color="black", linestyle=styles[teacher], label=named[teacher]) for teacher in named]
    if "baseline" in set(table.arm):
        handles.append(Line2D([], [], color="0.6", linewidth=0.8, label="baseline"))
    legend(figure, handles)
    return figure


def look(arm: str, recipe: str, recipes: list[str]) -> dict:
    """How a curve is drawn: its marker by arm, filled by recipe, its grey by arm."""
    colour = {"instruct": "0.55", "refine-only": "0.3", "refine": "0.0"}[arm]
    fills = ("full", "none", "left", "right", "top")
    fill = fills[recipes.index(recipe) % len(fills)] if recipe else "full"
    return {"color": colour, "marker": MARKERS[arm], "fillstyle": fill, "markerfacecoloralt": "white"}
