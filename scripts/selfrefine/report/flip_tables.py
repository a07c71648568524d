"""The verdicts under other choices, as tables and in words: flips by claim, by axis, and one by one."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast, get_type_hints

from selfrefine.analysis.flip_kinds import (
    AXES,
    FLIPS,
    ONLY,
    SAME,
    UNTESTED,
    judged_choices,
)
from selfrefine.report.formats import NONE, PAGES, Number, Rows, Table
from selfrefine.report.labels import named
from selfrefine.report.model_names import AS_NAMED, Models
from selfrefine.report.paper_tables import grouped
from selfrefine.report.study_tables import typed
from selfrefine.schema.claim_results import FlipRow

Titles = Mapping[str, str]


class Counts(NamedTuple):
    """How many verdicts flip, of how many choices that change a number."""

    choices: int
    reversals: int
    losses: int
    gains: int
    untested: int
    same: int

    @property
    def flips(self) -> int:
        return self.reversals + self.losses + self.gains

    @property
    def told(self) -> str:
        """In words."""
        kinds = f"{self.reversals} reversed, {self.losses} lost, {self.gains} gained"
        return f"Of {self.choices} verdicts under other choices, {kinds}"


def read_flips(path: Path, models: Models = AS_NAMED) -> list[FlipRow]:
    """flips.csv as typed rows, with the titles of students and teachers."""
    kinds = get_type_hints(FlipRow) | {"claim": str}
    with open(path, encoding="utf-8", newline="") as file:
        rows = [cast(FlipRow, models.titled(typed(cells, kinds))) for cells in csv.DictReader(file)]
    # A number is one of the paper's claims, a name one of the study's own.
    return [{**row, "claim": int(row["claim"]) if str(row["claim"]).isdigit() else row["claim"]} for row in rows]


def counts_of(rows: Sequence[FlipRow]) -> Counts:
    """The flips among some rows."""
    kinds = [row["flip"] for row in rows]
    counted = (kinds.count(kind) for kind in (*FLIPS, UNTESTED, SAME))
    return Counts(len(judged_choices(rows)), *counted)


def by_claim(rows: Sequence[FlipRow]) -> list[list[FlipRow]]:
    """The rows of each claim that the study tests, under each preference recipe."""
    found = grouped(rows, lambda row: (row["claim"], row["recipe"])).values()
    return [group for group in found if any(row["verdict"] != "not tested" for row in group)]


def choice_label(row: FlipRow, titles: Titles) -> str:
    """A choice in words, with the benchmark's title."""
    word, space, name = row["choice"].partition(" ")
    return f"{word} {titles[name]}" if space and row["axis"] == "benchmark" and name in titles else row["choice"]


def claim_name(row: FlipRow, recipes: bool) -> str:
    """A claim's number and title; the recipe where there are several."""
    return named(row["claim"], row["title"]) + (f" ({row['recipe']})" if recipes and row["recipe"] else "")


def has_recipes(rows: Sequence[FlipRow]) -> bool:
    """Whether claims have verdicts for several preference recipes."""
    return len({row["recipe"] for row in rows} - {""}) > 1


def of_seeds(rows: Sequence[FlipRow]) -> str:
    """How many verdicts flip under fewer seeds, and how many would if seeds did not differ."""
    flips, expected, choices = under_fewer_seeds(rows)
    return f"{flips} of {choices} ({expected})" if choices else NONE


def under_fewer_seeds(rows: Sequence[FlipRow]) -> tuple[int, str, int]:
    """The flips under fewer seeds, how many are expected by themselves (as text), and the choices."""
    fewer = [row for row in judged_choices(rows) if row["axis"] == "seeds"]
    expected = sum(row["expected"] for row in fewer)
    return sum(row["flip"] in FLIPS for row in fewer), NONE if math.isnan(expected) else f"{expected:.1f}", len(fewer)


def flips_at(rows: Sequence[FlipRow], titles: Titles) -> str:
    """The choices at which a claim's verdict flips, reversals first; those of seeds are only counted."""
    told = []
    for kind in FLIPS:
        mine = [row for row in rows if row["flip"] == kind]
        names = [choice_label(row, titles) for row in mine if row["axis"] != "seeds"]
        seeds = sum(row["axis"] == "seeds" for row in mine)
        names += [f"{seeds} subset{'s' if seeds > 1 else ''} of seeds"] if seeds else []
        told += [f"{kind}: {', '.join(names)}"] if names else []
    return "; ".join(told) or NONE


