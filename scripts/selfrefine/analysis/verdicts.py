"""The verdicts on the paper's and a study's own claims: comparisons of arms, one verdict on each.

A claim speaks of every student, teacher, benchmark and share that it applies to. So it is split into comparisons, one
for each of them, over all training seeds and paired by item. Each comparison is judged by its two-sided p, corrected
by Holm over all comparisons of the claim, every preference recipe included. It is `supported` if p is at most 1 -
level and the estimate lies where the claim says, `contradicted` if p is at most 1 - level and it does not, else
`undecided`. The claim is

    contradicted   if any comparison contradicts it
    supported      if every comparison supports it, and no part of it is untested
    not tested     if the study has no comparison that it speaks of
    undecided      otherwise

`supported` errs with probability (1 - level) / 2 at most, and with a margin 1 - level, however the comparisons depend
on each other: if the claim were false in a single one, that one would have to be supported too (an intersection-union
test: Berger 1982, Technometrics 24:295). `contradicted` errs with probability 1 - level at most: that is what Holm's
correction bounds. There is nothing to choose: all comparisons that the study holds count, and each must be won. Fewer
items or seeds lead to `undecided`, never to `supported`; more comparisons make `supported` harder. The claim of a
small study is small, so the number of comparisons stands beside each verdict. With one seed a verdict is about the
checkpoints at hand, and says so: other seeds might lead to another. With several it is about new training runs; what
the same answers say of the checkpoints at hand stands beside it. Two arms with the same items correct under every
seed are named as identical, and decide nothing. A comparison that is supported only with an outlying training run is
undecided. Where looks are declared, p is held against the level of the look (looks.py).

"Reaches the teacher" and "about as good" name no margin; the configuration does, in accuracy points. Reaching is
non-inferiority: less than the margin below. About as good is equivalence: within the margin on both sides (two
one-sided tests, Schuirmann 1987). Each one-sided test is at 1 - level, so that the interval that decides has the
level 1 - 2 (1 - level), 90 % for 95 %. `overall` of each part is the mean over benchmarks as a random-effects model
sees it: it says how large an effect is, and decides nothing.
"""

import itertools
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from selfrefine.analysis import effects, matched_length, statistics, verdict_notes
from selfrefine.analysis.advice import advice, advise, alpha_of
from selfrefine.analysis.comparing import (
    CHECKPOINTS,
    RUNS,
    Pairing,
    Policy,
    bears_out,
    compare,
    moderate,
    paired,
)
from selfrefine.analysis.correctness import Answers
from selfrefine.analysis.paper_claims import CLAIMS, Arm, Claim, Part, arms_of
from selfrefine.analysis.unrefined import NEEDED, NONE, Unrefined, kept
from selfrefine.schema.claim_results import AssessedClaim, ClaimComparison, Overall
from selfrefine.schema.results import EvaluatedCell

Key = tuple[Any, ...]
Pairings = Mapping[Key, Pairing]
VERDICTS = ("supported", "contradicted", "undecided", "not tested")


def comparisons_of(part: Part, arms: list[Arm], recipe: str) -> Iterator[tuple[Arm, Arm]]:
    """(treated, control) of each comparison of a part of a claim, refined by `recipe` where refined at all.

    A study's own claim says itself which recipe the control was refined with.
    """
    if part.own:
        yield from (pair for pair in part.own.pairs(arms) if recipe in ("", pair[0].recipe))
        return
    mine = [arm for arm in arms if arm.recipe in ("", recipe)]
    controls: dict[Key, list[Arm]] = {}
    for arm in mine:
        if arm.arm == part.control:
            controls.setdefault(_key(part, arm), []).append(arm)
    for treated in mine:
        if treated.arm == part.treated:
            for control in controls.get(_key(part, treated), ()):
                if part.where(treated, control):
                    yield treated, control


def _key(part: Part, arm: Arm) -> Key:
    return (arm.evaluation, *(getattr(arm, fact) for fact in part.alike))


def judge(rows: Sequence[ClaimComparison], says: str, level: float, margin: float) -> None:
    """Adds the corrected p and the verdict to all comparisons of one claim.

    p is scaled to 1 - level where a look has less to spend.
    """
    scaled = [_scaled(row, 1 - level) for row in rows]
    for row, p in zip(rows, statistics.holm(scaled), strict=True):
        decided = "supported" if bears_out(says, row["difference"], margin) else "contradicted"
        row["corrected_p"] = p
        row["verdict"] = decided if p <= 1 - level and not row.get("identical") else "undecided"
        rest = row.get("p_without_outlying")
        if row["verdict"] == "supported" and rest is not None and rest > row["alpha"]:
            row["verdict"], row["rests_on_outlying"] = "undecided", True


