"""Accuracy of one student over the share of the items, a curve for each way of choosing these."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt

from selfrefine.report.figures import style
from selfrefine.report.figures.share_curves import FILLS, draw_curve
from selfrefine.report.selection import ORDER
from selfrefine.schema.results import ArmRow

# A panel: arm, recipe and benchmark. A curve in it: the way of choosing, and the teacher.
Panel = tuple[str, str, str]
Curve = tuple[str, str]
# Shares that lie further apart leave room enough for points beside each other.
FAR = 20.0
SHAPES = ("o", "s", "^", "v", "D", "P")


def draw_selection(rows: Sequence[ArmRow], titles: Mapping[str, str]) -> plt.Figure:
    """A panel per benchmark and arm; all curves of a panel end in the point where nothing is left to choose."""
    trained = [row for row in rows if row["arm"] != "baseline"]
    panels = list(dict.fromkeys((row["arm"], row["recipe"], row["evaluation"]) for row in trained))
    panels.sort(key=lambda panel: (ORDER.index(panel[0]), panel[1]))
    ways = list(dict.fromkeys(row["select"] for row in trained if row["select"]))
    teachers = list(dict.fromkeys(row["teacher"] for row in trained))
    curves = list(itertools.product(ways, teachers))
    several = {"recipe": len({recipe for _, recipe, _ in panels} - {""}) > 1, "teacher": len(set(teachers) - {""}) > 1}
    shares = sorted({float(row["share"]) for row in trained})
    nearest = min((after - before for before, after in itertools.pairwise(shares)), default=1.0)
    step = 0.3 * min(nearest, FAR) / len(curves)
    figure, axes = style.grid(len(panels), 3, 1.9)
    looks = looks_of(curves)
    for axis, panel in zip(axes, panels, strict=True):
        draw_panel(axis, rows, panel, curves, looks, step)
        arm, recipe, task = panel
        named = f"{arm} ({recipe})" if recipe and several["recipe"] else arm
        axis.set_title(f"{titles[task]}, {named}")
        axis.set_xticks(shares, [f"{share:g}" for share in shares])
        axis.set_xlabel("share of the items (%)")
        axis.set_ylabel("accuracy (%)")
        axis.set_ylim(bottom=0)
    handles: list[Any] = [
        style.line(", ".join(filter(None, (way, teacher if several["teacher"] else ""))), **looks[way, teacher])
        for way, teacher in curves
        if any((row["select"], row["teacher"]) == (way, teacher) for row in trained)
    ]
    if any(row["arm"] == "baseline" for row in rows):
        handles.append(style.line("baseline", color="0.6", linewidth=0.8))
    style.legend(figure, [*handles, *style.unrefined_note(trained)])
    return figure


def looks_of(curves: Sequence[Curve]) -> dict[Curve, dict[str, Any]]:
    """How each curve is drawn: colour and marker by way, dashes by teacher."""
    colours = style.cycle((way for way, _ in curves), style.LINES)
    shapes = style.cycle((way for way, _ in curves), SHAPES)
    dashes = style.cycle((teacher for _, teacher in curves), style.DASHES)
    fills = style.cycle((teacher for _, teacher in curves), FILLS)
    return {
        (way, teacher): {
            "color": colours[way],
            "marker": shapes[way],
            "linestyle": dashes[teacher],
            "fillstyle": fills[teacher],
            "markerfacecoloralt": "white",
        }
        for way, teacher in curves
    }


def draw_panel(
    axis: plt.Axes,
    rows: Sequence[ArmRow],
    panel: Panel,
    curves: Sequence[Curve],
    looks: Mapping[Curve, dict[str, Any]],
    step: float,
) -> None:
    """The curves of one arm on one benchmark, points set apart by `step`, and the student's baseline."""
    here = [row for row in rows if (row["arm"], row["recipe"], row["evaluation"]) == panel]
    for base in (row for row in rows if row["arm"] == "baseline" and row["evaluation"] == panel[2]):
        axis.axhline(100 * base["accuracy"], color="0.6", linewidth=0.8)
        axis.axhspan(100 * base["low"], 100 * base["high"], color="0.93", zorder=0, linewidth=0)
    for place, (way, teacher) in enumerate(curves):
        mine = [row for row in here if row["select"] in (way, "") and row["teacher"] == teacher]
        if any(row["select"] for row in mine):
            draw_curve(axis, mine, step * (place - (len(curves) - 1) / 2), looks[way, teacher])
