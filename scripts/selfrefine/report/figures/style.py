"""What all figures share: sizes, colours, hatches and markers, grids of panels, legends.

Sizes are those of a page of two columns, so that figures are pasted as they are. Colours are Okabe and Ito's, which
colour-blind readers tell apart; hatches, markers and line styles say the same again for print in grey.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from selfrefine.report.figures.wording import CHARACTERS, cells, fit_titles, in_lines, wrapped
from selfrefine.report.labels import SHORT_NOTE, SOME_NOTE, UNREFINED, unrefined_mark

Look = TypeVar("Look")
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
BLACK, GREY = "#000000", "#999999"
ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
ARMS = {
    "baseline": "#FFFFFF",
    "refine-only": GREEN,
    "instruct": SKY,
    "cross": PURPLE,
    "refine": VERMILION,
}
# Of refinements by several preference recipes.
RECIPES = (VERMILION, GREEN, PURPLE, ORANGE, YELLOW, BLUE)
# Of lines: teachers, training runs.
LINES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, BLACK)
NAMED: tuple[Any, ...] = ("-", "--", ":", "-.")
FURTHER: tuple[Any, ...] = (
    (0, (5, 1, 1, 1, 1, 1)),
    (0, (9, 2)),
    (0, (1, 3)),
    (0, (6, 1, 1, 1, 1, 1, 1, 1)),
    (0, (9, 2, 3, 2)),
    (0, (3, 3)),
)
DASHES = (*NAMED, *FURTHER)
# Of the teachers in a figure whose solid lines stand for something else.
BROKEN = ("--", ":", "-.", "-", *FURTHER)
# Behind a mark on a bar.
BOX = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
HATCHES = ("/////", ".....", "xxxxx", "-----", "+++++", "\\\\\\\\\\", "|||||", "ooooo", "OO", "**")
MARKERS = {"baseline": "D", "refine-only": "^", "instruct": "s", "cross": "v", "refine": "o"}


class Fill(NamedTuple):
    """How an area is told apart."""

    colour: str
    hatch: str

    def patch(self, label: str) -> Patch:
        return Patch(facecolor=self.colour, hatch=self.hatch, edgecolor="black", linewidth=0.5, label=label)


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


def legend(figure: plt.Figure, handles: Sequence[Any], left: float = 0.0) -> None:
    """Titles in lines that fit, and a legend below the panels, as wide as they are; the figure grows by its lines.

    `left`: inches that names beside the panels take.
    """
    fit_titles(figure, left)
    width, height = figure.get_size_inches()
    for handle in handles:
        label = handle.get_label()
        handle.set_label(label if cells(label) < width * CHARACTERS - 20 else wrapped(label, width * CHARACTERS - 20))
    texts = [line for handle in handles for line in handle.get_label().split("\n")]
    columns = max(1, min(len(handles), int(width / (max(map(cells, texts)) / CHARACTERS + 0.45))))
    figure.set_size_inches(width, height + 0.14 * math.ceil(len(texts) / columns) + 0.1)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2, columnspacing=1.2)


def unrefined_note(rows: Iterable[Mapping[str, object]], of: str = "seeds") -> list[Line2D]:
    """What a legend says of the mark of rows that had too few pairs to be refined, where there are any."""
    marks = {unrefined_mark(row, of).strip() for row in rows} - {""}
    return [line(SHORT_NOTE if marks == {UNREFINED} else SOME_NOTE, linestyle="")] if marks else []


def mark_unrefined(panel: plt.Axes, row: Mapping[str, object], place: float, height: float) -> None:
    """Puts the mark above a height if a row had too few pairs to be refined."""
    if unrefined_mark(row):
        away = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center", "va": "bottom", "zorder": 6}
        panel.annotate(UNREFINED, (place, height), **away, bbox=BOX)


def line(label: str, **look: Any) -> Line2D:
    """What a legend shows of a line or marker."""
    return Line2D([], [], label=label, **look)


def interval(panel: plt.Axes, places: Sequence[float], ends: Sequence[float], thin: float) -> None:
    """A black line with a white edge, which shows on any colour."""
    for colour, width in (("white", thin + 1.3), ("black", thin)):
        panel.plot(places, ends, color=colour, linewidth=width, zorder=3)


class Rows(NamedTuple):
    """Names of rows, in lines that fit, and where the rows stand from the top, in lines."""

    names: list[str]
    places: list[float]
    lines: float

    @property
    def inches(self) -> float:
        """How wide the names are."""
        return max((cells(line) for name in self.names for line in name.split("\n")), default=0) / CHARACTERS

    def label(self, panel: plt.Axes) -> None:
        """Writes the names beside a panel."""
        panel.set_yticks(self.places, self.names)
        panel.tick_params(axis="y", length=0)

    def fit(self, panel: plt.Axes) -> None:
        """Makes a panel as high as the rows."""
        panel.set_ylim(self.lines, 0)


def rows_of(names: Iterable[str], width: int) -> Rows:
    """Rows one below the other; a name takes as many lines as it needs in so many characters."""
    wrapped: list[str] = []
    places, lines = [], 0.0
    for text in names:
        name = in_lines(text, width)
        wrapped.append(name)
        height = name.count("\n") + 1.3
        places.append(lines + height / 2)
        lines += height
    return Rows(wrapped, places, lines)


def stack(panel: plt.Axes, rows: Rows, parts: Sequence[Sequence[float]], fills: Iterable[Fill]) -> None:
    """Horizontal bars, one per value of the parts; a part begins where the one before ended."""
    left = [0.0] * len(rows.places)
    for values, fill in zip(parts, fills, strict=False):
        look = {"color": fill.colour, "hatch": fill.hatch, "edgecolor": "black", "linewidth": 0.5}
        panel.barh(rows.places, values, left=left, height=1, **look)
        left = [start + value for start, value in zip(left, values, strict=True)]
    rows.fit(panel)
    panel.tick_params(axis="y", length=0)


def cycle(names: Iterable[str], looks: Sequence[Look]) -> dict[str, Look]:
    """One of the looks for each name, from the first on again where there are more names."""
    return {name: looks[place % len(looks)] for place, name in enumerate(dict.fromkeys(names))}