def _scaled(row: ClaimComparison, alpha: float) -> float:
    spent = row.get("alpha", alpha)
    return min(1.0, row["p"] * alpha / spent) if spent else 1.0


def verdict_of(parts: Sequence[Sequence[str]]) -> str:
    """The verdict on a claim from the verdicts on its comparisons, part by part; a part without any is not tested."""
    found = [verdict for part in parts for verdict in part]
    if set(found) <= {"not tested"}:
        return "not tested"
    if "contradicted" in found:
        return "contradicted"
    return "supported" if all(parts) and set(found) == {"supported"} else "undecided"


def missing(claim: Claim, part: Part, arms: list[Arm]) -> str:
    """What the study would have to hold for a part of a claim to be tested."""
    if part.own:
        return part.needs
    lacking = [arm for arm in dict.fromkeys((part.treated, part.control)) if arm not in {arm.arm for arm in arms}]
    if lacking:
        return "the arm " + " and the arm ".join(lacking)
    several = len(_shares(arms)) > 1
    if claim.every_share:
        return part.needs if several else "more than one share"
    return f"{part.needs}, at the largest share" if several else part.needs


def _shares(arms: list[Arm]) -> list[int]:
    return sorted({arm.share for arm in arms if isinstance(arm.share, int)})


def pairs_of(claim: Claim, arms: list[Arm]) -> Iterator[tuple[str, Part, Arm, Arm]]:
    """(recipe, part, treated, control) of all comparisons of a claim; unrefined ones belong to every recipe."""
    shares = _shares(arms)
    if claim.is_own:
        looked_at = arms
    elif claim.every_share:
        looked_at = arms if len(shares) > 1 else []
    else:
        looked_at = [arm for arm in arms if arm.share in ("", *shares[-1:])]
    for recipe, part in itertools.product(recipes_of(claim, arms), claim.parts):
        for treated, control in comparisons_of(part, looked_at, recipe):
            yield recipe, part, treated, control


def recipes_of(claim: Claim, arms: list[Arm]) -> list[str]:
    """The preference recipes that a claim has a verdict for."""
    if claim.is_own:
        by_part = [dict.fromkeys(t.recipe for t, _ in part.own.pairs(arms)) for part in claim.parts if part.own]
        # Parts about different recipes, or about an unrefined arm too, make one claim together.
        alike = all(found.keys() == by_part[0].keys() for found in by_part)
        return list(by_part[0]) if alike and (len(by_part[0]) == 1 or "" not in by_part[0]) else [""]
    if all(part.treated in ("baseline", "instruct") for part in claim.parts):
        return [""]
    return list(dict.fromkeys(arm.recipe for arm in arms if arm.recipe)) or [""]


def overall(rows: Sequence[ClaimComparison], pairings: Sequence[Pairing]) -> Overall | None:
    """The mean difference over benchmarks; a benchmark's is the mean of its comparisons, which share its items."""
    if not rows:
        return None
    level, means, errors = rows[0]["interval_level"], [], []
    benchmarks = {one.treated.evaluation: one.difference.items for one in pairings}
    ends = 0.0, 0.0
    for benchmark in benchmarks:
        mine = [one for one in pairings if one.treated.evaluation == benchmark]
        gaps = [one.correct.astype(float) - one.correct_before.astype(float) for one in mine]
        # Where comparisons have other seeds, each counts with its mean over them.
        alike = len({gap.shape for gap in gaps}) == 1
        values = np.mean(gaps if alike else [gap.mean(axis=0, keepdims=True) for gap in gaps], axis=0)
        whole = mine[0].difference if len(mine) == 1 else statistics.components(values)._replace(shares=True)
        ends = statistics.interval(whole, level)
        means.append(whole.mean)
        errors.append((ends[1] - ends[0]) / 2 / statistics.critical(whole.seed_share, whole.df, 1 - level))
    found: Overall = {
        "benchmarks": len(means),
        "difference": means[0],
        "low": ends[0],
        "high": ends[1],
        "level": level,
        "between": None,
    }
    if len(means) > 1:
        mean = effects.mean_over(means, errors, level)
        found |= {"difference": mean.estimate, "low": mean.low, "high": mean.high, "between": mean.between**0.5}
    return found


