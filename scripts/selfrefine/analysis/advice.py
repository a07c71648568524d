"""What would decide the open comparisons of a claim: numbers of items and seeds, and their wording."""

import math
from collections.abc import Sequence

from selfrefine.analysis.comparing import sides
from selfrefine.analysis.power import needed, sizes
from selfrefine.analysis.statistics import Components
from selfrefine.schema.claim_results import Advice, ClaimComparison

UNITS = ("items", "seeds", "both")


def advise(rows: Sequence[ClaimComparison], says: str, margin: float) -> None:
    """Adds what would decide each open comparison of a claim by itself, at the level that Holm asks of the hardest."""
    alpha = alpha_of(rows, says)
    for row in rows:
        row["needed"] = advice([row], says, alpha, margin)


def alpha_of(rows: Sequence[ClaimComparison], says: str) -> float:
    """The two-sided level that Holm asks of the hardest of a claim's open comparisons; 0 at a look not declared."""
    still_open = [row for row in rows if row.get("verdict") == "undecided"]
    return min((row["alpha"] for row in still_open), default=0.0) * 2 / sides(says) / max(len(still_open), 1)


def advice(rows: Sequence[ClaimComparison], says: str, alpha: float, margin: float) -> Advice:
    """By unit, the number that decides all of the open ones among these rows together; {} where none is open.

    Each is [if the estimates are true, assured], as `power.Needed`. Nothing decides what a row contradicts already.
    """
    verdicts = [row.get("verdict") for row in rows]
    still_open = [row for row in rows if row.get("verdict") == "undecided"]
    if not still_open or not alpha or "contradicted" in verdicts or any(row.get("identical") for row in still_open):
        return {}
    asked = [Components(**row["components"]) for row in still_open]
    found = {unit: needed(asked, says, margin, alpha, unit) for unit in UNITS}
    return {unit: [number.estimated, number.assured] for unit, number in found.items() if number.assured is not None}


def would_decide(found: Advice, seeds: int, items: int) -> str:
    """The advice for a comparison of so many seeds and items in words; "" where nothing is asked for."""
    ways = [f"{_range(found[unit])} {unit}" for unit in ("items", "seeds") if unit in found]
    if "both" in found and len(ways) < 2:
        number = found["both"][1]
        assert number is not None, "advice is given with a number"
        more = sizes("both", number, seeds, items)[1]
        ways.append(f"{number:,} seeds on {_rounded_up(more):,} items")
    return " or ".join(ways)


def _range(numbers: Sequence[int | None]) -> str:
    low, high = numbers
    return f"{low:,} to {high:,}" if low is not None and high is not None and low < high else f"{high:,}"


def _rounded_up(number: int) -> int:
    step = 10 ** max(len(str(number)) - 2, 0)
    return math.ceil(number / step) * step


def claim_advice(rows: Sequence[ClaimComparison], found: Advice) -> str:
    """What would decide the open comparisons of a claim or part, in words."""
    still_open = [row for row in rows if row.get("verdict") == "undecided"]
    if not still_open or any(row.get("verdict") == "contradicted" for row in rows):
        return ""
    if any(row.get("identical") for row in still_open):
        return "arms that differ"
    if not all(row.get("alpha", 1) for row in still_open):
        return "a declared look"
    seeds, items = (max(row[fact] for row in still_open) for fact in ("seeds", "items"))
    return would_decide(found, seeds, items) or "no number of items or seeds"
