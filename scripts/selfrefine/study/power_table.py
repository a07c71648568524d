"""The power of each claim before a study runs, and the cheapest design that reaches 80 %."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from selfrefine.analysis.claim_power import Assumed, contradiction_of_claim, pairs_by_recipe, power_of_claim
from selfrefine.analysis.comparing import Policy, clusters, lineages, sides
from selfrefine.analysis.own_claims import claims_of
from selfrefine.analysis.paper_claims import Arm, Claim
from selfrefine.analysis.power import POWER
from selfrefine.analysis.verdicts import key_of
from selfrefine.report.formats import NONE, Rows, Table
from selfrefine.report.labels import named
from selfrefine.schema.assumptions import PowerAssumptions
from selfrefine.schema.config import STOCK, StockTask
from selfrefine.study.artifact import Artifact
from selfrefine.study.checkpoint_names import refinements_of, trained_facts
from selfrefine.study.pilot import Pilot
from selfrefine.study.planning import Planner
from selfrefine.study.workload import STOCK_ITEMS

SEEDS = (2, 3, 4, 5, 6, 8, 10, 15, 20, 30)
# Items of a benchmark, where nothing is known of how many it has.
ITEMS = (100, 200, 300, 500, 1000, 2000, 3000, 5000, 10_000)
Sizes = Callable[[str], int]


class Design(NamedTuple):
    """So many training seeds, and at most so many items of each benchmark; None as configured."""

    seeds: int
    items: int | None

    def __str__(self) -> str:
        items = "items as configured" if self.items is None else f"{self.items:,} items"
        return f"{self.seeds} seed{'s' * (self.seeds > 1)}, {items}"


class ClaimPlan(NamedTuple):
    """A claim under one preference recipe: its comparisons, and how many Holm counts."""

    claim: Claim
    recipe: str
    comparisons: list[tuple[Arm, Arm]]
    family: int
    runs: int
    """Independent training runs that the variance between seeds is estimated over, of the comparisons with the fewest."""
    complete: bool

    @property
    def name(self) -> str:
        """The claim with its number and, where there are several, the preference recipe."""
        return named(self.claim.number, self.claim.title) + (f" ({self.recipe})" if self.recipe else "")

    @property
    def is_tested(self) -> bool:
        """Whether the study has what the claim compares."""
        return bool(self.comparisons) and self.complete


class PowerTable:
    """The power of a study's claims in designs of any size, and what these cost."""

    def __init__(self, planner: Planner, jobs: Sequence[Artifact], pilot: Pilot | None = None):
        self.study = planner.study
        self.assumed = planner.assumed.power
        self.planner = planner
        self._jobs = jobs
        self._pilot = pilot
        claims, arms = claims_of(self.study.claims), self.study.arms()
        self._plans = [plan for claim in claims for plan in _plans(claim, arms)]
        self._costs: dict[int | None, tuple[float, float]] = {}

    def table(self, design: Design) -> str:
        """The claims' power in one design, the cheapest designs, and what is assumed, in Markdown."""
        rows: Rows = []
        for plan in self._plans:
            if not plan.is_tested:
                rows.append([plan.name, str(len(plan.comparisons)), NONE, "not tested", *[NONE] * 5])
                continue
            cheapest = self.cheapest(plan)
            effects = sorted({round(100 * self._assumed(plan.claim, *pair).difference, 1) for pair in plan.comparisons})
            shown = f"{effects[0]:+g}" + (f" to {effects[-1]:+g}" if len(effects) > 1 else "")
            by_items = self._fewest_items(plan)
            rows.append(
                [plan.name, str(len(plan.comparisons)), shown]
                + [f"{100 * chance:.0f} %" for chance in self._chances(plan, design)]
                + [NONE if by_items is None else f"{by_items:,} items", NONE if cheapest is None else str(cheapest)]
                + [NONE if cheapest is None else hours(self.cost(cheapest))]
            )
        header = ["claim", "comparisons", "assumed, points", "power", "of the weakest", "contradicted"]
        header += ["one seed would need", "cheapest", "GPU hours"]
        caption = (
            f"Power: of the design with {design}, the probability that the claim is supported; it takes "
            f"{hours(self.cost(design))} GPU hours in all. Of the weakest: that of its hardest comparison by itself. "
            f"Contradicted: the probability of the other decision. One seed: items at which a verdict on these checkpoints has "
            f"{POWER:.0%}. Cheapest: of designs with several seeds, whose verdicts hold for new training runs, the one that "
            f"reaches {POWER:.0%} for the fewest GPU hours; – where none of up to {SEEDS[-1]} seeds does."
        )
        table = Table("power", caption, header, rows, list("lrrrrrlll")).markdown().strip()
        return f"## Power of the claims\n\n{table}\n\n{self.assumptions()}"

    def powers(self, design: Design) -> dict[str, float | None]:
        """The power of each claim in a design; None of one that the study does not test."""
        return {plan.name: self.power(plan, design) if plan.is_tested else None for plan in self._plans}

    def _chances(self, plan: ClaimPlan, design: Design) -> tuple[float, float, float]:
        """A claim's power, that of its weakest comparison, and how likely it is contradicted."""
        contradicted = self._chance(contradiction_of_claim, plan, design)
        return self.power(plan, design), self.weakest(plan, design), contradicted

    def power(self, plan: ClaimPlan, design: Design) -> float:
        """The probability that a claim is supported."""
        return self._chance(power_of_claim, plan, design)

    def _chance(self, of: Callable[..., float], plan: ClaimPlan, design: Design) -> float:
        sizes = self.sizes(design.items)
        found = [(self._assumed(plan.claim, *pair), sizes(pair[0].evaluation)) for pair in plan.comparisons]
        own = self.study.statistics
        looks = tuple(own.looks) if isinstance(own.looks, list) else own.looks
        alpha = Policy(own.level, own.margin / 100, looks, own.spending).alpha(design.seeds)
        if not alpha:
            return 0.0
        alpha *= 2 / sides(plan.claim.says)
        return of(found, plan.claim.says, own.margin / 100, alpha, design.seeds, plan.family, plan.runs)

    def weakest(self, plan: ClaimPlan, design: Design) -> float:
        """The power of the comparison of a claim that has the least, by itself and uncorrected."""
        alone = {
            (self._assumed(plan.claim, *pair), self.sizes(design.items)(pair[0].evaluation)): pair
            for pair in plan.comparisons
        }
        return min(self.power(plan._replace(comparisons=[pair], family=1), design) for pair in alone.values())

    def cheapest(self, plan: ClaimPlan) -> Design | None:
        """The design with several seeds that reaches 80 % for the fewest GPU hours."""
        found: list[tuple[float, int, Design]] = []
        for items in self.candidates(plan):
            if self.power(plan, Design(SEEDS[-1], items)) < POWER:
                continue
            low, high = -1, len(SEEDS) - 1
            while high - low > 1:
                middle = (low + high) // 2
                enough = self.power(plan, Design(SEEDS[middle], items)) >= POWER
                low, high = (low, middle) if enough else (middle, high)
            design = Design(SEEDS[high], items)
            found.append((self.cost(design), design.seeds, design))
        return min(found)[-1] if found else None

    def _fewest_items(self, plan: ClaimPlan) -> int | None:
        reached = (n for n in self.candidates(plan) if self.power(plan, Design(1, n)) >= POWER)
        return next(reached, None)

    def candidates(self, plan: ClaimPlan) -> list[int]:
        """Numbers of items to look at: up to what the largest benchmark of the claim is known to have."""
        most = max(self._available(treated.evaluation) or ITEMS[-1] for treated, _ in plan.comparisons)
        return sorted({*(number for number in ITEMS if number < most), most})

    def sizes(self, items: int | None) -> Sizes:
        """By benchmark, its items in a design."""

        def of(task: str) -> int:
            if items is None:
                return self._configured(task)
            return min(items, self._available(task) or items)

        return of

    def _configured(self, task: str) -> int:
        if task.startswith(STOCK):
            return self.study.lm_eval.tasks.get(task.removeprefix(STOCK), StockTask()).limit or STOCK_ITEMS
        return self.planner.work.items(task, "test")

    def _available(self, task: str) -> int | None:
        """The items that a benchmark is known to have; None where only its size in this study is known."""
        if task.startswith(STOCK):
            return self._configured(task)
        return self.planner.assumed.items.get(task, {}).get("test")

    def cost(self, design: Design) -> float:
        """The GPU hours of the whole study in a design: jobs that are done count as well."""
        if design.items not in self._costs:
            sizes = self.sizes(design.items)
            own = {task: sizes(task) for task in self.study.study.benchmarks}
            planner = Planner(self.study, self.planner.assumed, self.planner.work.items_of, own)
            spent = {True: 0.0, False: 0.0}
            for job in self._jobs:
                spent[_is_seeded(job)] += planner.cost(job.stage, **job.of).gpu_hours
            self._costs[design.items] = spent[False], spent[True] / len(self.study.study.seeds)
        once, seeded = self._costs[design.items]
        return once + seeded * design.seeds

    def jobs(self, design: Design) -> int:
        """The jobs of the whole study in a design, those that are done among them."""
        seeded = sum(map(_is_seeded, self._jobs))
        return len(self._jobs) - seeded + seeded // len(self.study.study.seeds) * design.seeds

    def _assumed(self, claim: Claim, treated: Arm, control: Arm) -> Assumed:
        own = assumed_of(self.assumed, claim, treated, control)
        return self._pilot.replace(claim, own, treated) if self._pilot else own

    def assumptions(self) -> str:
        """What the power rests on, in words."""
        own = self.assumed
        words = [
            f"accuracies of {_listed(own.in_domain)} in-domain and {_listed(own.out_of_domain)} out-of-domain, "
            f"{own.out_family_gain:+g} points for an out-family teacher"
            + (f", effects of {_listed(own.effects)} by claim" if own.effects else ""),
            f"{own.discordance:g} % of items answered differently by two arms; {own.stable:.0%} of that variance is the "
            f"same under each seed",
            f"differences that vary between seeds with a standard deviation of {own.between_seeds:g} points",
            "comparisons independent of each other, though they share arms and items",
        ]
        told = "Assumed: " + "; ".join(words) + ". See `power` in config/assumptions.yaml; --assume takes your own."
        return f"{told}\n\n{self._pilot.told()}" if self._pilot else told


