"""The verdicts on the paper's claims: comparisons of arms, and one verdict on each claim.

A claim speaks of every student, teacher, benchmark and share that it applies to. So it is split into comparisons, one
for each of them, over all training seeds and paired by item. Each comparison is judged by its two-sided p, corrected by
Holm over all comparisons of the claim, every preference recipe included. It is `supported` if p is at most 1 - level
and the estimate lies where the claim says, `contradicted` if p is at most 1 - level and it does not, else `undecided`.
The claim is

    contradicted   if any comparison contradicts it
    supported      if every comparison supports it, and no part of it is untested
    not tested     if the study has no comparison that it speaks of
    undecided      otherwise

`supported` errs with probability (1 - level) / 2 at most, however the comparisons depend on each other: if the claim
were false in a single one, that one would have to be supported too (an intersection-union test: Berger 1982,
Technometrics 24:295). `contradicted` errs with probability 1 - level at most: that is what Holm's correction bounds.
There is nothing to choose: all comparisons that the study holds count, and each must be won. Fewer items or seeds lead
to `undecided`, never to `supported`; more comparisons make `supported` harder. The claim of a small study is small,
so the number of comparisons stands beside each verdict. With one seed a verdict is about the checkpoints at hand, and
says so: other seeds might lead to another.

"Reaches the teacher" and "about as good" name no margin; the configuration does, in accuracy points. Reaching is
non-inferiority: less than the margin below. About as good is equivalence: within the margin on both sides (two
one-sided tests, Schuirmann 1987).
"""

from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from selfrefine.analysis import statistics
from selfrefine.analysis.paper_claims import CLAIMS, Arm, Claim, Part
from selfrefine.analysis.pass_rate import test_of
from selfrefine.errors import UserError
from selfrefine.schema.results import AssessedClaim, ClaimComparison, EvaluatedCell, SeedTest
from selfrefine.schema.rows import item_of, judged_correct
from selfrefine.store.files import read_jsonl

Key = tuple[Any, ...]
VERDICTS = ("supported", "contradicted", "undecided", "not tested")


def arms_of(cells: Sequence[EvaluatedCell]) -> list[Arm]:
    """The cells of the index, their seeds put together."""
    arms: dict[Key, Arm] = {}
    for cell in cells:
        one = Arm._make((*itemgetter(*Arm._fields[:-1])(cell), {}))
        arms.setdefault(one[:-1], one).samples[cell["seed"]] = Path(cell["samples"])
    return list(arms.values())


def comparisons_of(part: Part, arms: list[Arm], recipe: str) -> Iterator[tuple[Arm, Arm]]:
    """(treated, control) of each comparison of a part of a claim, refined by `recipe` where refined at all."""
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


class Answers:
    """Which answers are correct, by item, under one extractor; each file is read once."""

    def __init__(self, extractor: str):
        self.extractor = extractor
        self._read: dict[Path, dict[str, bool | float]] = {}

    def of(self, path: Path) -> dict[str, bool | float]:
        """{item: correct} of a file of judged answers, a student's or a teacher's; of several answers, their share."""
        if path not in self._read:
            answers: dict[str, dict[int, bool]] = {}
            for row in read_jsonl(path):
                item, sample = item_of(row), row.get("sample", 0)
                if sample in answers.setdefault(item, {}):
                    raise UserError(f"{path}: item {item} is answered twice; evaluate again")
                answers[item][sample] = judged_correct(row, self.extractor)
            several = any(len(of_item) > 1 for of_item in answers.values())
            self._read[path] = {
                item: sum(of_item.values()) / len(of_item) if several else next(iter(of_item.values()))
                for item, of_item in answers.items()
            }
        return self._read[path]

    def paired(self, treated: Arm, control: Arm) -> tuple[list[int | str], np.ndarray, np.ndarray]:
        """(seeds, treated, control): bool[seeds, items], paired by seed and item; [1, items] without seeds."""
        if "" not in treated.samples and "" not in control.samples:
            for one, other in ((treated, control), (control, treated)):
                for seed in sorted(one.samples.keys() - other.samples.keys()):
                    raise UserError(f"{one.samples[seed]}: {other.arm} has no seed {seed} to compare it with")
        seeds = sorted(control.samples if "" in treated.samples else treated.samples)
        first = next(iter(treated.samples.values()))
        items = sorted(self.of(first))
        for path in (*treated.samples.values(), *control.samples.values()):
            here = self.of(path)
            for item in sorted(self.of(first).keys() ^ here.keys()):
                lacking, having = (first, path) if item in here else (path, first)
                raise UserError(f"{lacking}: lacks item {item}, which {having} has; evaluate both again")

        def outcomes(side: Arm) -> np.ndarray:
            files = [side.samples[seed] for seed in sorted(side.samples)]
            return np.array([[self.of(path)[item] for item in items] for path in files])

        return seeds, outcomes(treated), outcomes(control)


