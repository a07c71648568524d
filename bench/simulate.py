"""Whether the claims' statistics hold what they promise, on simulated studies.

python bench/simulate.py --studies 1000

An answer is correct where the sum of item difficulty, a part of the arm and item, a part of the training seed
(correlated between the arms, which pair by seed) and noise is above a threshold. Seeds' spread is the standard
deviation of an arm's accuracy over seeds, in points. All shares are in percent, each with its Monte-Carlo standard
error; `!` marks an error rate that is above what is promised by more than three of them.
"""

import argparse
import itertools
import math
import sys
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from selfrefine.analysis import statistics, verdicts  # noqa: E402

LEVEL = 0.95
ALPHA = 0.05
DIFFICULTY, ARM_AND_ITEM = 0.75**2, 0.1  # variances, of 1 in all
SEEDS, ITEMS, SPREADS = (1, 2, 3, 5), (40, 200, 1000), (0, 2, 6)
FAMILY = 6
HIGHEST = 0.95


class World:
    """How answers come about: the control's accuracy, the seeds' spread in points, whether the control has seeds."""

    def __init__(self, accuracy: float = 0.4, spread: float = 0.0, fixed_control: bool = False):
        self.accuracy = accuracy
        self.fixed_control = fixed_control
        self.seed_variance = (spread / 100 / stats.norm.pdf(stats.norm.ppf(accuracy))) ** 2

    def study(
        self, generator: np.random.Generator, seeds: int, items: int, effects: list[float]
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """(treated, one for each effect; control), bool[seeds, items]; accuracies truly differ by the effects."""
        difficulty = math.sqrt(DIFFICULTY) * generator.standard_normal((1, items))
        shared = generator.standard_normal((seeds, 1))

        def arm(accuracy: float) -> np.ndarray:
            own = math.sqrt(ARM_AND_ITEM) * generator.standard_normal((1, items))
            by_seed = math.sqrt(self.seed_variance / 2) * (shared + generator.standard_normal((seeds, 1)))
            left = 1 - DIFFICULTY - ARM_AND_ITEM - self.seed_variance
            noise = math.sqrt(left) * generator.standard_normal((seeds, items))
            return stats.norm.ppf(accuracy) + difficulty + own + by_seed + noise > 0

        if self.fixed_control:
            own = math.sqrt(ARM_AND_ITEM) * generator.standard_normal((1, items))
            control = stats.norm.ppf(self.accuracy) * math.sqrt(DIFFICULTY + ARM_AND_ITEM) + difficulty + own > 0
        else:
            control = arm(self.accuracy)
        return [arm(self.accuracy + effect) for effect in effects], control

    def truth(self, seeds: int, items: int, effect: float) -> statistics.Components:
        """The true variance components of the difference, from one study larger than any."""
        (treated,), control = self.study(np.random.default_rng(0), 200, 20000, [effect])
        return statistics.paired(treated, control)._replace(seeds=seeds, items=items)


def share(hits: list[bool], promised: float | None = None) -> str:
    """A share of studies in percent with its standard error, marked if it is an error rate above what is promised."""
    p, n = float(np.mean(hits)), len(hits)
    error = math.sqrt(p * (1 - p) / n)
    beyond = promised is not None and p > promised + 3 * math.sqrt(promised * (1 - promised) / n)
    return f"{100 * p:.1f} ± {100 * error:.1f}{'!' if beyond else ''}"


def show(title: str, header: list[str], rows: list[list]) -> None:
    cells = [header, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    print(f"\n{title}\n")
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)), flush=True)


