"""Tables on single comparisons: errors and coverage of both estimands, power, margins, effects, limits."""

import itertools
import math
from typing import Any

import numpy as np
from worlds import ALPHA, LEVEL, Shown, World, bootstrap_rejects, items_alone_reject, share

from selfrefine.analysis import comparing, effects, power, statistics

SEEDS, ITEMS, SPREADS = (1, 2, 3, 5), (40, 200, 1000), (0, 2, 6)
HIGHEST = 0.95
RIVALS = 400  # studies; they take as long as all else


def no_effect(studies: int, seeds: int, items: int, spread: float) -> list[Any]:
    world, generator = World(spread=spread), np.random.default_rng([seeds, items, spread])
    runs_err, own_err, accuracies, bootstrap, alone = found = [[] for _ in range(5)]
    for number in range(studies):
        runs = world.runs(generator, seeds, 2)
        (treated,), control = world.study(generator, seeds, items, [0.0], runs)
        gap = statistics.paired(treated, control)
        runs_err.append(statistics.p_value(gap, 0.0) <= ALPHA)
        fixed = statistics.these_checkpoints(gap)
        own_err.append(statistics.p_value(fixed, world.of_checkpoints(runs, 0.0)) <= ALPHA)
        if number < RIVALS:
            _, least, most, _ = statistics.accuracy(treated, LEVEL)
            accuracies.append(not least <= world.accuracy <= most)
            bootstrap.append(bootstrap_rejects(treated, control, number))
            alone.append(items_alone_reject(treated, control))
    # One seed makes no promise about others.
    promised = [ALPHA if seeds > 1 or not spread else None, ALPHA, *[ALPHA if seeds > 1 or not spread else None] * 3]
    promised[3:] = [None, None]
    return [seeds, items, spread, *map(share, found, promised)]


def promised_effect(world: World, seeds: int, items: int) -> float | None:
    """The least true difference that is promised to be found with power 0.8; None if accuracy cannot rise so far."""
    effect: float | None = 0.0
    for _ in range(3):  # the variance depends on the effect
        truth = power.as_estimated(world.truth(seeds, items, effect))
        effect = power.least_found(truth, "above", 0.0, ALPHA, seeds, items)
        if effect is None or world.accuracy + effect > HIGHEST:
            return None
    return effect


def planted(studies: int, seeds: int, items: int, spread: float) -> list[Any]:
    world, generator = World(spread=spread), np.random.default_rng([1, seeds, items, spread])
    effect = promised_effect(world, seeds, items)
    if effect is None:
        return [seeds, items, spread, "none", "–", "–", "–"]
    found, missed, fixed = [], [], []
    for _ in range(studies):
        (treated,), control = world.study(generator, seeds, items, [effect])
        gap = statistics.paired(treated, control)
        found.append(statistics.p_value(gap, 0.0) <= ALPHA and gap.mean > 0)
        fixed.append(statistics.p_value(statistics.these_checkpoints(gap), 0.0) <= ALPHA and gap.mean > 0)
        missed.append(statistics.p_value(gap, effect) <= ALPHA)
    return [seeds, items, spread, f"{100 * effect:.1f}", share(found), share(missed, ALPHA), share(fixed)]


def margin(studies: int, says: str, effect: float, seeds: int, items: int) -> list[Any]:
    world, generator = World(spread=0 if seeds == 1 else 2), np.random.default_rng([2, seeds, items, len(says)])
    of, reach = world.truth(seeds, items, effect), 0.05
    predicted = power.chances(power.as_estimated(of), says, reach, 2 * ALPHA, seeds, items).supported
    supported = []
    for _ in range(studies):
        (treated,), control = world.study(generator, seeds, items, [effect])
        gap = statistics.paired(treated, control)
        p = comparing.p_of(gap, says, reach)
        supported.append(p <= ALPHA and comparing.bears_out(says, gap.mean, reach))
    told = f"{100 * predicted:.1f}"
    return [says, f"{100 * effect:+g}", seeds, items, share(supported, ALPHA if effect else None), told]