def bounds_of(says: str, margin: float) -> tuple[float, ...]:
    """The differences between which, or above which, a comparison bears a claim out; `margin` as a share of 1."""
    return {"above": (0.0,), "not below": (-margin,), "about": (-margin, margin)}[says]


def bears_out(says: str, estimate: float, margin: float) -> bool:
    """Whether a difference lies where the claim says."""
    return abs(estimate) < margin if says == "about" else estimate > bounds_of(says, margin)[0]


def compare(
    claim: Claim, part: Part, treated: Arm, control: Arm, answers: Answers, level: float, margin: float
) -> ClaimComparison:
    """One comparison: its facts, and its numbers but for those that depend on the claim's other comparisons."""
    seeds, correct, correct_before = answers.paired(treated, control)
    difference = statistics.paired(correct, correct_before)
    bounds = bounds_of(claim.says, margin)
    low, high = statistics.interval(difference, level)
    nearest = min(bounds, key=lambda bound: abs(difference.mean - bound))
    per_seed = zip(seeds, *np.broadcast_arrays(correct, correct_before), strict=True)
    return {
        "part": part.title,
        "arm": treated.arm,
        "against": control.arm,
        "student": treated.student,
        "teacher": treated.teacher or control.teacher,
        "against_teacher": control.teacher,
        "task": treated.task or control.task,
        "refine_task": treated.refine_task,
        "share": treated.share,
        "evaluation": treated.evaluation,
        "items": difference.items,
        "seeds": len(seeds),
        "accuracy": float(correct.mean()),
        "against_accuracy": float(correct_before.mean()),
        "difference": difference.mean,
        "low": low,
        "high": high,
        "bound": nearest,
        "p": max(statistics.p_value(difference, bound) for bound in bounds),
        "detectable": statistics.detectable(difference, nearest, 1 - level),
        "components": {name: value for name, value in difference._asdict().items() if name != "shares" or value},
        "by_seed": [seed_test(seed, a, b) for seed, a, b in per_seed],
        "samples": [str(path) for path in treated.samples.values()],
        "against_samples": [str(path) for path in control.samples.values()],
    }


def seed_test(seed: int | str, treated: np.ndarray, control: np.ndarray) -> SeedTest:
    """The test of one seed's paired outcomes, bool[items], or of shares."""
    gained, lost, p = statistics.mcnemar(treated, control)
    return {"seed": seed, "gained": gained, "lost": lost, "p": p, "test": test_of(treated, control)}


def judge(rows: Sequence[ClaimComparison], says: str, level: float, margin: float) -> None:
    """Adds the corrected p and the verdict to all comparisons of one claim."""
    for row, p in zip(rows, statistics.holm([row["p"] for row in rows]), strict=True):
        decided = "supported" if bears_out(says, row["difference"], margin) else "contradicted"
        row["corrected_p"] = p
        row["verdict"] = decided if p <= 1 - level else "undecided"


