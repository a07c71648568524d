"""The seven claims of Ranaldi & Freitas (arXiv 2405.00402), as comparisons of arms and one verdict on each.

A claim speaks of every student, teacher, benchmark and share that it applies to. So it is split into comparisons, one for each of
them, over all training seeds and paired by item, and each comparison is judged by its two-sided p, corrected by Holm over all of
the claim, every preference recipe included: `supported` if p is at most 1 - level and the estimate lies where the claim says, `contradicted` if p is at most
1 - level and it does not, else `undecided`. The claim is

    contradicted   if any comparison contradicts it
    supported      if every comparison supports it, and no part of it is untested
    not tested     if the study has no comparison that it speaks of
    undecided      otherwise

`supported` errs with probability (1 - level) / 2 at most, whatever the comparisons have to do with each other: were the claim
wrong in a single one, that one would have to be supported too (an intersection-union test: Berger 1982, Technometrics 24:295).
`contradicted` errs with probability 1 - level at most: that is what Holm's correction bounds. Nothing is there to choose: all
comparisons that the study holds count, and each must be won. Fewer items or seeds lead to `undecided`, never to `supported`; more
comparisons make `supported` harder; a small study's claim is small, which is why the number of comparisons stands beside each
verdict. With one seed a verdict is of the checkpoints at hand, and it says so: other seeds might lead to another.

"Reaches the teacher" and "about as good" name no margin; it is stated in accuracy points. Reaching is non-inferiority: less than
the margin below. About as good is equivalence: within the margin on both sides (two one-sided tests, Schuirmann 1987).
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from selfrefine import statistics
from selfrefine.errors import UserError
from selfrefine.files import read_jsonl

VERDICTS = ("supported", "contradicted", "undecided", "not tested")


class Arm(NamedTuple):
    """One arm on one benchmark: the judged answers of each seed. "" stands where a fact does not apply."""

    arm: str
    student: str
    teacher: str
    family: str
    task: str
    refine_task: str
    recipe: str
    share: int | str
    evaluation: str
    samples: dict[int | str, Path]  # by seed; by "" where training has none

    @property
    def in_domain(self) -> bool:
        """Whether it is evaluated on the benchmark that it was trained on last."""
        return self.evaluation == (self.refine_task or self.task)


class Part(NamedTuple):
    """What a claim says of two arms: which are compared, and what a study must hold for it."""

    title: str
    treated: str
    control: str
    alike: tuple[str, ...]  # facts that both sides share, beside the benchmark
    where: Callable[[Arm, Arm], bool]
    needs: str


class Claim(NamedTuple):
    """A claim of the paper. `every_share`: it speaks of all shares; else the largest alone is looked at."""

    number: int
    title: str
    says: str  # above: better at all; not below: by less than the margin worse; about: within the margin
    parts: tuple[Part, ...]
    every_share: bool = False


IN_DOMAIN = "a benchmark both trained and evaluated on"
OUT_DOMAIN = "a benchmark evaluated on and not trained on"
AS_INSTRUCTED = ("student", "teacher", "task", "share")


def _in_domain(treated: Arm, control: Arm) -> bool:
    return treated.in_domain


def _out_domain(treated: Arm, control: Arm) -> bool:
    return not treated.in_domain


CLAIMS = (
    Claim(
        1,
        "Instructed students beat the baseline",
        "above",
        (Part("", "instruct", "baseline", ("student",), _in_domain, IN_DOMAIN),),
    ),
    Claim(
        2,
        "Refined students beat instructed ones",
        "above",
        tuple(
            Part(
                f"with an {family}-family teacher",
                "refine",
                "instruct",
                AS_INSTRUCTED,
                lambda treated, control, family=family: treated.in_domain and treated.family == family,
                f"an {family}-family teacher, and {IN_DOMAIN}",
            )
            for family in ("in", "out")
        ),
    ),
    Claim(
        3,
        "Refined students reach their teacher",
        "not below",
        (Part("", "refine", "teacher", ("teacher",), _in_domain, IN_DOMAIN),),
    ),
    Claim(
        4,
        "Out-family teachers make stronger refined students than in-family ones",
        "above",
        (
            Part(
                "",
                "refine",
                "refine",
                ("student", "task", "refine_task", "recipe", "share"),
                lambda treated, control: treated.in_domain and (treated.family, control.family) == ("out", "in"),
                f"an in-family and an out-family teacher of one student, and {IN_DOMAIN}",
            ),
        ),
    ),
    Claim(
        5,
        "On benchmarks they were not trained on, refined students beat instructed ones, and these the baseline",
        "above",
        (
            Part("refined against instructed", "refine", "instruct", AS_INSTRUCTED, _out_domain, OUT_DOMAIN),
            Part("instructed against baseline", "instruct", "baseline", ("student",), _out_domain, OUT_DOMAIN),
        ),
    ),
    Claim(
        6,
        "Students refined on a task they were not instructed on are about as good as in-domain ones",
        "about",
        (
            Part(
                "",
                "cross",
                "refine",
                ("student", "teacher", "refine_task", "recipe", "share"),
                _in_domain,
                f"two tasks, and {IN_DOMAIN}",
            ),
        ),
    ),
    Claim(
        7,
        "At every share of the demonstrations, refining pays",
        "above",
        (
            Part("refined against instructed", "refine", "instruct", AS_INSTRUCTED, _in_domain, IN_DOMAIN),
            Part(
                "refined without instruction against instructed",
                "refine-only",
                "instruct",
                ("student", "share"),
                lambda treated, control: treated.in_domain and treated.refine_task == control.task,
                IN_DOMAIN,
            ),
        ),
        every_share=True,
    ),
)


def arms_of(cells: list[dict]) -> list[Arm]:
    """The cells of the index, their seeds put together."""
    arms: dict[tuple, Arm] = {}
    for cell in cells:
        key = tuple(cell[name] for name in Arm._fields[:-1])
        arms.setdefault(key, Arm(*key, {})).samples[cell["seed"]] = Path(cell["samples"])
    return list(arms.values())


def comparisons_of(part: Part, arms: list[Arm], recipe: str) -> Iterator[tuple[Arm, Arm]]:
    """(treated, control) of each comparison that a part of a claim speaks of, refined by `recipe` where refined at all."""
    mine = [arm for arm in arms if arm.recipe in ("", recipe)]
    controls: dict[tuple, list[Arm]] = {}
    for arm in mine:
        if arm.arm == part.control:
            controls.setdefault(_key(part, arm), []).append(arm)
    for treated in mine:
        if treated.arm == part.treated:
            for control in controls.get(_key(part, treated), ()):
                if part.where(treated, control):
                    yield treated, control


def _key(part: Part, arm: Arm) -> tuple:
    return (arm.evaluation, *(getattr(arm, fact) for fact in part.alike))


class Answers:
    """Which answers are right, by item, under one extractor; each file is read once."""

    def __init__(self, extractor: str):
        self.extractor = extractor
        self._read: dict[Path, dict[str, bool]] = {}

    def of(self, path: Path) -> dict[str, bool]:
        """{item: right} of a file of judged answers, a student's or a teacher's."""
        if path not in self._read:
            right: dict[str, bool] = {}
            for row in read_jsonl(path):
                item = row.get("item", row["id"])
                if item in right:
                    raise UserError(f"{path}: item {item} is answered twice; evaluate again")
                right[item] = bool(row[self.extractor])
            self._read[path] = right
        return self._read[path]

    def paired(self, treated: Arm, control: Arm) -> tuple[list[int | str], np.ndarray, np.ndarray]:
        """(seeds, treated, control), bool[seeds, items] each, paired by seed and item; [1, items] for a side without seeds."""
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
                lacking, other = (first, path) if item in here else (path, first)
                raise UserError(f"{lacking}: lacks item {item}, which {other} has; evaluate both again")
        sides = (
            np.array([[self.of(side.samples[seed])[item] for item in items] for seed in sorted(side.samples)])
            for side in (treated, control)
        )
        return seeds, *sides


def bounds_of(says: str, margin: float) -> tuple[float, ...]:
    """The differences between which, or above which, a comparison bears a claim out; `margin` as a share of 1."""
    return {"above": (0.0,), "not below": (-margin,), "about": (-margin, margin)}[says]


def bears_out(says: str, estimate: float, margin: float) -> bool:
    """Whether a difference lies where the claim says."""
    return abs(estimate) < margin if says == "about" else estimate > bounds_of(says, margin)[0]


def compare(
    claim: Claim, part: Part, treated: Arm, control: Arm, answers: Answers, level: float, margin: float
) -> dict:
    """One comparison: its facts, and its numbers but for those that depend on the claim's other comparisons."""
    seeds, right, right_before = answers.paired(treated, control)
    difference = statistics.paired(right, right_before)
    bounds = bounds_of(claim.says, margin)
    low, high = statistics.interval(difference, level)
    nearest = min(bounds, key=lambda bound: abs(difference.mean - bound))
    per_seed = zip(seeds, *np.broadcast_arrays(right, right_before), strict=True)
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
        "accuracy": float(right.mean()),
        "against_accuracy": float(right_before.mean()),
        "difference": difference.mean,
        "low": low,
        "high": high,
        "bound": nearest,
        "p": max(statistics.p_value(difference, bound) for bound in bounds),
        "detectable": statistics.detectable(difference, nearest, 1 - level),
        "components": difference._asdict(),
        "mcnemar": [
            dict(zip(("seed", "gained", "lost", "p"), (seed, *statistics.mcnemar(a, b)), strict=True))
            for seed, a, b in per_seed
        ],
        "samples": [str(path) for path in treated.samples.values()],
        "against_samples": [str(path) for path in control.samples.values()],
    }