def assumed_of(own: PowerAssumptions, claim: Claim, treated: Arm, control: Arm) -> Assumed:
    """What the assumptions say of one comparison."""
    by_arm = own.in_domain if treated.in_domain else own.out_of_domain
    if claim.number in own.effects:
        points = own.effects[claim.number]
    elif claim.effect is not None:
        points = claim.effect
    elif treated.arm == control.arm:
        points = own.out_family_gain if treated.family != control.family else own.within_arm
    else:
        points = by_arm.get(treated.arm, 0.0) - by_arm.get(control.arm, 0.0)
    return Assumed(points / 100, own.discordance / 100, own.stable, (own.between_seeds / 100,), (1.0,))


def _plans(claim: Claim, arms: list[Arm]) -> list[ClaimPlan]:
    parts = pairs_by_recipe(claim, arms)
    pairs = {recipe: [pair for part in found for pair in part] for recipe, found in parts.items()}
    family = len({key_of(*pair) for found in pairs.values() for pair in found})
    several = len(pairs) > 1
    return [
        ClaimPlan(claim, recipe if several else "", found, family, _runs(found), all(parts[recipe]))
        for recipe, found in pairs.items()
    ]


def _runs(pairs: list[tuple[Arm, Arm]]) -> int:
    """The independent training runs behind comparisons, of the student and phase that has the fewest."""
    stages: dict[tuple[str, str, str], list[set[object]]] = {}
    for treated, control in pairs:
        stage = treated.student, treated.arm, control.arm
        stages.setdefault(stage, []).append(lineages(treated) | lineages(control))
    return min((len(set(clusters(runs))) for runs in stages.values()), default=1)


def _is_seeded(job: Artifact) -> bool:
    """Whether a job is run for each training seed."""
    # A choice of items has the study's seed where that decides it.
    if "seed" in job.of or job.of.get("choice", "/").rpartition("/")[2]:
        return True
    checkpoint = job.of.get("checkpoint", "")
    return (
        "/" in checkpoint
        and (bool(refinements_of(checkpoint)) or "/instruct/" in checkpoint)
        and bool(trained_facts(checkpoint)["seed"])
    )


def hours(number: float) -> str:
    """GPU hours, in two digits where there are few."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _listed(values: Mapping[Any, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())