def claims_table(rows: Sequence[FlipRow], titles: Titles) -> Table:
    """A row for each claim: its verdict as configured, and how many others there are."""
    recipes, lines = has_recipes(rows), cast(Rows, [])
    for group in by_claim(rows):
        counts = counts_of(group)
        numbers = [str(number) for number in (counts.choices, counts.reversals, counts.losses, counts.gains)]
        named = [claim_name(group[0], recipes), group[0]["verdict"]]
        lines.append([*named, *numbers, of_seeds(group), flips_at(group, titles)])
    header = ["claim", "verdict", "choices", "reversals", "losses", "gains", "fewer seeds", "flips at"]
    return Table("flips", "", header, lines, [*"llrrrrr", "p{5cm}"])


def axes_table(rows: Sequence[FlipRow], titles: Titles) -> Table:
    """A row for each axis, over all claims that the study tests."""
    tested = [row for group in by_claim(rows) for row in group]
    lines: Rows = []
    for axis in AXES[1:]:
        mine = [row for row in tested if row["axis"] == axis]
        counts = counts_of(mine)
        named = list(dict.fromkeys(choice_label(row, titles) for row in mine if row["flip"] != ONLY))
        only = list(dict.fromkeys(choice_label(row, titles) for row in mine if row["flip"] == ONLY))
        shown = named if len(named) <= len(AXES) else [*named[:4], f"… {len(named)} in all"]
        lines.append([axis, *map(str, counts), ", ".join([*shown, *only]) or NONE])
    header = ["axis", "verdicts", "reversals", "losses", "gains", "untested", "same numbers", "choices"]
    return Table("axes", "", header, lines, [*"lrrrrrr", "p{5cm}"])


def flips_table(rows: Sequence[FlipRow], titles: Titles) -> Table:
    """A row for each flip, reversals first, with the comparison that the verdict hangs on."""
    recipes, lines = has_recipes(rows), cast(Rows, [])
    for kind in FLIPS:
        for row in rows:
            if row["flip"] == kind:
                names = [claim_name(row, recipes), kind, row["axis"], choice_label(row, titles), row["verdict"]]
                lines.append([*names, compared(row, titles), Number(*points(row))])
    header = ["claim", "flip", "axis", "choice", "verdict", "hangs on", "points"]
    return Table("each", "", header, lines, list("lllllll"))


def compared(row: FlipRow, titles: Titles) -> str:
    """The comparison that a verdict hangs on, in words."""
    if not row["arm"]:
        return NONE
    taught = f", {row['teacher']}" if row["teacher"] else ""
    share = f", {row['share']} %" if row["share"] else ""
    on = titles.get(row["evaluation"], row["evaluation"])
    return f"{row['arm']} − {row['against']}, {row['student']}{taught}, {on}{share}"


def points(row: FlipRow) -> tuple[float, float, float]:
    """Its difference with the interval, in accuracy points."""
    return 100 * row["difference"], 100 * row["low"], 100 * row["high"]


def flips_page(rows: Sequence[FlipRow], titles: Titles) -> str:
    """Markdown: the flips by claim, by axis, and one by one."""
    return PAGES.get_template("templates/flips.md.j2").render(
        claims=claims_table(rows, titles),
        axes=axes_table(rows, titles),
        each=flips_table(rows, titles),
        line=flips_line(rows),
    )


def summary_line(rows: Sequence[FlipRow]) -> str:
    """The flips of all claims in a line of the summary; "" where there is no other choice."""
    counts = counts_of([row for group in by_claim(rows) for row in group])
    return f"{counts.told[0].lower()}{counts.told[1:]}" if counts.choices else ""


def flips_line(rows: Sequence[FlipRow]) -> str:
    """The flips of all claims in words."""
    groups = by_claim(rows)
    tested = [row for group in groups for row in group]
    counts = counts_of(tested)
    if not groups:
        return "The study tests no claim."
    if not counts.choices:
        return "The study's data allow for no other choice that changes a number of a claim."
    flipping = sum(counts_of(group).flips > 0 for group in groups)
    told = f"{counts.told}. {flipping} of {len(groups)} claims flip at some choice."
    flips, expected, choices = under_fewer_seeds(tested)
    if choices and expected != NONE:
        told += f" With fewer seeds {flips} of {choices} verdicts flip; by the loss of power alone {expected} would."
    return told