def judge(rows: list[dict], says: str, level: float, margin: float) -> None:
    """Adds the corrected p and the verdict to all comparisons of one claim."""
    for row, p in zip(rows, statistics.holm([row["p"] for row in rows]), strict=True):
        decided = "supported" if bears_out(says, row["difference"], margin) else "contradicted"
        row["corrected_p"] = p
        row["verdict"] = decided if p <= 1 - level else "undecided"


def plan(rows: list[dict], level: float) -> None:
    """Adds what would decide the open comparisons of one claim: at what Holm's correction asks of the hardest of them."""
    still_open = [row for row in rows if row["verdict"] == "undecided"]
    for row in rows:
        row["items_needed"] = row["seeds_needed"] = None
    for row in still_open:
        asked = statistics.Components(**row["components"]), row["bound"], (1 - level) / len(still_open)
        row["items_needed"], row["seeds_needed"] = statistics.items_needed(*asked), statistics.seeds_needed(*asked)


def verdict_of(parts: list[list[str]]) -> str:
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
    return sorted({arm.share for arm in arms if arm.share != ""})


def assess(claim: Claim, arms: list[Arm], answers: Answers, level: float, margin: float) -> list[dict]:
    """A claim's verdict, the verdicts on its parts, and every comparison behind them; once for each recipe that it speaks of."""
    shares = _shares(arms)
    if claim.every_share:
        looked_at = arms if len(shares) > 1 else []
    else:
        looked_at = [arm for arm in arms if arm.share in ("", *shares[-1:])]
    recipes = [""]
    if any(part.treated not in ("baseline", "instruct") for part in claim.parts):
        recipes = list(dict.fromkeys(arm.recipe for arm in arms if arm.recipe)) or [""]
    # A comparison without refinement belongs to every recipe, and counts once.
    rows: dict[tuple, dict] = {}
    found = {recipe: [[] for _ in claim.parts] for recipe in recipes}
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


def assess_all(cells: list[dict], extractor: str, level: float, margin: float) -> list[dict]:
    """`assess` of every claim, from the cells of the index."""
    arms, answers = arms_of(cells), Answers(extractor)
    return [assessed for claim in CLAIMS for assessed in assess(claim, arms, answers, level, margin)]
