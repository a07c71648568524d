"""Bars of each student's arms by benchmark and teacher, and a line at each teacher's own value."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt

from selfrefine.report.figures import style, wording
from selfrefine.schema.results import ArmRow, LengthRow

Bar = ArmRow | LengthRow
# Inches that a panel's axis takes, and that a bar needs at least.
AXIS, BAR = 0.5, 0.075
# Characters in which a name can still be read in lines.
NARROW = 8


class Looks(NamedTuple):
    """How bars are told apart: the colours of arms and recipes, the hatches of teachers, and the teachers' names."""

    colours: dict[str, str]
    hatches: dict[str, str]
    teachers: dict[str, str]


def draw_families(rows: Sequence[Bar], titles: Mapping[str, str], value: str) -> plt.Figure:
    """`value` is a column with `low` and `high`: accuracy is shown in percent, tokens as they are."""
    trained = [row for row in rows if row["arm"] in ("instruct", "refine")]
    tasks, students = (list(dict.fromkeys(row[fact] for row in trained)) for fact in ("evaluation", "student"))
    looks = looks_of(trained)
    groups = {(task, student): bars_of(rows, task, student) for task in tasks for student in students}
    width = max(sum(len(groups[task, student]) + 1 for student in students) for task in tasks)
    columns = next((n for n in (3, 2) if (style.PAGE / n - AXIS) / width >= BAR), 1)
    names, rotation, more = names_of(students, len(tasks), columns)
    figure, panels = style.grid(len(tasks), columns, 1.55 + more)
    for panel, task in zip(panels, tasks, strict=True):
        here = [row for row in rows if row["evaluation"] == task]
        start, middles = 0, []
        for student in students:
            bars = groups[task, student]
            draw_group(panel, start, bars, [row for row in here if row["arm"] == "teacher"], value, looks)
            middles.append(start + (len(bars) - 1) / 2)
            start += len(bars) + 1
        panel.set_title(f"{titles[task]} (n = {here[0]['n']})")
        panel.set_xticks(middles, names, rotation=rotation)
        panel.tick_params(axis="x", length=0)
        panel.set_ylim(bottom=0)
        panel.set_ylabel("accuracy (%)" if value == "accuracy" else "tokens per answer")
    handles = handles_of(looks, "baseline" in {row["arm"] for row in rows}, trained)
    style.legend(figure, [*handles, *style.unrefined_note(trained)])
    return figure


def names_of(students: Sequence[str], panels: int, columns: int) -> tuple[list[str], int, float]:
    """(names, rotation, further height of a panel) of students below their bars: in lines, or turned where narrow."""
    wide = (style.COLUMN if panels == 1 else style.PAGE / min(columns, panels)) - AXIS
    characters = int(wide / len(students) * wording.CHARACTERS)
    if characters < NARROW:
        return list(students), 90, max(map(len, students)) / wording.CHARACTERS
    names = [textwrap.fill(student, characters) for student in students]
    return names, 0, wording.LINE * max(name.count("\n") for name in names)


def looks_of(trained: Sequence[Bar]) -> Looks:
    """The looks of trained arms; a single teacher needs no hatch."""
    recipes = style.cycle((row["recipe"] for row in trained if row["recipe"]), style.RECIPES)
    teachers = teachers_of(trained)
    hatches = style.cycle(teachers, style.HATCHES) if len(teachers) > 1 else {}
    colours = {arm: style.ARMS[arm] for arm in ("baseline", "instruct")} | recipes
    return Looks(colours, hatches, teachers)


def teachers_of(trained: Sequence[Bar]) -> dict[str, str]:
    """What a legend calls each teacher that trained someone: its name and, if it is the same for all, its family."""
    names = {}
    for teacher in dict.fromkeys(row["teacher"] for row in trained if row["teacher"]):
        families = {row["family"] for row in trained if row["teacher"] == teacher} - {""}
        names[teacher] = f"{teacher} ({families.pop()}-family)" if len(families) == 1 else teacher
    return names


def bars_of(rows: Sequence[Bar], task: str, student: str) -> list[Bar]:
    """A student's bars on one benchmark: the baseline, then teacher by teacher, in-family teachers first."""
    here = [row for row in rows if (row["evaluation"], row["student"]) == (task, student)]
    own = [row for row in here if row["arm"] in ("instruct", "refine")]
    own.sort(key=lambda row: (row["family"] != "in", row["teacher"], row["arm"], row["recipe"]))
    return [*(row for row in here if row["arm"] == "baseline"), *own]


def draw_group(panel: plt.Axes, start: int, bars: Sequence[Bar], own: Sequence[Bar], value: str, looks: Looks) -> None:
    """One student's bars from place `start` on, and over those of each teacher a line with a band at its own value."""
    scale = 100 if value == "accuracy" else 1
    for place, bar in enumerate(bars, start):
        colour, hatch = looks.colours[bar["recipe"] or bar["arm"]], looks.hatches.get(bar["teacher"], "")
        look = {"color": colour, "hatch": hatch, "edgecolor": "black", "linewidth": 0.6}
        panel.bar(place, scale * number(bar, value), width=1, **look)
        style.interval(panel, [place, place], [scale * bar["low"], scale * bar["high"]], 0.8)
        style.mark_unrefined(panel, bar, place, 0)
    for row in own:
        places = [place for place, bar in enumerate(bars, start) if bar["teacher"] == row["teacher"]]
        if places:
            ends = (min(places) - 0.5, max(places) + 0.5)
            panel.fill_between(ends, scale * row["low"], scale * row["high"], color="0.9", zorder=0, linewidth=0)
            for colour, width in (("white", 2.4), ("black", 1.2)):
                panel.plot(ends, [scale * number(row, value)] * 2, color=colour, linewidth=width, zorder=4)


def number(bar: Bar, value: str) -> float:
    """What a bar shows."""
    return float(str(bar.get(value)))


def handles_of(looks: Looks, with_baseline: bool, trained: Sequence[Bar]) -> list[object]:
    """What a legend shows of the bars."""
    arms = ["baseline"] if with_baseline else []
    arms += ["instruct"] if any(row["arm"] == "instruct" for row in trained) else []
    recipes = list(dict.fromkeys(row["recipe"] for row in trained if row["recipe"]))
    named = {recipe: f"refine ({recipe})" if len(recipes) > 1 else "refine" for recipe in recipes}
    handles: list[object] = [
        style.Fill(looks.colours[name], "").patch(named.get(name, name)) for name in [*arms, *recipes]
    ]
    if len(looks.teachers) == 1:
        (name,) = looks.teachers.values()
        return [*handles, style.line(f"teacher {name}", color="black", linewidth=1.2)]
    handles += [style.Fill("#FFFFFF", looks.hatches[teacher]).patch(name) for teacher, name in looks.teachers.items()]
    return [*handles, style.line("the teacher itself", color="black", linewidth=1.2)]
