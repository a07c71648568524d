"""The verdict on each claim under every other choice that the data allow for: which flip.

A verdict flips by a reversal (supported turns into contradicted, or the other way around), a loss (decided turns into
undecided) or a gain (undecided turns into decided). A choice that takes away all that a part of a claim is tested on
says nothing of the claim, and counts as untested.

Fewer seeds lose power by themselves. How often a verdict flips by that alone is drawn from the same answers: within
each item, the seeds of all arms are permuted, and the first ones are kept. Items' means over all seeds stay as they are,
and seeds differ by chance alone. What counts are the draws in which all seeds give the verdict as configured. More flips
than these come from seeds that do differ.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from selfrefine.analysis import statistics
from selfrefine.analysis.choices import SEED, Choice
from selfrefine.analysis.comparing import Pairing, moderate, p_of, p_without, sides
from selfrefine.analysis.flip_kinds import CONFIGURED, FLIPS, ONLY, SAME, kind_of_flip
from selfrefine.analysis.kept_answers import KeptAnswers
from selfrefine.analysis.looks import level_at
from selfrefine.analysis.paper_claims import CLAIMS, Arm, Claim, arms_of
from selfrefine.analysis.statistics import Components
from selfrefine.analysis.unrefined import Unrefined, kept
from selfrefine.analysis.verdicts import Key, judge, key_of, pairs_of, recipes_of, verdict_of
from selfrefine.schema.claim_results import ClaimComparison, FlipRow, HangsOn, OutlyingRun
from selfrefine.schema.results import EvaluatedCell

# So many draws of what fewer seeds flip by themselves.
DRAWS = 100
# A claim's number or name, and the preference recipe.
Named = tuple[int | str, str]
Odd = Callable[[Pairing], list[OutlyingRun]]


class Design(NamedTuple):
    """The comparisons of all claims: both arms by key, and of each claim the recipes and (recipe, part, key)."""

    sides: dict[Key, tuple[Arm, Arm]]
    claims: list[tuple[Claim, list[str], list[tuple[str, int, Key]]]]


class Compared(NamedTuple):
    """One comparison under a choice; `row` has what `verdicts.judge` reads and adds."""

    pairing: Pairing
    of: Components
    row: ClaimComparison


class Judged(NamedTuple):
    """A claim under a choice: its verdict, its comparisons, and which of its parts are not tested."""

    claim: Claim
    verdict: str
    compared: list[Compared]
    untested: list[bool]

    @property
    def numbers(self) -> list[tuple[float, ...]]:
        """What tells whether another choice leaves every number of the claim as it is."""
        return [
            (one.row["difference"], one.row["p"], one.row["alpha"], one.row["corrected_p"]) for one in self.compared
        ]


def design_of(cells: Sequence[EvaluatedCell], claims: Sequence[Claim] = CLAIMS) -> Design:
    """The comparisons that cells hold."""
    arms, found = arms_of(cells), Design({}, [])
    for claim in claims:
        places = []
        for recipe, part, treated, control in pairs_of(claim, arms):
            key = key_of(treated, control)
            found.sides[key] = treated, control
            places.append((recipe, claim.parts.index(part), key))
        found.claims.append((claim, recipes_of(claim, arms), places))
    return found


def judged_by(design: Design, pairings: Mapping[Key, Pairing], choice: Choice, odd: Odd) -> dict[Named, Judged]:
    """All claims under a choice; the same verdicts as `verdicts.assess` gives."""
    judged = {}
    for claim, recipes, places in design.claims:
        keys = dict.fromkeys(key for _, _, key in places if key in pairings)
        compared = {key: _compared(pairings[key], claim.says, choice, odd) for key in keys}
        rows = [one.row for one in compared.values()]
        for family in [rows] if choice.corrected else [[row] for row in rows]:
            judge(family, claim.says, choice.policy.level, choice.policy.margin)
        for recipe in recipes:
            parts: list[list[str]] = [[] for _ in claim.parts]
            for of, part, key in places:
                if of == recipe:
                    parts[part].append(compared[key].row["verdict"] if key in compared else "not tested")
            mine = dict.fromkeys(key for of, _, key in places if of == recipe and key in compared)
            untested = [not part or "not tested" in part for part in parts]
            found = Judged(claim, verdict_of(parts), [compared[key] for key in mine], untested)
            judged[claim.number, recipe] = found
    return judged


def _compared(one: Pairing, says: str, choice: Choice, odd: Odd) -> Compared:
    of = one.difference if choice.runs else statistics.these_checkpoints(one.difference)
    margin, runs = choice.policy.margin, odd(one) if choice.runs else []
    row = {
        "difference": of.mean,
        "p": p_of(of, says, margin),
        "alpha": choice.policy.alpha(len(one.seeds)),
        "identical": not of.square,
        "p_without_outlying": p_without(one, (run["seed"] for run in runs), says, margin) if runs else None,
    }
    return Compared(one, of, cast(ClaimComparison, row))


class Flips:
    """The claims of a study under all choices; `files`: the judged answers of unrefined checkpoints."""

    def __init__(
        self,
        choices: Sequence[Choice],
        answers: KeptAnswers,
        files: frozenset[Path],
        claims: Sequence[Claim] = CLAIMS,
    ):
        self.choices = choices
        self.claims = claims
        self.answers = answers
        self.files = files
        self.configured = self.judged(choices[0])

    def _paired(self, choice: Choice) -> tuple[Design, dict[Key, Pairing]]:
        design, unrefined = design_of(choice.cells, self.claims), Unrefined(self.files, choice.counted)
        both = {key: kept(*arms, unrefined) for key, arms in design.sides.items()}
        tested = {key: one for key, one in both.items() if not one.is_empty}
        whole = moderate([self.answers.pairing(one, choice.extractor) for one in tested.values()])
        return design, dict(zip(tested, whole, strict=True))

    def judged(self, choice: Choice) -> dict[Named, Judged]:
        """All claims under a choice."""
        design, pairings = self._paired(choice)
        return judged_by(design, pairings, choice, lambda one: self.answers.outlying(one, choice.extractor))

    def rows(self) -> list[FlipRow]:
        """A row for each claim under each choice, claim by claim."""
        under = [self.judged(choice) if choice.possible else self.configured for choice in self.choices]
        expected = self.expected()
        return [
            self._row(named, choice, judged.get(named), expected.get(choice.subset, {}).get(named, math.nan))
            for named in self.configured
            for choice, judged in zip(self.choices, under, strict=True)
        ]

    def expected(self) -> dict[int, dict[Named, float]]:
        """By number of seeds and claim, in which share of draws the verdict flips although seeds do not differ.

        Of the draws in which all seeds give the verdict as configured; NaN where none does.
        """
        fewer = {choice.subset: choice for choice in self.choices if choice.subset}
        if not fewer:
            return {}
        configured = self.choices[0]
        design, pairings = self._paired(configured)
        agreeing = dict.fromkeys(self.configured, 0)
        flips = {seeds: dict.fromkeys(self.configured, 0) for seeds in fewer}
        for draw in range(DRAWS):
            drawn = interchanged(list(pairings.values()), np.random.default_rng([SEED, draw]))
            whole = judged_by(design, _moderated(pairings, drawn), configured, _outlying)
            agree = [named for named, one in self.configured.items() if whole[named].verdict == one.verdict]
            for named in agree:
                agreeing[named] += 1
            for seeds, choice in fewer.items():
                left = [first(one, seeds) for one in drawn]
                judged = judged_by(design, _moderated(pairings, left), choice, _outlying)
                for named in agree:
                    flips[seeds][named] += (
                        kind_of_flip(self.configured[named].verdict, judged[named].verdict, 0) in FLIPS
                    )
        return {
            seeds: {named: count / agreeing[named] if agreeing[named] else math.nan for named, count in of.items()}
            for seeds, of in flips.items()
        }

    def _row(self, named: Named, choice: Choice, judged: Judged | None, expected: float) -> FlipRow:
        before = self.configured[named]
        number, recipe = named
        verdict, untested = "not tested", before.untested.count(False)
        if judged:
            verdict = judged.verdict
            pairs = zip(judged.untested, before.untested, strict=True)
            untested = sum(lacks and not lacked for lacks, lacked in pairs)
        if choice.axis == CONFIGURED:
            flip = CONFIGURED
        elif not choice.possible:
            flip = ONLY
        elif judged and judged.numbers == before.numbers and judged.untested == before.untested:
            flip = SAME
        else:
            flip = kind_of_flip(before.verdict, verdict, untested)
        compared = judged.compared if judged else []
        counts = [one.row["verdict"] for one in compared]
        return {
            "claim": number,
            "title": before.claim.title,
            "recipe": recipe,
            "axis": choice.axis,
            "choice": choice.name,
            "verdict": verdict,
            "flip": flip,
            "expected": expected,
            "untested_parts": untested,
            "comparisons": len(counts),
            "supported": counts.count("supported"),
            "contradicted": counts.count("contradicted"),
            "undecided": counts.count("undecided"),
            "extractor": choice.extractor,
            **_comparison(hangs_on(compared, verdict), before.claim.says, choice),
        }


def interchanged(pairings: Sequence[Pairing], generator: np.random.Generator) -> list[Pairing]:
    """The pairings, their seeds permuted within each item, alike for all arms of a benchmark."""
    orders: dict[tuple[str, tuple[int | str, ...]], np.ndarray] = {}
    found = []
    for one in pairings:
        of, shape = (one.treated.evaluation, tuple(one.seeds)), (len(one.seeds), one.correct.shape[1])
        if of not in orders:
            orders[of] = np.argsort(generator.random(shape), axis=0)
        correct, before = (
            side if len(side) == 1 else np.take_along_axis(side, orders[of], axis=0)
            for side in (one.correct, one.correct_before)
        )
        difference = statistics.paired(correct, before)
        found.append(one._replace(correct=correct, correct_before=before, difference=difference))
    return found


def first(one: Pairing, seeds: int) -> Pairing:
    """So many seeds of a pairing; a side without seeds stays as it is."""
    correct, before = (side if len(side) == 1 else side[:seeds] for side in (one.correct, one.correct_before))
    difference = statistics.paired(correct, before)
    return one._replace(seeds=one.seeds[:seeds], correct=correct, correct_before=before, difference=difference)


def _moderated(keys: Iterable[Key], pairings: Sequence[Pairing]) -> dict[Key, Pairing]:
    return dict(zip(keys, moderate(pairings), strict=True))


def _outlying(one: Pairing) -> list[OutlyingRun]:
    """None: where seeds are interchanged, no run is a run any more."""
    return []


def hangs_on(compared: Sequence[Compared], verdict: str) -> Compared | None:
    """The comparison that a verdict hangs on: the surest that contradicts, else the least sure one."""

    def certainty(one: Compared) -> tuple[float, float]:
        return one.row["corrected_p"], one.row["p"]

    if verdict == "contradicted":
        return min((one for one in compared if one.row["verdict"] == verdict), key=certainty)
    still_open = [one for one in compared if one.row["verdict"] == "undecided"]
    return max(still_open or compared, key=certainty, default=None)


def _comparison(one: Compared | None, says: str, choice: Choice) -> HangsOn:
    """The columns of the comparison that a verdict hangs on."""
    if one is None:
        blank: dict[type, object] = {str: "", int: 0, float: math.nan}
        return cast(HangsOn, {name: blank[kind] for name, kind in HangsOn.__annotations__.items()})
    pairing, of, row = one
    treated, control, seeds = pairing.treated, pairing.control, len(pairing.seeds)
    # As comparing.compare has it.
    level = 1 - (row["alpha"] or level_at(seeds, 1 - choice.policy.level, "any")) * 2 / sides(says)
    low, high = statistics.interval(of, level)
    return {
        "arm": treated.arm,
        "against": control.arm,
        "student": treated.student,
        "teacher": treated.teacher or control.teacher,
        "against_teacher": control.teacher,
        "task": treated.task or control.task,
        "refine_task": treated.refine_task,
        "share": str(treated.share),
        "evaluation": treated.evaluation,
        "items": of.items,
        "seeds": seeds,
        "accuracy": float(pairing.correct.mean()),
        "against_accuracy": float(pairing.correct_before.mean()),
        "difference": of.mean,
        "low": low,
        "high": high,
        "interval_level": level,
        "p": row["p"],
        "corrected_p": row["corrected_p"],
        "samples": " ".join(str(path) for path in treated.samples.values()),
        "against_samples": " ".join(str(path) for path in control.samples.values()),
    }
