"""The verdicts on the claims on the page: marks, and effects in a forest plot."""

from collections.abc import Sequence
from typing import NamedTuple

from selfrefine.analysis.advice import would_decide
from selfrefine.report.labels import UNBROKEN, UNREFINED, ways_told
from selfrefine.report.page.model_titles import ARMS
from selfrefine.report.page.page_inputs import PageInputs
from selfrefine.schema.claim_results import AssessedClaim, ClaimComparison

# Comparisons of a claim that stand on the first screen; the others are a click away.
FIRST = 4
WIDTH = 300
MARKS = {"supported": "circle", "contradicted": "cross", "undecided": "ring", "not tested": "dash"}


class Effect(NamedTuple):
    """One comparison: what is compared, the difference in points with its interval, and where it is drawn."""

    label: str
    detail: str
    verdict: str
    difference: float
    low: float
    high: float
    items: int
    seeds: int
    dots: list[float]
    """Where the difference of each seed is drawn."""
    p: float
    needed: str
    x: float
    left: float
    right: float
    inner: tuple[float, float] | None
    """The ends of the interval for these checkpoints, where the other one is for new training runs."""


class ClaimRow(NamedTuple):
    """A claim with its verdict and effects."""

    number: int | str
    title: str
    recipe: str
    verdict: str
    mark: str
    first: list[Effect]
    others: list[Effect]
    missing: list[str]
    notes: list[str]
    """What a reader of the verdict must know: few seeds, identical arms, outlying runs, looks."""
    zone: tuple[float, float] | None
    """Where, by the margin, the claim holds: drawn as a band; None where it is all above 0."""
    says: str


class Scale(NamedTuple):
    """The axis that all forest plots share, in points."""

    low: float
    high: float
    ticks: list[tuple[float, str]]

    def place(self, points: float) -> float:
        """Where a number of points stands on the axis."""
        return round(WIDTH * (min(max(points, self.low), self.high) - self.low) / (self.high - self.low), 1)


def claim_rows(inputs: PageInputs) -> tuple[list[ClaimRow], Scale]:
    """All claims, and the axis of their effects."""
    effects = [one for claim in inputs.claims for part in claim["parts"] for one in part["comparisons"]]
    scale = scale_of(effects)
    several = len({claim["recipe"] for claim in inputs.claims if claim["recipe"]}) > 1
    return [_row(inputs, claim, scale, several) for claim in inputs.claims], scale


def of_seeds(effect: ClaimComparison) -> list[float]:
    """The difference of each seed, as a share of 1."""
    return [(seed["gained"] - seed["lost"]) / effect["items"] for seed in effect["by_seed"]]


def scale_of(effects: Sequence[ClaimComparison]) -> Scale:
    """An axis with round ticks that holds every effect with its interval, and 0."""
    ends = [100 * end for effect in effects for end in (effect["low"], effect["high"], *of_seeds(effect))]
    least, most = min([-5.0, *ends]), max([5.0, *ends])
    step = next(step for step in (5, 10, 20, 25, 50) if (most - least) / step <= 6 or step == 50)
    low, high = step * (least // step), step * -(-most // step)
    scale = Scale(low, high, [])
    ticks = range(int(low), int(high) + 1, step)
    return scale._replace(
        ticks=[(scale.place(tick), f"{tick:+d}".replace("+0", "0").replace("-", "−")) for tick in ticks]
    )


def _row(inputs: PageInputs, claim: AssessedClaim, scale: Scale, several: bool) -> ClaimRow:
    effects = [_effect(inputs, one, scale) for part in claim["parts"] for one in part["comparisons"]]
    missing = [
        f"{part['title']} – needs {part['missing']}" if part["title"] else f"needs {part['missing']}"
        for part in claim["parts"]
        if part["missing"]
    ]
    margin = inputs.margin
    zones = {"not below": (scale.place(-margin), float(WIDTH)), "about": (scale.place(-margin), scale.place(margin))}
    says = {
        "above": "holds above 0",
        "not below": f"holds above −{margin:g}",
        "about": f"holds between −{margin:g} and +{margin:g}",
    }
    return ClaimRow(
        claim["claim"],
        claim["title"],
        claim["recipe"] if several else "",
        claim["verdict"],
        MARKS[claim["verdict"]],
        effects[:FIRST],
        effects[FIRST:],
        missing,
        claim["notes"],
        zones.get(claim["says"]),
        says[claim["says"]],
    )


def number_of(seeds: int) -> str:
    """So many seeds."""
    return f"{seeds} seed{'s' if seeds > 1 else ''}"


def _effect(inputs: PageInputs, one: ClaimComparison, scale: Scale) -> Effect:
    """One comparison on the axis."""
    models, (inner, *others) = inputs.models, one["estimates"]
    out, unrefined = len(one.get("left_out", ())), len(one.get("unrefined", ()))
    points, low, high = 100 * one["difference"], 100 * one["low"], 100 * one["high"]
    compared = f"{ARMS[one['arm']]} − {ARMS[one['against']].lower()}"
    if "compared" in one:
        compared = " − ".join(one["compared"])
        compared = compared[:1].upper() + compared[1:]
    elif one["arm"] == one["against"]:
        compared = f"Taught by {models.teacher(one['teacher'])} − by {models.teacher(one['against_teacher'])}"
    share = f", {one['share']} % of the demonstrations" if "share" in inputs.several and one["share"] != "" else ""
    share += f", {ways}" if (ways := ways_told(one)) else ""
    taught = f" taught by {models.teacher(one['teacher'])}" if one["teacher"] else ""
    lacking = f"; {number_of(out)} left out{UNBROKEN}{UNREFINED}" if out else ""
    lacking += f"; {number_of(unrefined)} with too few pairs{UNBROKEN}{UNREFINED}" if unrefined else ""
    return Effect(
        f"{compared}, {inputs.titles[one['evaluation']]}",
        f"{models.student(one['student'])}{taught}{share}{lacking}",
        one.get("verdict", "undecided"),
        points,
        low,
        high,
        one["items"],
        one["seeds"],
        [scale.place(100 * seed) for seed in of_seeds(one)] if one["seeds"] > 1 else [],
        one.get("corrected_p", one["p"]),
        would_decide(one.get("needed", {}), one["seeds"], one["items"]),
        scale.place(points),
        scale.place(low),
        scale.place(high),
        (scale.place(100 * inner["low"]), scale.place(100 * inner["high"])) if others else None,
    )
