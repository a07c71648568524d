"""The verdict on each claim under each choice, as a map of cells, with the number of flips below."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.patches import Patch, Rectangle

from selfrefine.analysis.flip_kinds import AXES, FLIPS, ONLY, REVERSAL
from selfrefine.report.figures import style, wording
from selfrefine.report.flip_tables import by_claim, choice_label, counts_of, has_recipes
from selfrefine.report.labels import named
from selfrefine.schema.claim_results import FlipRow

Titles = Mapping[str, str]
# By verdict: colour, sign and its colour. In grey, a dark, a middling, a white and a pale one.
LOOKS = {
    "supported": (style.BLUE, "+", "white"),
    "contradicted": (style.ORANGE, "−", "black"),
    "undecided": ("#FFFFFF", "", "black"),
    "not tested": ("#E4E4E4", "×", "black"),
}
# Inches of a row, of a column that is broad enough for it, and of one that has room for a claim's title; characters of
# a choice's name, and of a line of a claim's.
ROW, WIDEST, NARROWEST, WIDE, UPRIGHT = 0.135, 0.5, 0.4, 40, 40
# Rows between one axis and the next.
GAP = 0.45
NOTHING = "The study tests no claim."


def draw_flips(rows: Sequence[FlipRow], titles: Titles) -> plt.Figure:
    """A column for each claim, a row for each choice; frames mark flips, broad ones reversals."""
    claims = by_claim(rows)
    if not claims:
        figure = plt.figure(figsize=(style.COLUMN, 0.5))
        figure.text(0.5, 0.5, NOTHING, ha="center", va="center")
        return figure
    recipes, choices = has_recipes(rows), claims[0]
    places = places_of(choices)
    names = [name_of(row, titles) for row in choices]
    left = max(map(wording.cells, [*names, "flips"])) / wording.CHARACTERS
    total = style.COLUMN if left + WIDEST * len(claims) <= style.COLUMN else style.PAGE
    is_narrow = (total - left) / len(claims) < NARROWEST
    headings = [heading_of(group[0], recipes, is_narrow) for group in claims]
    above = max(wording.cells(line) for text in headings for line in text.split("\n")) / wording.CHARACTERS + 0.1
    size = total, above + ROW * (places[-1] + 2.2) + 0.2
    figure = plt.figure(figsize=size, layout="constrained")
    panel = figure.add_subplot()
    for number, group in enumerate(claims):
        for row, place in zip(group, places, strict=True):
            draw_cell(panel, row, number, place)
        panel.text(number, places[-1] + 1.2, str(counts_of(group).flips), ha="center", va="center")
    panel.set_xlim(-0.5, len(claims) - 0.5)
    panel.set_ylim(places[-1] + 1.7, -0.5)
    panel.set_xticks(range(len(claims)), headings, rotation=90)
    panel.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    panel.set_yticks([*places, places[-1] + 1.2], [*names, "flips"])
    panel.spines[:].set_visible(False)
    style.legend(figure, handles_of(rows))
    return figure


def places_of(choices: Sequence[FlipRow]) -> list[float]:
    """Where the choices stand from the top, in rows; axes are set apart."""
    places, place = [0.0], 0.0
    for before, row in zip(choices, choices[1:], strict=False):
        place += 1 + (GAP if row["axis"] != before["axis"] else 0)
        places.append(place)
    return places


def name_of(row: FlipRow, titles: Titles) -> str:
    """A choice with its axis, in a line."""
    assert row["axis"] in AXES
    label = choice_label(row, titles)
    text = f"{row['axis']}: {label}" if label else row["axis"]
    return text if len(text) <= WIDE else f"{text[: WIDE - 1]}…"


def heading_of(row: FlipRow, recipes: bool, is_narrow: bool) -> str:
    """A claim's number and title, in lines that stand upright; the number alone where there is no room."""
    recipe = f" ({row['recipe']})" if recipes and row["recipe"] else ""
    name = str(row["claim"]) if is_narrow else named(row["claim"], row["title"])
    return wording.in_lines(f"{name}{recipe}", UPRIGHT)


def draw_cell(panel: plt.Axes, row: FlipRow, column: int, place: float) -> None:
    """One verdict; pale where there is nothing to choose, framed where it flips."""
    colour, sign, ink = LOOKS[row["verdict"]]
    alpha = 0.35 if row["flip"] == ONLY else 1.0
    panel.add_patch(
        Rectangle((column - 0.5, place - 0.5), 1, 1, facecolor=colour, edgecolor="0.75", linewidth=0.4, alpha=alpha)
    )
    panel.text(column, place, sign, ha="center", va="center", color="black" if row["flip"] == ONLY else ink)
    if row["flip"] in FLIPS:
        line = 1.8 if row["flip"] == REVERSAL else 0.8
        look: dict[str, Any] = {"facecolor": "none", "edgecolor": "black", "linewidth": line, "zorder": 4}
        panel.add_patch(Rectangle((column - 0.42, place - 0.4), 0.84, 0.8, gid=row["flip"], **look))


def handles_of(rows: Sequence[FlipRow]) -> list[Patch]:
    """What the legend shows: the verdicts and flips that there are."""
    verdicts = {row["verdict"] for group in by_claim(rows) for row in group}
    handles = []
    for verdict, (colour, sign, _) in LOOKS.items():
        if verdict in verdicts:
            label = f"{sign} {verdict}".strip()
            handles.append(Patch(facecolor=colour, edgecolor="0.5", linewidth=0.4, label=label))
    kinds = {row["flip"] for row in rows}
    if kinds & {*FLIPS}:
        handles.append(Patch(facecolor="none", edgecolor="black", linewidth=0.8, label="lost or gained"))
    if REVERSAL in kinds:
        handles.append(Patch(facecolor="none", edgecolor="black", linewidth=1.8, label="reversed"))
    return handles
