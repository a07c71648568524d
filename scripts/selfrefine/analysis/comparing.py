"""One comparison of two arms: paired answers, both estimands, effects, and what is odd about them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from selfrefine.analysis import correctness, effects, outlying_runs, power, statistics
from selfrefine.analysis.correctness import Answers
from selfrefine.analysis.looks import Looks, Spending, level_at
from selfrefine.analysis.matched_length import at_matched_length
from selfrefine.analysis.paper_claims import Arm
from selfrefine.analysis.pass_rate import test_of
from selfrefine.analysis.seed_variance import moderated
from selfrefine.analysis.statistics import Components
from selfrefine.errors import UserError
from selfrefine.schema.claim_results import ClaimComparison, Estimate, OutlyingRun, SeedTest

CHECKPOINTS, RUNS = "these checkpoints", "new training runs"


class Policy(NamedTuple):
    """How a study decides: set before it is run."""

    level: float
    margin: float  # as a share of 1
    looks: Looks = None
    spending: Spending = "obrien-fleming"
    taken: Sequence[int] = ()  # looks, as numbers of seeds, that were taken before and not declared
    matched_length: float | None = None  # up to which ratio of tokens two answers count as equally long

    def alpha(self, seeds: int) -> float:
        """What corrected p are held against at so many seeds."""
        return level_at(seeds, 1 - self.level, "any" if self.taken else self.looks, self.spending)


class Pairing(NamedTuple):
    """Two arms and their paired answers."""

    treated: Arm
    control: Arm
    seeds: list[int | str]
    correct: np.ndarray  # bool[seeds, items], or shares; bool[1, items] without seeds
    correct_before: np.ndarray
    difference: Components
    unrefined: Sequence[int | str] = ()  # seeds that count though one side had too few pairs to be refined
    left_out: Sequence[int | str] = ()  # those that do not count
    tokens: tuple[np.ndarray, np.ndarray] | None = None  # of the answers, float[seeds, items]


def paired(treated: Arm, control: Arm, answers: Answers, lengths: bool = False) -> Pairing:
    """The answers of two arms, paired by seed and item; with their lengths if these are asked for."""
    if "" not in treated.samples and "" not in control.samples:
        for one, other in ((treated, control), (control, treated)):
            for seed in sorted(one.samples.keys() - other.samples.keys()):
                raise UserError(f"{one.samples[seed]}: {other.arm} has no seed {seed} to compare it with")
    seeds = sorted(control.samples if "" in treated.samples else treated.samples)
    first = next(iter(treated.samples.values()))
    items = sorted(answers.of(first))
    for path in (*treated.samples.values(), *control.samples.values()):
        here = answers.of(path)
        for item in sorted(answers.of(first).keys() ^ here.keys()):
            lacking, having = (first, path) if item in here else (path, first)
            raise UserError(f"{lacking}: lacks item {item}, which {having} has; evaluate both again")

    def outcomes(side: Arm) -> np.ndarray:
        files: list[Path] = [side.samples[seed] for seed in sorted(side.samples)]
        return np.array([[answers.of(path)[item] for item in items] for path in files])

    correct, before = outcomes(treated), outcomes(control)
    found = Pairing(treated, control, seeds, correct, before, statistics.paired(correct, before))
    return with_tokens(found, items) if lengths else found


def with_tokens(one: Pairing, items: Sequence[str]) -> Pairing:
    """A pairing with the lengths of its answers, where they are of one student and so of one tokenizer."""
    if one.treated.student != one.control.student:
        return one

    def of(side: Arm) -> np.ndarray:
        files = [correctness.tokens_of(side.samples[seed]) for seed in sorted(side.samples)]
        return np.array([[tokens[item] for item in items] for tokens in files], float)

    return one._replace(tokens=(of(one.treated), of(one.control)))


def lineages(arm: Arm) -> set[Any]:
    """The training runs that an arm's checkpoints come from; none where there are no seeds to vary."""
    if "" in arm.samples:
        return set()
    return {(arm.student, arm.teacher, arm.task or arm.refine_task, arm.share, arm.select)}


def moderate(pairings: Sequence[Pairing]) -> list[Pairing]:
    """The pairings with variances between seeds that are estimated over all of one student and phase."""
    found = list(pairings)
    stages: dict[Any, list[int]] = {}
    for place, one in enumerate(pairings):
        stages.setdefault((one.treated.student, one.treated.arm, one.control.arm), []).append(place)
    for places in stages.values():
        runs = clusters([lineages(pairings[place].treated) | lineages(pairings[place].control) for place in places])
        for place, parts in zip(places, moderated([pairings[place].difference for place in places], runs), strict=True):
            found[place] = pairings[place]._replace(difference=parts)
    return found


def clusters(runs: Sequence[set[Any]]) -> list[int]:
    """A number for each set of training runs, the same for sets that are linked by shared runs."""
    numbers = list(range(len(runs)))
    seen: dict[Any, int] = {}
    for place, members in enumerate(runs):
        for other in {numbers[seen[run]] for run in members if run in seen}:
            numbers = [numbers[place] if number == other else number for number in numbers]
        seen |= dict.fromkeys(members, place)
    return numbers


def bounds_of(says: str, margin: float) -> tuple[float, ...]:
    """The differences between which, or above which, a comparison bears a claim out; `margin` as a share of 1."""
    return {"above": (0.0,), "not below": (-margin,), "about": (-margin, margin)}[says]


