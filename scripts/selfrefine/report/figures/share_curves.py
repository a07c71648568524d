"""Accuracy of one student over the share of the demonstrations, a panel per benchmark."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt

from selfrefine.report.figures import style
from selfrefine.report.figures.family_bars import teachers_of
from selfrefine.report.selection import ORDER
from selfrefine.schema.results import ArmRow

Kind = tuple[str, str, str]
FILLS = ("full", "none", "left", "right", "top", "bottom")
# Of the curves of teachers whose dashes have no name: a second way to tell them apart.
PALER, PALER_BLACK = 0.6, "0.4"
# How a curve without a teacher is drawn.
ALONE = (0, (1, 1))


def draw_low_resource(rows: Sequence[ArmRow], titles: Mapping[str, str]) -> plt.Figure:
    """A curve per arm, teacher and recipe, its points set apart sideways; grey: the baseline."""
    trained = [row for row in rows if row["arm"] != "baseline"]
    tasks = list(dict.fromkeys(row["evaluation"] for row in trained))
    shares = sorted({float(row["share"]) for row in trained})
    named, recipes = teachers_of(trained), list(dict.fromkeys(row["recipe"] for row in trained if row["recipe"]))
    dashes: dict[str, Any] = {**style.cycle(named, style.DASHES), "": ALONE}
    kinds = list(dict.fromkeys((row["arm"], row["teacher"], row["recipe"]) for row in trained))
    kinds.sort(key=lambda kind: (ORDER.index(kind[0]), list(dashes).index(kind[1]), kind[2]))
    figure, panels = style.grid(len(tasks), 3 if len(kinds) <= 4 else 2, 1.7)
    nearest = min(after - before for before, after in itertools.pairwise(shares))
    step = 0.3 * nearest / len(kinds)
    for panel, task in zip(panels, tasks, strict=True):
        here = [row for row in rows if row["evaluation"] == task]
        for base in (row for row in here if row["arm"] == "baseline"):
            panel.axhline(100 * base["accuracy"], color="0.6", linewidth=0.8)
            panel.axhspan(100 * base["low"], 100 * base["high"], color="0.93", zorder=0, linewidth=0)
        for place, kind in enumerate(kinds):
            apart = step * (place - (len(kinds) - 1) / 2)
            look = {**look_of(kind[0], kind[2], recipes), "linestyle": dashes[kind[1]]}
            look |= {"alpha": PALER} if dashes[kind[1]] in style.FURTHER else {}
            draw_curve(panel, [row for row in here if kind_of(row) == kind], apart, look)
        panel.set_title(f"{titles[task]} (n = {here[0]['n']})")
        panel.set_xticks(shares, [f"{share:g}" for share in shares])
        panel.set_xlabel("share of the demonstrations (%)")
        panel.set_ylabel("accuracy (%)")
        panel.set_ylim(bottom=0)
    handles = handles_of(kinds, recipes, named, dashes, any(row["arm"] == "baseline" for row in rows))
    style.legend(figure, [*handles, *style.unrefined_note(trained)])
    return figure


def kind_of(row: ArmRow) -> Kind:
    """Which curve a row is a point of."""
    return row["arm"], row["teacher"], row["recipe"]


def draw_curve(panel: plt.Axes, rows: Sequence[ArmRow], apart: float, look: dict[str, Any]) -> None:
    """One curve with its intervals."""
    rows = sorted(rows, key=lambda row: float(row["share"]))
    below = [100 * (row["accuracy"] - row["low"]) for row in rows]
    above = [100 * (row["high"] - row["accuracy"]) for row in rows]
    places = [float(row["share"]) + apart for row in rows]
    values = [100 * row["accuracy"] for row in rows]
    panel.errorbar(places, values, yerr=[below, above], elinewidth=0.6, **look)
    for row, place in zip(rows, places, strict=True):
        style.mark_unrefined(panel, row, place, 100 * row["high"])


def look_of(arm: str, recipe: str, recipes: Sequence[str]) -> dict[str, Any]:
    """How a curve is drawn: its colour and marker by arm, the marker filled by recipe."""
    fill = FILLS[recipes.index(recipe) % len(FILLS)] if recipe else "full"
    return {"color": style.ARMS[arm], "marker": style.MARKERS[arm], "fillstyle": fill, "markerfacecoloralt": "white"}


def handles_of(
    kinds: Sequence[Kind],
    recipes: Sequence[str],
    named: Mapping[str, str],
    dashes: Mapping[str, Any],
    with_baseline: bool,
) -> list[object]:
    """What a legend shows of the curves: arms and recipes, then teachers."""
    handles: list[object] = []
    for arm, recipe in dict.fromkeys((arm, recipe) for arm, _, recipe in kinds):
        name = f"{arm} ({recipe})" if recipe and len(recipes) > 1 else arm
        dash = ALONE if arm == "refine-only" else "-"
        handles.append(style.line(name, **look_of(arm, recipe, recipes), linestyle=dash))
    for teacher, name in named.items():
        colour = PALER_BLACK if dashes[teacher] in style.FURTHER else "black"
        handles.append(style.line(name, color=colour, linestyle=dashes[teacher]))
    return handles + ([style.line("baseline", color="0.6", linewidth=0.8)] if with_baseline else [])
