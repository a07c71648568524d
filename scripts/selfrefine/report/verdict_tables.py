"""The verdicts on the claims, and the comparisons behind them, as tables and in Markdown."""

import collections
import math
from collections.abc import Mapping, Sequence

from selfrefine.analysis.verdicts import VERDICTS
from selfrefine.report.formats import NONE, PAGES, Rows, Table
from selfrefine.schema.results import AssessedClaim, ClaimComparison, ClaimPart


def points(value: float, sign: str = "") -> str:
    """A share of 1 in accuracy points; never -0.0."""
    return f"{round(100 * value, 1) + 0.0:{sign}.1f}"


def rounded_up(number: int) -> str:
    """A number rounded up to two digits."""
    step = 10 ** max(len(str(number)) - 2, 0)
    return f"{math.ceil(number / step) * step:,}"


def would_decide(rows: Sequence[ClaimComparison]) -> str:
    """How many items or seeds would decide all of the open comparisons."""
    rows = [row for row in rows if row["verdict"] == "undecided"]
    if not rows:
        return ""
    ways = []
    for unit, needed in (
        ("items", [row["items_needed"] for row in rows]),
        ("seeds", [row["seeds_needed"] for row in rows]),
    ):
        known = [number for number in needed if number is not None]
        if len(known) == len(needed):
            ways.append(f"{rounded_up(max(known))} {unit}")
    return " or ".join(ways) or "no number of items or seeds"


def claim_label(claim: AssessedClaim, margin: float) -> str:
    """A claim's number and title, the preference recipe it was tested with, and the margin that it allows for."""
    notes = [claim["recipe"], "" if claim["says"] == "above" else f"margin {margin:g} points"]
    shown = ", ".join(note for note in notes if note)
    return f"{claim['claim']}. {claim['title']}" + (f" ({shown})" if shown else "")


def verdicts_table(assessed: Sequence[AssessedClaim], margin: float) -> Table:
    """One row per claim, and one per part of those that have parts."""
    rows: Rows = []
    for claim in assessed:
        parts = claim["parts"]
        lines = [(claim_label(claim, margin), claim["verdict"], parts)]
        if len(parts) > 1:
            lines += [(f"– {part['title']}", part["verdict"], [part]) for part in parts]
        for name, verdict, members in lines:
            comparisons = [row for part in members for row in part["comparisons"]]
            counts = collections.Counter(row["verdict"] for row in comparisons)
            lacking = "; ".join(dict.fromkeys(f"needs {part['missing']}" for part in members if part["missing"]))
            holds = {0: NONE, 1: "these checkpoints"}.get(claim["seeds"], "new seeds") if comparisons else NONE
            needed = "; ".join(text for text in (would_decide(comparisons), lacking) if text) or NONE
            rows.append([name, verdict, *(str(counts[v]) for v in VERDICTS[:3]), holds, needed])
    header = ["claim", "verdict", "supported", "contradicted", "undecided", "holds for", "would decide"]
    caption = "Supported, contradicted and undecided count the comparisons of the claim, or of its part."
    return Table("claims", caption, header, rows, list("llrrrll"))


def comparisons_table(claim: AssessedClaim, part: ClaimPart, titles: Mapping[str, str]) -> Table:
    """One row per comparison of a part of a claim."""
    rows: Rows = []
    for row in part["comparisons"]:
        teacher = f"{row['teacher']} against {row['against_teacher']}"
        trained, refined = (titles.get(row[fact], row[fact]) for fact in ("task", "refine_task"))
        rows.append(
            [row["student"], teacher if row["against_teacher"] not in ("", row["teacher"]) else row["teacher"]]
            + [trained if refined in ("", trained) else f"{trained} → {refined}"]
            + [titles.get(row["evaluation"], row["evaluation"]), f"{row['share']} %"]
            + [f"{row['items']:,}", str(row["seeds"])]
            + [f"{points(row['accuracy'])} against {points(row['against_accuracy'])}"]
            + [f"{points(row['difference'], '+')} [{points(row['low'], '+')}, {points(row['high'], '+')}]"]
            + [f"{row['p']:.2g}", f"{row['corrected_p']:.2g}", row["verdict"]]
            + [NONE if row["detectable"] is None else points(row["detectable"]), would_decide([row]) or NONE]
        )
    header = ["student", "teacher", "trained on", "benchmark", "share", "items", "seeds", "accuracy", "difference"]
    header += ["p", "corrected p", "verdict", "detectable", "would decide"]
    sides = {(row["arm"], row["against"]) for row in part["comparisons"]}
    caption = "; ".join(f"{arm} against {against}" for arm, against in sorted(sides))
    return Table(f"claim-{claim['claim']}", caption, header, rows, list("lllllrrlrrrlrl"))


def claims_page(assessed: Sequence[AssessedClaim], level: float, margin: float, titles: Mapping[str, str]) -> str:
    """Markdown: the verdicts first, then how they come about, then every comparison."""
    return PAGES.get_template("templates/claims.md.j2").render(
        claims=assessed,
        alpha=f"{round(1 - level, 10):g}",
        percent=f"{100 * level:g}",
        margin=f"{margin:g}",
        verdicts=verdicts_table(assessed, margin),
        label=lambda claim: claim_label(claim, margin),
        comparisons=lambda claim, part: comparisons_table(claim, part, titles),
    )
