"""The claims of a study with their verdicts and comparisons (claims.json), as typed dictionaries."""

from typing import Any, NotRequired, TypedDict


class SeedTest(TypedDict):
    """The test of one seed: McNemar's exact one or, of shares of several answers to an item, a score test."""

    seed: int | str
    gained: float
    lost: float
    p: float
    test: str


class LogOdds(TypedDict):
    """The log odds of an item being gained to its being lost; None at an end where the interval has none."""

    value: float
    low: float | None
    high: float | None


class Estimate(TypedDict):
    """What a comparison says of one population."""

    holds_for: str
    """`these checkpoints` and new items, or `new training runs` and new items."""
    low: float
    high: float
    p: float
    log_odds: LogOdds | None
    """None where the arms differ on no item."""
    seed_df: float
    """Degrees of freedom of the variance between seeds; 0 where it is no part of the estimate."""


class OutlyingRun(TypedDict):
    """A training run whose accuracy lies far from the median of its arm's other seeds."""

    arm: str
    seed: int | str
    accuracy: float
    median: float


class Overall(TypedDict):
    """The mean difference over benchmarks; those at hand are a sample of them (random effects)."""

    benchmarks: int
    difference: float
    low: float
    high: float
    level: float
    between: float | None
    """The standard deviation of the true differences between benchmarks; None of one benchmark."""


# By unit (items, seeds, both: seeds with items in proportion) what decides, [if the estimates are true, assured].
Advice = dict[str, list[int | None]]


class MatchedLength(TypedDict):
    """The difference where both arms answered an item at the same length (analysis/matched_length.py)."""

    items: int
    """Items with an answer of close length on both sides."""
    pairs: int
    of_pairs: int
    """Pairs of answers of close length, and all: one for each item and seed."""
    tokens: float
    against_tokens: float
    """Mean tokens of the matched answers."""
    difference: float
    low: float
    high: float
    p: float
    seeds: int
    corrected_p: NotRequired[float]
    verdict: NotRequired[str]
    """Corrected by Holm over the claim's comparisons, like the verdict of the comparison itself."""


class ClaimComparison(TypedDict):
    """One comparison of a claim. What depends on the claim's other comparisons is added last."""

    part: str
    arm: str
    against: str
    student: str
    teacher: str
    against_teacher: str
    task: str
    refine_task: str
    share: int | str
    select: NotRequired[str]
    """How the items of the share were chosen; absent where they were not. Likewise of the control."""
    against_select: NotRequired[str]
    evaluation: str
    items: int
    seeds: int
    unrefined: list[int | str]
    """The seeds of which a side had too few pairs to be refined, and which count all the same."""
    left_out: list[int | str]
    """Those that do not count."""
    accuracy: float
    against_accuracy: float
    difference: float
    low: float
    high: float
    interval_level: float
    """1 - alpha; 1 - 2 alpha where a margin is judged, as one-sided tests at alpha go with it."""
    bound: float
    p: float
    """Two-sided for no difference, one-sided for a margin. Low, high and p are of `holds_for`."""
    holds_for: str
    log_odds: LogOdds | None
    estimates: list[Estimate]
    """Of these checkpoints and, with several seeds, of new training runs."""
    identical: bool
    """Whether both arms have the same items correct under every seed."""
    outlying: list[OutlyingRun]
    p_without_outlying: float | None
    """The p without the seeds of outlying runs; 1 where the estimate changes sides or too few are left."""
    alpha: float
    """What p, corrected for the claim's other comparisons, is held against; 0 where no look is declared."""
    detectable: float | None
    components: dict[str, Any]
    """The fields of analysis.statistics.Components."""
    by_seed: list[SeedTest]
    samples: list[str]
    against_samples: list[str]
    matched_length: NotRequired[MatchedLength | None]
    """Where `statistics.matched_length` asks for it; None of too few items."""
    compared: NotRequired[list[str]]
    """Of a study's own claim, the two sides in words."""
    corrected_p: NotRequired[float]
    verdict: NotRequired[str]
    rests_on_outlying: NotRequired[bool]
    """Whether it would be supported but for its outlying runs, and is therefore undecided."""
    needed: NotRequired[Advice]


class VerdictUnder(TypedDict):
    """A claim's verdict under one choice."""

    claim: int | str
    """The number of one of the paper's claims, or the name of one of the study's own."""
    title: str
    recipe: str
    axis: str
    """What is chosen (flip_kinds.AXES)."""
    choice: str
    """Benchmarks in it by their names."""
    verdict: str
    flip: str
    """What became of the verdict as configured (flip_kinds.KINDS)."""
    expected: float
    """Of fewer seeds, the share of draws in which the verdict flips although seeds do not differ; else NaN."""
    untested_parts: int
    """Parts of the claim that lack comparisons here, and not as configured."""
    comparisons: int
    supported: int
    contradicted: int
    undecided: int
    extractor: str


class HangsOn(TypedDict):
    """The comparison that a verdict hangs on; "" and NaN where there is none."""

    arm: str
    against: str
    student: str
    teacher: str
    against_teacher: str
    task: str
    refine_task: str
    share: str
    evaluation: str
    items: int
    seeds: int
    accuracy: float
    against_accuracy: float
    difference: float
    low: float
    high: float
    interval_level: float
    p: float
    corrected_p: float
    samples: str
    against_samples: str


class FlipRow(VerdictUnder, HangsOn):
    """A row of flips.csv."""


class ClaimPart(TypedDict):
    """A part of a claim: its verdict, what it lacks, and its comparisons."""

    title: str
    verdict: str
    missing: str
    needed: Advice
    overall: Overall | None
    comparisons: list[ClaimComparison]


class AssessedClaim(TypedDict):
    """A claim's verdict under one preference recipe (that of the treated arm), with its parts."""

    claim: int | str
    """The number of a claim of the paper, or the name of a study's own."""
    title: str
    says: str
    recipe: str
    verdict: str
    seeds: int
    needed: Advice
    holds_for: str
    """What the verdict is about: `these checkpoints` with one seed, else `new training runs`."""
    beyond_length: NotRequired[str]
    """Where it is asked for: the verdict of the same claim at matched length of answers."""
    notes: list[str]
    """What a reader of the verdict must know, as sentences."""
    parts: list[ClaimPart]