def assess(
    claim: Claim,
    arms: list[Arm],
    pairings: Pairings,
    policy: Policy,
    titles: Mapping[str, str],
    students: Mapping[str, str],
) -> list[AssessedClaim]:
    """A claim's verdict, those on its parts, and every comparison behind them; once for each preference recipe.

    A comparison without a pairing, as all of its seeds are left out, is one that is not tested: a claim is not
    supported by those refinements alone that had enough pairs.
    """
    rows: dict[Key, ClaimComparison] = {}
    keys: dict[str, list[list[Key]]] = {recipe: [[] for _ in claim.parts] for recipe in recipes_of(claim, arms)}
    lost = {recipe: [0 for _ in claim.parts] for recipe in keys}
    for recipe, part, treated, control in pairs_of(claim, arms):
        key = key_of(treated, control)
        if key not in pairings:
            lost[recipe][claim.parts.index(part)] += 1
            continue
        if key not in rows:
            rows[key] = compare(part.title, pairings[key], claim.says, policy)
            if part.own:
                rows[key]["compared"] = part.own.told(treated, control)
        keys[recipe][claim.parts.index(part)].append(key)
    judge(list(rows.values()), claim.says, policy.level, policy.margin)
    matched_length.judge(list(rows.values()), 1 - policy.level)
    advise(list(rows.values()), claim.says, policy.margin)
    alpha = alpha_of(list(rows.values()), claim.says)
    assessed: list[AssessedClaim] = []
    for recipe, by_part in keys.items():
        found = [[rows[key] for key in mine] for mine in by_part]
        verdicts = [
            [*(row["verdict"] for row in mine), *["not tested"] * number]
            for mine, number in zip(found, lost[recipe], strict=True)
        ]
        seeds = min((row["seeds"] for mine in found for row in mine), default=0)
        assessed.append(
            {
                "claim": claim.number,
                "title": claim.title,
                "says": claim.says,
                "recipe": recipe,
                "verdict": verdict_of(verdicts),
                "seeds": seeds,
                "needed": advice([row for mine in found for row in mine], claim.says, alpha, policy.margin),
                "holds_for": "" if not seeds else CHECKPOINTS if seeds == 1 else RUNS,
                "notes": verdict_notes.notes([row for mine in found for row in mine], policy, titles, students),
                "parts": [
                    {
                        "title": part.title,
                        "verdict": verdict_of([of_part]),
                        "missing": NEEDED if "not tested" in of_part else "" if mine else missing(claim, part, arms),
                        "needed": advice(mine, claim.says, alpha, policy.margin),
                        "overall": overall(mine, [pairings[key] for key in which]),
                        "comparisons": mine,
                    }
                    for part, mine, which, of_part in zip(claim.parts, found, by_part, verdicts, strict=True)
                ],
            }
        )
        if policy.matched_length and claim.says == "above":
            beyond = [
                [*map(matched_length.verdict, mine), *["not tested"] * n]
                for mine, n in zip(found, lost[recipe], strict=True)
            ]
            assessed[-1]["beyond_length"] = verdict_of(beyond)
    return assessed


def key_of(treated: Arm, control: Arm) -> Key:
    """What tells a comparison from others, whatever claim it belongs to."""
    return treated[:-1] + control[:-1]


def assess_all(
    cells: Sequence[EvaluatedCell],
    extractor: str,
    policy: Policy,
    titles: Mapping[str, str],
    students: Mapping[str, str] = types.MappingProxyType({}),
    unrefined: Unrefined = NONE,
    claims: Sequence[Claim] = CLAIMS,
) -> list[AssessedClaim]:
    """`assess` of every claim, from the cells of the index; `students`: the titles of those that have one."""
    arms, answers = arms_of(cells), Answers(extractor)
    found = {
        key_of(treated, control): kept(treated, control, unrefined)
        for claim in claims
        for _, _, treated, control in pairs_of(claim, arms)
    }
    tested = {key: both for key, both in found.items() if not both.is_empty}
    whole = moderate(
        [
            paired(both.treated, both.control, answers, bool(policy.matched_length))._replace(
                unrefined=both.unrefined, left_out=both.left_out
            )
            for both in tested.values()
        ]
    )
    pairings = dict(zip(tested, whole, strict=True))
    return [assessed for claim in claims for assessed in assess(claim, arms, pairings, policy, titles, students)]