def bears_out(says: str, estimate: float, margin: float) -> bool:
    """Whether a difference lies where the claim says."""
    return abs(estimate) < margin if says == "about" else estimate > bounds_of(says, margin)[0]


def sides(says: str) -> int:
    """How many sides a test of this kind has: margins are tested on one, each at alpha (Schuirmann 1987)."""
    return 2 if says == "above" else 1


def p_of(of: Components, says: str, margin: float) -> float:
    """The p that a claim of this kind is judged by."""
    return max(statistics.p_value(of, bound) for bound in bounds_of(says, margin)) * sides(says) / 2


def p_without(one: Pairing, odd: Iterable[int | str], says: str, margin: float) -> float:
    """The p without these seeds; 1 where one seed or none is left, or the rest does not bear the claim out."""
    kept = [place for place, seed in enumerate(one.seeds) if seed not in set(odd)]
    if len(kept) < 2:
        return 1.0
    correct, before = (side if len(side) == 1 else side[kept] for side in (one.correct, one.correct_before))
    rest = statistics.paired(correct, before)
    return p_of(rest, says, margin) if bears_out(says, rest.mean, margin) else 1.0


def outlying(one: Pairing) -> list[OutlyingRun]:
    """The training runs of both sides that lie far from the others of their arm."""
    found: list[OutlyingRun] = []
    for arm, correct in ((one.treated.arm, one.correct), (one.control.arm, one.correct_before)):
        accuracies = correct.mean(axis=1)
        for place in outlying_runs.outlying(accuracies.tolist(), correct.shape[1]) if len(correct) > 2 else []:
            middle = float(np.median(np.delete(accuracies, place)))
            found.append({"arm": arm, "seed": one.seeds[place], "accuracy": float(accuracies[place]), "median": middle})
    return found


def compare(part: str, one: Pairing, says: str, policy: Policy) -> ClaimComparison:
    """One comparison: its facts, and its numbers but for those that depend on the claim's other comparisons."""
    treated, control, of = one.treated, one.control, one.difference
    alpha, margin = policy.alpha(len(one.seeds)), policy.margin
    # At a look that was not declared, an interval that holds at every number of seeds.
    level = 1 - (alpha or level_at(len(one.seeds), 1 - policy.level, "any")) * 2 / sides(says)
    kinds = [(CHECKPOINTS, statistics.these_checkpoints(of))]
    kinds += [(RUNS, of)] if of.seeds > 1 else []
    estimates: list[Estimate] = []
    for holds_for, parts in kinds:
        low, high = statistics.interval(parts, level)
        estimates.append(
            {
                "holds_for": holds_for,
                "low": low,
                "high": high,
                "p": p_of(parts, says, margin),
                "log_odds": effects.log_odds(one.correct, one.correct_before, parts, level),
                "seed_df": float(parts.df) if parts.seeds_drawn else 0.0,
            }
        )
    judged, odd = estimates[-1], outlying(one)
    nearest = min(bounds_of(says, margin), key=lambda bound: abs(of.mean - bound))
    per_seed = zip(one.seeds, *np.broadcast_arrays(one.correct, one.correct_before), strict=True)
    found: ClaimComparison = {
        "part": part,
        "arm": treated.arm,
        "against": control.arm,
        "student": treated.student,
        "teacher": treated.teacher or control.teacher,
        "against_teacher": control.teacher,
        "task": treated.task or control.task,
        "refine_task": treated.refine_task,
        "share": treated.share,
        "evaluation": treated.evaluation,
        "items": of.items,
        "seeds": len(one.seeds),
        "unrefined": list(one.unrefined),
        "left_out": list(one.left_out),
        "accuracy": float(one.correct.mean()),
        "against_accuracy": float(one.correct_before.mean()),
        "difference": of.mean,
        "low": judged["low"],
        "high": judged["high"],
        "interval_level": level,
        "bound": nearest,
        "p": judged["p"],
        "holds_for": judged["holds_for"],
        "log_odds": judged["log_odds"],
        "estimates": estimates,
        "identical": not of.square,
        "outlying": odd,
        "p_without_outlying": p_without(one, (run["seed"] for run in odd), says, margin) if odd else None,
        "alpha": alpha,
        "detectable": power.detectable(of, says, margin, alpha * 2 / sides(says), 1 - float(one.correct_before.mean()))
        if alpha
        else None,
        "components": {
            name: value for name, value in of._asdict().items() if value != Components._field_defaults.get(name, ...)
        },
        "by_seed": [seed_test(seed, a, b) for seed, a, b in per_seed],
        "samples": [str(path) for path in treated.samples.values()],
        "against_samples": [str(path) for path in control.samples.values()],
    }
    if policy.matched_length and one.tokens and says == "above":
        both = one.correct, one.correct_before
        found["matched_length"] = at_matched_length(both, one.tokens, policy.matched_length, level)
    if treated.select:
        found["select"] = treated.select
    if control.select:
        found["against_select"] = control.select
    return found


def seed_test(seed: int | str, treated: np.ndarray, control: np.ndarray) -> SeedTest:
    """The test of one seed's paired outcomes, bool[items], or of shares."""
    gained, lost, p = statistics.mcnemar(treated, control)
    return {"seed": seed, "gained": gained, "lost": lost, "p": p, "test": test_of(treated, control)}