def other_effects(studies: int, seeds: int, items: int, spread: float) -> list[Any]:
    """The log odds, and the mean over benchmarks whose true effects vary."""
    world, generator, effect = World(spread=spread), np.random.default_rng([5, seeds, items, spread]), 0.05
    (treated,), control = world.study(np.random.default_rng(0), 200, 20000, [effect])
    gained, lost = (treated & ~control).mean(), (~treated & control).mean()
    true, missed = math.log(gained / lost), []
    for _ in range(studies):
        (treated,), control = world.study(generator, seeds, items, [effect])
        odds = effects.log_odds(treated, control, statistics.paired(treated, control), LEVEL)
        ends = (None, None) if odds is None else (odds["low"], odds["high"])
        missed.append(not (ends[0] is None or ends[0] <= true) or not (ends[1] is None or true <= ends[1]))
    row = [seeds, items, spread, share(missed, ALPHA)]
    for benchmarks, between in ((2, 0.0), (4, 0.0), (4, 0.04), (8, 0.04)):
        missed = []
        for _ in range(studies // 4):
            means, errors = [], []
            for _ in range(benchmarks):
                (treated,), control = world.study(generator, seeds, items, [between * generator.standard_normal()])
                gap = statistics.paired(treated, control)
                low, high = statistics.interval(gap, LEVEL)
                means.append(gap.mean)
                errors.append((high - low) / 2 / statistics.critical(gap.seed_share, gap.df, ALPHA))
            mean = effects.mean_over(means, errors, LEVEL)
            missed.append(not mean.low <= 0 <= mean.high)
        row.append(share(missed, ALPHA))
    return row


def limit(studies: int, name: str, accuracy: float, spread: float, seeds: int, items: int) -> list[Any]:
    world, generator = World(accuracy, spread, True), np.random.default_rng([4, seeds, items, int(spread)])
    rejected, fixed = [], []
    for _ in range(studies):
        runs = world.runs(generator, seeds, 2)
        (treated,), control = world.study(generator, seeds, items, [0.0], runs)
        gap = statistics.paired(treated, control)
        rejected.append(statistics.p_value(gap, 0.0) <= ALPHA)
        p = statistics.p_value(statistics.these_checkpoints(gap), world.of_checkpoints(runs, 0.0))
        fixed.append(p <= ALPHA)
    return [name, seeds, items, share(rejected, ALPHA), share(fixed, ALPHA)]


COMPARISONS = {
    "errors": Shown(
        "No effect: how often each test or interval errs; 5 % are promised. Two rivals stand last: the percentile "
        "bootstrap over seeds and items, and the test over items alone, taken for one of new training runs. With "
        "one seed and a spread, nothing is promised of new runs.",
        ["seeds", "items", "spread", "new runs", "these checkpoints", "accuracy", "bootstrap", "items alone"],
        list(itertools.product(SEEDS, ITEMS, SPREADS)),
        no_effect,
    ),
    "power": Shown(
        "A planted effect: the least that is promised to be found with power 80 % by one comparison of new "
        f"training runs, in points. None: not even a rise to {100 * HIGHEST:.0f} % would be.",
        ["seeds", "items", "spread", "effect", "found", "interval misses it", "by these checkpoints"],
        [case for case in itertools.product(SEEDS, ITEMS, SPREADS) if case[0] > 1 or not case[2]],
        planted,
    ),
    "margins": Shown(
        "Margins of 5 points. At the margin the claim is false: at most 5 % of the studies may say 'supported'. "
        "Then arms that are truly equal, with the power that is predicted, both sides counted. Spread 2 with "
        "several seeds.",
        ["claim", "true difference", "seeds", "items", "supported", "predicted"],
        [
            (says, effect, seeds, items)
            for says, effects_ in (("not below", (-0.05, 0.0)), ("about", (0.05, 0.0)))
            for effect, seeds, items in itertools.product(effects_, (1, 3, 5), (200, 1000))
        ],
        margin,
    ),
    "effects": Shown(
        "Other effects: how often the interval misses the truth (5 % are promised) of the log odds of gains to "
        "losses, and of the mean over so many benchmarks, whose true effects have the standard deviation SD in points.",
        ["seeds", "items", "spread", "log odds", "2, SD 0", "4, SD 0", "4, SD 4", "8, SD 4"],
        [(1, 200, 0), (1, 1000, 0), (3, 200, 2), (3, 1000, 2), (5, 1000, 6)],
        other_effects,
    ),
    "limits": Shown(
        "Where the promise is strained: no effect, and a control without seeds.",
        ["world", "seeds", "items", "new runs", "these checkpoints"],
        [
            (name, accuracy, spread, seeds, items)
            for name, accuracy, spread in (("accuracy 5 %, spread 2", 0.05, 2), ("accuracy 40 %, spread 12", 0.4, 12))
            for seeds, items in itertools.product((2, 3, 5, 10), (40, 1000))
        ],
        limit,
    ),
}