def plan(rows: Sequence[ClaimComparison], level: float) -> None:
    """Adds what would decide the open comparisons of one claim, at the level that Holm asks of the hardest of them."""
    still_open = [row for row in rows if row["verdict"] == "undecided"]
    for row in rows:
        row["items_needed"] = row["seeds_needed"] = None
    for row in still_open:
        asked = statistics.Components(**row["components"]), row["bound"], (1 - level) / len(still_open)
        row["items_needed"], row["seeds_needed"] = statistics.items_needed(*asked), statistics.seeds_needed(*asked)


def verdict_of(parts: Sequence[Sequence[str]]) -> str:
    """The verdict on a claim from the verdicts on its comparisons, part by part; a part without any is not tested."""
    found = [verdict for part in parts for verdict in part]
    if not found:
        return "not tested"
    if "contradicted" in found:
        return "contradicted"
    return "supported" if all(parts) and set(found) == {"supported"} else "undecided"


def missing(claim: Claim, part: Part, arms: list[Arm]) -> str:
    """What the study would have to hold for a part of a claim to be tested."""
    lacking = [arm for arm in dict.fromkeys((part.treated, part.control)) if arm not in {arm.arm for arm in arms}]
    if lacking:
        return "the arm " + " and the arm ".join(lacking)
    several = len(_shares(arms)) > 1
    if claim.every_share:
        return part.needs if several else "more than one share"
    return f"{part.needs}, at the largest share" if several else part.needs


def _shares(arms: list[Arm]) -> list[int]:
    return sorted({arm.share for arm in arms if isinstance(arm.share, int)})


def assess(claim: Claim, arms: list[Arm], answers: Answers, level: float, margin: float) -> list[AssessedClaim]:
    """A claim's verdict, those on its parts, and every comparison behind them; once for each preference recipe."""
    shares = _shares(arms)
    if claim.every_share:
        looked_at = arms if len(shares) > 1 else []
    else:
        looked_at = [arm for arm in arms if arm.share in ("", *shares[-1:])]
    recipes = [""]
    if any(part.treated not in ("baseline", "instruct") for part in claim.parts):
        recipes = list(dict.fromkeys(arm.recipe for arm in arms if arm.recipe)) or [""]
    # A comparison without refinement belongs to every recipe, and counts once.
    rows: dict[Key, ClaimComparison] = {}
    found: dict[str, list[list[ClaimComparison]]] = {recipe: [[] for _ in claim.parts] for recipe in recipes}
    for recipe in recipes:
        for part, mine in zip(claim.parts, found[recipe], strict=True):
            for treated, control in comparisons_of(part, looked_at, recipe):
                key = treated[:-1] + control[:-1]
                if key not in rows:
                    rows[key] = compare(claim, part, treated, control, answers, level, margin)
                mine.append(rows[key])
    judge(list(rows.values()), claim.says, level, margin)
    plan(list(rows.values()), level)
    return [
        {
            "claim": claim.number,
            "title": claim.title,
            "says": claim.says,
            "recipe": recipe,
            "verdict": verdict_of([[row["verdict"] for row in part] for part in found[recipe]]),
            "seeds": min((row["seeds"] for part in found[recipe] for row in part), default=0),
            "parts": [
                {
                    "title": part.title,
                    "verdict": verdict_of([[row["verdict"] for row in mine]]),
                    "missing": "" if mine else missing(claim, part, arms),
                    "comparisons": mine,
                }
                for part, mine in zip(claim.parts, found[recipe], strict=True)
            ],
        }
        for recipe in recipes
    ]


def assess_all(cells: Sequence[EvaluatedCell], extractor: str, level: float, margin: float) -> list[AssessedClaim]:
    """`assess` of every claim, from the cells of the index."""
    arms, answers = arms_of(cells), Answers(extractor)
    return [assessed for claim in CLAIMS for assessed in assess(claim, arms, answers, level, margin)]
