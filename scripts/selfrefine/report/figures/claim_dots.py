"""Each comparison behind the claims: its estimate and intervals, and below it a dot for each seed."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt

from selfrefine.analysis.comparing import CHECKPOINTS, RUNS
from selfrefine.report.figures import style, wording
from selfrefine.report.labels import UNBROKEN, UNREFINED, named, several, ways_told
from selfrefine.schema.claim_results import AssessedClaim, ClaimComparison

Titles = Mapping[str, str]
# Inches around a claim's panel; characters of a line of a comparison's name.
AROUND, WIDE = 0.42, 48
# Lines from an estimate down to its dots, and from dots to those that would cover them; points within which they do.
BELOW, LEVEL, CLOSE = 0.42, 0.2, 1.0
LEVELS = 4
# By verdict: colour, marker, and whether it is filled.
LOOKS = {
    "supported": (style.BLUE, "o", True),
    "contradicted": (style.VERMILION, "s", True),
    "undecided": (style.BLACK, "D", False),
}
# By what an interval holds for.
WIDTHS = {CHECKPOINTS: 2.4, RUNS: 0.9}
NOTHING = "The study has no comparison that the claims are about."


def draw_claims(claims: Sequence[AssessedClaim], titles: Titles, settings: Mapping[str, Any]) -> plt.Figure:
    """A panel for each claim, a row for each of its comparisons; `settings`: level and margin of the tests."""
    tested = [claim for claim in claims if rows_of(claim)]
    if not tested:
        figure = plt.figure(figsize=(style.COLUMN, 0.5))
        figure.text(0.5, 0.5, wording.wrapped(NOTHING, 40), ha="center", va="center")
        return figure
    every = [row for claim in tested for row in rows_of(claim)]
    told = several(every, "student", "share")
    names = [style.rows_of((name_of(row, titles, told) for row in rows_of(claim)), WIDE) for claim in tested]
    # A row needs room for its dots.
    names = [spaced(rows) for rows in names]
    figure, axes = plt.subplots(
        len(tested),
        1,
        figsize=(style.PAGE, sum(wording.LINE * rows.lines + AROUND for rows in names) + 0.3),
        height_ratios=[rows.lines for rows in names],
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    several_recipes = len({claim["recipe"] for claim in tested} - {""}) > 1
    for panel, claim, rows in zip(axes[:, 0], tested, names, strict=True):
        draw_bounds(panel, claim["says"], settings["margin"])
        for row, place in zip(rows_of(claim), rows.places, strict=True):
            draw_comparison(panel, row, place)
        panel.set_title(title_of(claim, several_recipes))
        rows.fit(panel)
        rows.label(panel)
    axes[-1, 0].set_xlabel("accuracy points")
    left = max(rows.inches for rows in names)
    style.legend(figure, handles_of(tested, settings), left)
    return figure


def rows_of(claim: AssessedClaim) -> list[ClaimComparison]:
    """The comparisons of a claim, part by part."""
    return [row for part in claim["parts"] for row in part["comparisons"]]


def spaced(rows: style.Rows) -> style.Rows:
    """Rows set apart by the room that dots take."""
    places = [place + BELOW * number for number, place in enumerate(rows.places)]
    return rows._replace(places=places, lines=rows.lines + BELOW * len(places))


def name_of(row: ClaimComparison, titles: Titles, told: set[str]) -> str:
    """What is compared: the arms, of whom, taught by whom, on which benchmark."""
    compared = " − ".join(row.get("compared", (row["arm"], row["against"])))
    taught = f"by {row['teacher']}" if row["teacher"] else ""
    if row["arm"] == row["against"] and row["against_teacher"] != row["teacher"]:
        taught = f"by {row['teacher']} − by {row['against_teacher']}"
    trained, refined = (titles.get(row[fact], row[fact]) for fact in ("task", "refine_task"))
    on = titles.get(row["evaluation"], row["evaluation"])
    learned = " → ".join(dict.fromkeys(task for task in (trained, refined) if task))
    facts = [
        compared,
        row["student"] if "student" in told else "",
        taught,
        on if learned in ("", on) else f"{learned}, evaluated on {on}",
        f"{row['share']} %" if "share" in told and row["share"] != "" else "",
        ways_told(row),
    ]
    mark = f"{UNBROKEN}{UNREFINED}" if row.get("left_out") or row.get("unrefined") else ""
    return ", ".join(filter(None, facts)) + mark


def draw_bounds(panel: plt.Axes, says: str, margin: float) -> None:
    """A line at 0, and broken ones at the margins that the claim allows for."""
    panel.axvline(0, color="0.75", linewidth=0.8, zorder=0)
    for bound in {"above": (), "not below": (-margin,), "about": (-margin, margin)}[says]:
        panel.axvline(bound, color="0.45", linewidth=0.8, linestyle="--", zorder=0)


def title_of(claim: AssessedClaim, several_recipes: bool) -> str:
    """A claim with its verdict, and the level of its intervals: a margin is judged by narrower ones."""
    recipe = f" ({claim['recipe']})" if claim["recipe"] and several_recipes else ""
    levels = dict.fromkeys(f"{100 * row['interval_level']:.3g}" for row in rows_of(claim))
    return f"{named(claim['claim'], claim['title'])}{recipe}: {claim['verdict']}, {' and '.join(levels)} % intervals"


def draw_comparison(panel: plt.Axes, row: ClaimComparison, place: float) -> None:
    """One comparison: the estimate, its interval for each population, and the seeds below."""
    colour, marker, is_filled = LOOKS[row["verdict"]]
    for estimate in row["estimates"]:
        ends, width = [100 * estimate["low"], 100 * estimate["high"]], WIDTHS[estimate["holds_for"]]
        panel.plot(ends, [place, place], color=colour, linewidth=width, zorder=2, solid_capstyle="butt")
    look = {"color": colour, "markerfacecolor": colour if is_filled else "white", "markersize": 4, "zorder": 4}
    panel.plot(100 * row["difference"], place, marker, **look)
    seeds = sorted(100 * (seed["gained"] - seed["lost"]) / row["items"] for seed in row["by_seed"])
    levels = levels_of(seeds)
    panel.plot(seeds, [place + BELOW + LEVEL * level for level in levels], ".", color="0.45", markersize=3, zorder=3)


def levels_of(values: Sequence[float]) -> list[int]:
    """How many places below the first one each of the sorted values stands, so that all dots are seen."""
    levels: list[int] = []
    for number, value in enumerate(values):
        near = {level for level, other in zip(levels, values[:number], strict=True) if value - other < CLOSE}
        levels.append(next((level for level in range(LEVELS) if level not in near), number % LEVELS))
    return levels


def handles_of(claims: Sequence[AssessedClaim], settings: Mapping[str, Any]) -> list[Any]:
    """What a legend shows: verdicts, the seeds' dots, margins, the narrower intervals, and what was left out."""
    every = [(row, claim["says"]) for claim in claims for row in rows_of(claim)]
    handles = []
    for verdict, (colour, marker, is_filled) in LOOKS.items():
        if any(row["verdict"] == verdict for row, _ in every):
            fill = colour if is_filled else "white"
            handles.append(style.line(verdict, color=colour, marker=marker, markerfacecolor=fill, linewidth=0.9))
    populations = {estimate["holds_for"] for row, _ in every for estimate in row["estimates"]}
    for population, width in WIDTHS.items():
        if population in populations:
            handles.append(style.line(population, color=style.BLACK, linewidth=width))
    handles.append(style.line("one seed", color="0.45", marker=".", markersize=3, linestyle=""))
    if any(says != "above" for _, says in every):
        handles.append(
            style.line(f"margin, {settings['margin']:g} points", color="0.45", linestyle="--", linewidth=0.8)
        )
    if any(row.get("left_out") for row, _ in every):
        handles.append(style.line(f"{UNREFINED} seeds left out: too few pairs", linestyle=""))
    elif any(row.get("unrefined") for row, _ in every):
        handles.append(style.line(f"{UNREFINED} seeds with too few pairs count", linestyle=""))
    return handles
