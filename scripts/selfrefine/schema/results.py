"""Rows of the study's tables (CSV), as typed dictionaries; claim_results.py has the claims'."""

from typing import TypedDict

# The fact of how the items of a share were chosen; tables and listings of studies that choose none leave it out.
SELECT = "select"


class Facts(TypedDict):
    """What an arm is; "" stands where a fact does not apply. `share` is in percent, as text."""

    arm: str
    student: str
    teacher: str
    family: str
    task: str
    refine_task: str
    recipe: str
    share: str
    select: str
    """How the items of the share were chosen before the teacher was asked; "" where they were not."""


class AccuracyRow(Facts):
    """One checkpoint, or teacher, on one benchmark (accuracy.csv)."""

    seed: str
    evaluation: str
    n: int
    correct: float
    """Of several answers to an item, the share that is correct counts."""
    accuracy: float
    low: float
    high: float
    legacy_accuracy: float
    committed: float
    chains: float
    cut: float
    mean_tokens: float
    checkpoint: str
    unrefined: int
    """How many of the row's checkpoints had too few pairs to be refined; so in the other tables."""
    samples: str


class ArmRow(Facts):
    """One arm on one benchmark, over seeds (arms.csv)."""

    evaluation: str
    seeds: int
    n: int
    accuracy: float
    low: float
    high: float
    level: float
    interval: str
    unrefined: int
    samples: str


class ComparisonRow(Facts):
    """One checkpoint against the one it was trained from, paired by item (comparisons.csv)."""

    seed: str
    against: str
    evaluation: str
    n: int
    difference: float
    low: float
    high: float
    gained: float
    lost: float
    p: float
    test: str
    """`mcnemar`: McNemar's exact test; `score`: the paired score test, where an item has several answers."""
    holds_for: str
    """`this checkpoint`: what the row is about so far; the other columns are about all seeds of its arm."""
    log_odds: float
    """Of gains to losses, in this row; NaN where nothing differs. An end of its interval may be infinite."""
    log_odds_low: float
    log_odds_high: float
    seeds: int
    mean_difference: float
    checkpoints_low: float
    """The interval of the mean for these checkpoints and new items."""
    checkpoints_high: float
    runs_low: float
    """The interval of the mean for new training runs and new items; NaN with one seed."""
    runs_high: float
    differs: str
    unrefined: int
    samples: str


class LengthRow(Facts):
    """Tokens per answer of one arm on one benchmark (lengths.csv); `longer` is NaN where nothing came before."""

    evaluation: str
    seeds: int
    n: int
    tokens: float
    low: float
    high: float
    against: str
    longer: float
    longer_low: float
    longer_high: float
    level: float
    unrefined: int
    samples: str
    against_samples: str


class Start(TypedDict):
    """Who was sampled for a refinement: a student, after which training, on which benchmark."""

    student: str
    teacher: str
    task: str
    after: str
    refine_task: str
    share: str
    select: str


class PathRow(Start):
    """How one checkpoint's sampled paths of one style came out (paths.csv)."""

    sampled: str
    seed: str
    style: str
    items: int
    items_solved: int
    paths: int
    correct: int
    committed: int
    chains: int
    cut: int


class SolvingRow(Start):
    """pass@k or maj@k of one arm's sampled paths, over seeds (solving.csv)."""

    style: str
    measure: str
    k: int
    seeds: int
    items: int
    value: float
    low: float
    high: float
    level: float
    sampled: str


class PassRow(Facts):
    """pass@k or maj@k of one arm's sampled answers to a test split, over seeds (pass_at_k.csv)."""

    evaluation: str
    measure: str
    k: int
    seeds: int
    items: int
    value: float
    low: float
    high: float
    level: float
    unrefined: int
    samples: str


# `yield` is a keyword of Python.
_Yield = TypedDict("_Yield", {"yield": float})


class PairRow(Start, _Yield):
    """What one checkpoint's sampled paths gave of preference pairs (pairs.csv)."""

    sampled: str
    recipe: str
    seed: str
    dropped: dict[str, int]
    """Items without a pair, by reason: the columns `dropped_…`."""
    items: int
    items_with_pairs: int
    pairs: int
    train: int
    validation: int
    unrefined: int
    low: float
    high: float


class RefinementRow(Start):
    """What a refinement did to its held-out pairs, at the update whose weights were kept (refinements.csv).

    NaN stands for what its objective does not log.
    """

    log: str
    recipe: str
    seed: str
    updates: int
    held_out: int
    """The examples that validation counts: pairs, or single responses where the objective has no pairs."""
    kept_update: int
    loss: float
    accuracy: float
    """The share of held-out pairs whose chosen response has the higher reward."""
    chosen_token_logp: float
    """The mean log-probability of a token of the chosen responses, in nats."""
    rejected_token_logp: float
    highest_accuracy: float
    """Of all updates that were validated."""
    highest_update: int
    highest_chosen_token_logp: float
    """What the chosen responses' was at that update."""
    worse: int
    """1 if the kept weights fall short of those of the highest accuracy, as analysis/refinements.py judges it."""


class DemonstrationRow(TypedDict):
    """What became of a teacher's answers to one benchmark (demonstrations.csv)."""

    demonstrations: str
    answers: int
    kept: int
    dropped: dict[str, int]
    """Answers that were dropped, by reason: the other columns."""


class StageRow(TypedDict):
    """What one artifact cost (stages.csv)."""

    stage: str
    artifact: str
    wall_seconds: float
    tokens: int
    tokens_per_second: float
    peak_memory_mib: int
    gpu_seconds: float
    metered_gpu_seconds: float
    """Those of the GPU seconds that a meter counted."""
    gpu_wh: float
    """What it counted, in watt-hours."""
    unrefined: int


class CostRow(TypedDict):
    """What one checkpoint of an arm cost in one stage (costs.csv)."""

    student: str
    arm: str
    share: str
    select: str
    stage: str
    checkpoints: int
    unrefined: int
    jobs: float
    wall_seconds: float
    least: float
    most: float
    tokens: float
    tokens_trained: float
    """Those of `tokens` that updates passed; the others were generated."""
    peak_memory_mib: int
    gpu_seconds: float
    metered_gpu_seconds: float
    gpu_wh: float


class CheckpointFacts(TypedDict):
    """What a checkpoint to evaluate is; "" stands where a fact does not apply."""

    arm: str
    student: str
    teacher: str
    family: str
    """"in" or "out": whether the teacher is of the student's family."""
    task: str
    refine_task: str
    recipe: str
    share: int | str
    select: str
    seed: int | str
    checkpoint: str


class Cell(CheckpointFacts):
    """One cell of the accuracy table: a checkpoint, or a teacher, and the benchmark that it is evaluated on."""

    evaluation: str


class EvaluatedCell(Cell):
    """A cell of the accuracy table under one seed, and the file of its judged answers."""

    samples: str