def bootstrap_means(values: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    """float[resamples]: means of float[seeds, items] over resampled seeds and items, each resampled as a whole."""
    generator = np.random.default_rng(seed)
    seeds, items = values.shape
    rows = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    # Drawn one by one: counts of each item, as those of the few seeds, take several times as long.
    columns = generator.integers(items, size=(resamples, items))
    return np.take_along_axis(rows @ values, columns, axis=1).mean(axis=1) / seeds


def bootstrap_rejects(treated: np.ndarray, control: np.ndarray, seed: int, resamples: int = 200) -> bool:
    """Whether the percentile interval of the bootstrap over seeds and items leaves out 0."""
    means = bootstrap_means(treated.astype(float) - control, resamples, seed)
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    return not low <= 0 <= high


def items_alone_reject(treated: np.ndarray, control: np.ndarray) -> bool:
    """Whether the test that takes seeds for fixed, and items alone for drawn, rejects."""
    gaps = (treated.astype(float) - control).mean(axis=0)
    return gaps.any() and abs(gaps.mean()) > stats.norm.isf(ALPHA / 2) * gaps.std() / math.sqrt(len(gaps))


def no_effect(studies: int) -> None:
    rows = []
    for seeds, items, spread in itertools.product(SEEDS, ITEMS, SPREADS):
        world, generator = World(spread=spread), np.random.default_rng([seeds, items, spread])
        found = [[] for _ in range(5)]
        for number in range(studies):
            (treated,), control = world.study(generator, seeds, items, [0.0])
            gap = statistics.paired(treated, control)
            low, high = statistics.interval(gap, LEVEL)
            _, least, most, _ = statistics.accuracy(treated, LEVEL)
            found[0].append(statistics.p_value(gap, 0.0) <= ALPHA)
            found[1].append(low <= 0 <= high)
            found[2].append(least <= world.accuracy <= most)
            found[3].append(bootstrap_rejects(treated, control, number))
            found[4].append(items_alone_reject(treated, control))
        # One seed makes no promise about others.
        promised = ALPHA if seeds > 1 or not spread else None
        rejected, covered, covered_accuracy, bootstrap, alone = found
        rows.append([seeds, items, spread, share(rejected, promised), share(covered), share(covered_accuracy)])
        rows[-1] += [share(bootstrap), share(alone)]
    header = ["seeds", "items", "spread", "p ≤ 0.05", "interval covers", "accuracy's covers"]
    show(
        "No effect. The last two columns are rivals' false positives: the percentile bootstrap over seeds and items,\n"
        "and the test over items alone. With one seed and a spread, the truth asked for is that of other seeds: not\n"
        "what is promised.",
        [*header, "bootstrap", "items alone"],
        rows,
    )


def promised_effect(world: World, seeds: int, items: int) -> float | None:
    """The least true difference that is promised to be found with power 0.8; None if accuracy cannot rise so far."""
    effect: float | None = 0.0
    for _ in range(3):  # the variance depends on the effect
        effect = statistics.detectable(world.truth(seeds, items, effect), 0.0, ALPHA)
        if effect is None or world.accuracy + effect > HIGHEST:
            return None
    return effect


def planted_effect(studies: int) -> None:
    rows = []
    for seeds, items, spread in itertools.product(SEEDS, ITEMS, SPREADS):
        if seeds == 1 and spread:
            continue
        world, generator = World(spread=spread), np.random.default_rng([1, seeds, items, spread])
        effect = promised_effect(world, seeds, items)
        if effect is None:
            rows.append([seeds, items, spread, "none", "–", "–", "–"])
            continue
        found, covered, seen = [], [], []
        for _ in range(studies):
            (treated,), control = world.study(generator, seeds, items, [effect])
            gap = statistics.paired(treated, control)
            low, high = statistics.interval(gap, LEVEL)
            found.append(statistics.p_value(gap, 0.0) <= ALPHA and gap.mean > 0)
            covered.append(low <= effect <= high)
            if len(seen) < 100:
                seen.append(statistics.detectable(gap, 0.0, ALPHA) or math.inf)
        estimates = " to ".join(f"{100 * value:.1f}" for value in np.quantile(seen, [0.1, 0.9], method="nearest"))
        rows.append([seeds, items, spread, f"{100 * effect:.1f}", share(found), share(covered), estimates])
    show(
        "A planted effect: the least that is promised to be found with power 80 %. The last column is what single\n"
        f"studies say of it (10th to 90th percentile). None: not even a rise to {100 * HIGHEST:.0f} % would be found.",
        ["seeds", "items", "spread", "effect, points", "power", "interval covers", "detectable, points"],
        rows,
    )


def margins(studies: int) -> None:
    margin, rows = 0.05, []
    cases = [
        ("reaches", "at the margin below", "not below", -margin, None),
        ("about as good", "at the margin above", "about", margin, None),
        ("reaches", "at the margin, unlike in one direction only", "not below", -margin, "one way"),
        ("reaches", "equal", "not below", 0.0, None),
    ]
    for (claim, case, says, effect, kind), seeds, items in itertools.product(cases, (1, 3, 5), ITEMS):
        world, generator = World(spread=0 if seeds == 1 else 2), np.random.default_rng([2, seeds, items, len(case)])
        supported = []
        for _ in range(studies):
            if kind:
                control = generator.random((1, items)) < 0.5 + margin
                treated = np.repeat(control & (generator.random((1, items)) < 0.5 / (0.5 + margin)), seeds, axis=0)
            else:
                (treated,), control = world.study(generator, seeds, items, [effect])
            gap = statistics.paired(treated, control)
            p = max(statistics.p_value(gap, bound) for bound in verdicts.bounds_of(says, margin))
            supported.append(p <= ALPHA and verdicts.bears_out(says, gap.mean, margin))
        rows.append([claim, case, seeds, items, share(supported, ALPHA / 2 if effect else None)])
    show(
        "Margins of 5 points. At the margin the claim is false: at most 2.5 % of the studies may say 'supported'.",
        ["claim", "truth", "seeds", "items", "supported"],
        rows,
    )


def families(studies: int) -> None:
    rows = []
    for seeds, items in itertools.product((1, 3, 5), ITEMS):
        world = World(spread=0 if seeds == 1 else 2)
        most = HIGHEST - world.accuracy
        effect = min(statistics.detectable(world.truth(seeds, items, 0.1), 0.0, ALPHA / FAMILY) or most, most)
        large = min(2 * effect, most)
        cases = {
            "nil": [0.0] * FAMILY,
            "one nil": [0.0] + [large] * (FAMILY - 1),
            "one adverse": [-min(effect, world.accuracy - 0.01)] + [large] * (FAMILY - 1),
            "all": [effect] * FAMILY,
        }
        any_decided, found = [], {}
        for case, effects in cases.items():
            generator = np.random.default_rng([3, seeds, items, len(case)])
            found[case] = []
            for _ in range(studies):
                treated, control = world.study(generator, seeds, items, effects)
                family = []
                for one in treated:
                    gap = statistics.paired(one, control)
                    family.append({"difference": gap.mean, "p": statistics.p_value(gap, 0.0)})
                verdicts.judge(family, "above", LEVEL, 0.0)
                found[case].append(verdicts.verdict_of([[row["verdict"] for row in family]]))
                if case == "nil":
                    any_decided.append(any(row["verdict"] != "undecided" for row in family))

        def shown(case: str, verdict: str, promised: float | None = None, of: dict[str, list[str]] = found) -> str:
            return share([one == verdict for one in of[case]], promised)

        rows.append([seeds, items, share(any_decided, ALPHA), shown("nil", "contradicted", ALPHA)])
        rows[-1] += [shown("one nil", "supported", ALPHA / 2), f"{100 * effect:.1f}"]
        rows[-1] += [shown("one adverse", "contradicted"), shown("all", "supported")]
    show(
        "Claims of six comparisons that share a control, corrected by Holm. Promised: with no effect anywhere, any\n"
        "comparison decided and the claim contradicted in at most 5 %; with no effect in one and large ones in five,\n"
        "supported in at most 2.5 %. Then power: one adverse effect among large ones is contradicted, six effects are\n"
        "supported; an effect is what one comparison would find with power 80 % at a sixth of the level, as far as\n"
        "accuracies from 1 to 95 % allow.",
        ["seeds", "items", "any decided", "contradicted", "supported, one nil"]
        + ["effect, points", "contradicted, one adverse", "supported, all six"],
        rows,
    )


def limits(studies: int) -> None:
    rows = []
    for name, world, collapse in (
        ("accuracy 5 %, spread 2, control without seeds", World(0.05, 2, True), 0.0),
        ("accuracy 40 %, spread 12, control without seeds", World(0.4, 12, True), 0.0),
        ("one run in five collapses to 0 %", World(0.4, 2, True), 0.2),
    ):
        for seeds, items in itertools.product((2, 3, 5, 10), (40, 1000)):
            generator = np.random.default_rng([4, seeds, items, len(name)])
            rejected, covered = [], []
            true = -collapse * world.accuracy
            for _ in range(studies):
                (treated,), control = world.study(generator, seeds, items, [0.0])
                treated &= generator.random((seeds, 1)) >= collapse
                gap = statistics.paired(treated, control)
                low, high = statistics.interval(gap, LEVEL)
                rejected.append(statistics.p_value(gap, true) <= ALPHA)
                covered.append(low <= true <= high)
            rows.append([name, seeds, items, share(rejected, ALPHA), share(covered)])
    show("Where the promise is strained.", ["world", "seeds", "items", "p ≤ 0.05", "interval covers"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000, help="simulated studies per setting (default: 1000)")
    args = parser.parse_args()
    for part in (no_effect, planted_effect, margins, families, limits):
        part(args.studies)


if __name__ == "__main__":
    main()
