"""Tables on whole studies: pooled variances between seeds, claims, looks, collapsed training runs."""

import itertools
from typing import Any

import numpy as np
from simulated_comparisons import HIGHEST, ITEMS
from worlds import ALPHA, LEVEL, Shown, World, share

from selfrefine.analysis import looks, outlying_runs, power, statistics, verdicts
from selfrefine.analysis.seed_variance import moderated

FAMILY = 6
LOOKS = (2, 3, 4, 5, 6, 8)
LISTED = ", ".join(map(str, LOOKS))
# By name: the spread on each of four benchmarks.
STAGES = {
    "0 on all": (0, 0, 0, 0),
    "3 on all": (3, 3, 3, 3),
    "1, 1, 3, 3": (1, 1, 3, 3),
    "1, 1, 1, 4": (1, 1, 1, 4),
    "0, 0, 0, 6": (0, 0, 0, 6),
}


def stage(studies: int, name: str, copies: int, seeds: int, items: int, effect: float = 0.0) -> list[Any]:
    """Comparisons of one stage, each with its own training runs; `copies` of each benchmark."""
    generator = np.random.default_rng([6, copies, seeds, items, len(name), round(100 * effect)])
    worlds = [World(spread=spread) for spread in STAGES[name] * copies]
    alone, pooled, checkpoints = [], [], []
    for _ in range(max(studies // copies // 2, 100)):
        gaps = []
        for world in worlds:
            (treated,), control = world.study(generator, seeds, items, [effect])
            gaps.append(statistics.paired(treated, control))
        alone.append([statistics.p_value(gap, 0.0) <= ALPHA for gap in gaps])
        checkpoints.append([statistics.p_value(statistics.these_checkpoints(gap), 0.0) <= ALPHA for gap in gaps])
        pooled.append([statistics.p_value(gap, 0.0) <= ALPHA for gap in moderated(gaps, range(len(gaps)))])
    by_benchmark = np.array(pooled)
    promised = None if effect else ALPHA
    row = [name, len(worlds), seeds, items, share(np.ravel(alone), promised), share(by_benchmark.ravel(), promised)]
    if effect:
        return [*row, share(np.ravel(checkpoints))]
    return [*row, share(by_benchmark[:, len(STAGES[name]) - 1 :: len(STAGES[name])].ravel())]


def found(studies: int, name: str, copies: int, seeds: int, items: int, points: int) -> list[Any]:
    *settings, _, alone, pooled, checkpoints = stage(studies, name, copies, seeds, items, points / 100)
    return [*settings, points, alone, pooled, checkpoints]


def shared_runs(studies: int, runs: int, seeds: int, spread: float) -> list[Any]:
    """Eight comparisons of few training runs, whose effects are the same on all of their benchmarks."""
    generator, world = np.random.default_rng([7, runs, seeds]), World(spread=spread)
    right, wrong, alone = [], [], []
    for _ in range(studies // 4):
        gaps, behind = [], []
        for run in range(runs):
            effects = world.runs(generator, seeds, 2)
            for _ in range(8 // runs):
                (treated,), control = world.study(generator, seeds, 1000, [0.0], effects)
                gaps.append(statistics.paired(treated, control))
                behind.append(run)
        alone += [statistics.p_value(gap, 0.0) <= ALPHA for gap in gaps]
        right += [statistics.p_value(gap, 0.0) <= ALPHA for gap in moderated(gaps, behind)]
        wrong += [statistics.p_value(gap, 0.0) <= ALPHA for gap in moderated(gaps, range(len(gaps)))]
    return [runs, seeds, spread, share(alone, ALPHA), share(right, ALPHA), share(wrong)]


def family(studies: int, seeds: int, items: int) -> list[Any]:
    world = World(spread=0 if seeds == 1 else 2)
    most = HIGHEST - world.accuracy
    truth = power.as_estimated(world.truth(seeds, items, 0.1))
    effect = min(power.least_found(truth, "above", 0.0, ALPHA / FAMILY, seeds, items) or most, most)
    large = min(2 * effect, most)
    cases = {
        "nil": [0.0] * FAMILY,
        "one nil": [0.0] + [large] * (FAMILY - 1),
        "one adverse": [-min(effect, world.accuracy - 0.01)] + [large] * (FAMILY - 1),
        "all": [effect] * FAMILY,
    }
    any_decided, verdict = [], {}
    for case, effects in cases.items():
        generator = np.random.default_rng([3, seeds, items, len(case)])
        verdict[case] = []
        for _ in range(studies // 2):
            treated, control = world.study(generator, seeds, items, effects)
            rows = []
            for one in treated:
                gap = statistics.paired(one, control)
                rows.append({"difference": gap.mean, "p": statistics.p_value(gap, 0.0)})
            verdicts.judge(rows, "above", LEVEL, 0.0)
            verdict[case].append(verdicts.verdict_of([[row["verdict"] for row in rows]]))
            if case == "nil":
                any_decided.append(any(row["verdict"] != "undecided" for row in rows))

    def shown(case: str, asked: str, promised: float | None = None) -> str:
        return share([one == asked for one in verdict[case]], promised)

    row = [seeds, items, share(any_decided, ALPHA), shown("nil", "contradicted", ALPHA)]
    row += [shown("one nil", "supported", ALPHA / 2), f"{100 * effect:.1f}"]
    return [*row, shown("one adverse", "contradicted"), shown("all", "supported")]


def looking(studies: int, items: int, spread: float, effect: float) -> list[Any]:
    """Seeds are added to a comparison until it is decided."""
    generator, world = np.random.default_rng([8, items, spread]), World(spread=spread)
    at = LOOKS
    levels = {
        "each look at 5 %": [ALPHA] * len(at),
        "O'Brien-Fleming": [looks.level_at(seeds, ALPHA, at, "obrien-fleming") for seeds in at],
        "Pocock": [looks.level_at(seeds, ALPHA, at, "pocock") for seeds in at],
        "any": [looks.level_at(seeds, ALPHA, "any") for seeds in at],
        "extended": [ALPHA] + [looks.level_at(seeds, ALPHA, "any") for seeds in at[1:]],
        "last": [0.0] * (len(at) - 1) + [ALPHA],
    }
    decided: dict[str, list[bool]] = {name: [] for name in levels}
    for _ in range(studies):
        (treated,), control = world.study(generator, at[-1], items, [effect])
        p = [statistics.p_value(statistics.paired(treated[:seeds], control[:seeds]), 0.0) for seeds in at]
        for name, alphas in levels.items():
            decided[name].append(any(one <= alpha for one, alpha in zip(p, alphas, strict=True)))
    promised = {"each look at 5 %": None, "extended": ALPHA * (1 + 1 / at[0])}
    row = [items, spread, f"{100 * effect:g}"]
    return [*row, *(share(hits, None if effect else promised.get(name, ALPHA)) for name, hits in decided.items())]


def collapse(studies: int, rate: float, spread: float, seeds: int, items: int) -> list[Any]:
    """Training runs of both arms collapse to 0 %; the arms are alike, and a study says which is better."""
    generator, world = np.random.default_rng([9, int(10 * rate), int(spread), seeds, items]), World(spread=spread)
    flagged, named, false_before, false_now = [], [], [], []
    for _ in range(studies):
        (treated,), control = world.study(generator, seeds, items, [0.0])
        fallen = generator.random((2, seeds)) < rate
        treated, control = treated & ~fallen[0][:, None], control & ~fallen[1][:, None]
        odd = set()
        for arm, fell in zip((treated, control), fallen, strict=True):
            told = set(outlying_runs.outlying(arm.mean(axis=1).tolist(), items))
            odd |= told
            # More than half of an arm's runs is no outlier any more.
            if 0 < fell.sum() < seeds / 2:
                named.append(set(np.flatnonzero(fell)) <= told)
            if not fell.any():
                flagged.append(bool(told))
        gap = statistics.paired(treated, control)
        supported = statistics.p_value(gap, 0.0) <= ALPHA
        false_before.append(supported)
        kept = [seed for seed in range(seeds) if seed not in odd]
        if odd and supported:
            rest = statistics.paired(treated[kept], control[kept]) if len(kept) > 1 else None
            supported = rest is not None and statistics.p_value(rest, 0.0) <= ALPHA and rest.mean * gap.mean > 0
        false_now.append(supported)
    row = [f"{100 * rate:g} %", spread, seeds, items, share(named), share(flagged)]
    return [*row, share(false_before), share(false_now, ALPHA)]


def unseen(studies: int, seeds: int) -> list[Any]:
    """The treated arm gains as much as its collapsing runs lose, one in five: is it said to be better?"""
    generator, world, rate = np.random.default_rng([10, seeds]), World(spread=2), 0.2
    supported, whole = [], []
    for _ in range(studies):
        # On the whole the arms are equal: 0.8 x 0.5 = 0.4.
        (treated,), control = world.study(generator, seeds, 1000, [0.1])
        fallen = generator.random(seeds) < rate
        treated &= ~fallen[:, None]
        gap = statistics.paired(treated, control)
        p = statistics.p_value(gap, 0.0)
        supported.append(p <= ALPHA and gap.mean > 0)
        whole.append(not fallen.any())
    alone = [one for one, all_whole in zip(supported, whole, strict=True) if not all_whole]
    bound = f"{100 * outlying_runs.unseen(seeds, LEVEL):.0f}"
    return [seeds, share(supported), share(whole), share(alone, ALPHA), bound]


STUDIES = {
    "stages": Shown(
        "No effect, and the variance between seeds estimated over the comparisons of a stage, each with training "
        "runs of its own: p ≤ 0.05 of new training runs. Alone is one comparison by itself. The last column is "
        "the benchmark whose seeds vary most: what is promised holds for the mean benchmark.",
        ["spread by benchmark", "comparisons", "seeds", "items", "alone", "moderated", "widest"],
        [
            (name, copies, seeds, items)
            for name, seeds, (copies, items) in itertools.product(STAGES, (2, 3), ((1, 200), (1, 1000), (2, 1000)))
        ],
        stage,
    ),
    "found": Shown(
        "A planted effect, in points, with 1,000 items: how often it is found (p ≤ 0.05).",
        ["spread", "comparisons", "seeds", "effect", "alone", "moderated", "these checkpoints"],
        [
            (name, copies, seeds, 1000, points)
            for name, copies, seeds, points in itertools.product(("0 on all", "3 on all"), (1, 2), (1, 2, 3), (5, 10))
        ],
        found,
    ),
    "shared": Shown(
        "No effect, eight comparisons of few training runs, evaluated on several benchmarks each: p ≤ 0.05. As if "
        "apart: what moderation would do that takes every comparison for training runs of its own.",
        ["training runs", "seeds", "spread", "alone", "moderated", "as if apart"],
        list(itertools.product((1, 2, 4), (2, 3), (0, 3))),
        shared_runs,
    ),
    "families": Shown(
        "Claims of six comparisons that share a control, corrected by Holm. Promised: with no effect anywhere, "
        "any comparison decided and the claim contradicted in at most 5 %; with no effect in one and large ones "
        "in five, supported in at most 2.5 %. Then power: one adverse effect among large ones is contradicted, "
        "six effects are supported; an effect is what one comparison would find with power 80 % at a sixth of the "
        "level, as far as accuracies from 1 to 95 % allow.",
        ["seeds", "items", "any decided", "contradicted", "one nil", "effect", "one adverse", "all six"],
        list(itertools.product((1, 3, 5), ITEMS)),
        family,
    ),
    "looks": Shown(
        f"Seeds are added until a comparison is decided, with looks at {LISTED} seeds: how often it ever is. With "
        "no effect, 5 % are promised, but for the first, which no study is granted, and for one that is extended after "
        "an undeclared look at two seeds (7.5 %).",
        ["items", "spread", "effect", "each look at 5 %", "O'Brien-Fleming", "Pocock", "any", "extended"] + ["last"],
        [
            (items, spread, effect)
            for items, (spread, effect) in itertools.product(
                (200, 1000), ((0, 0.0), (2, 0.0), (6, 0.0), (2, 0.05), (2, 0.1))
            )
        ],
        looking,
    ),
    "collapsed": Shown(
        "Training runs of both arms collapse to 0 % at this rate; otherwise the arms are alike. Named: all "
        "collapsed runs of an arm are flagged, where they are less than half. Flagged: some run of an arm is in "
        "which none collapsed. Then p ≤ 0.05, and the same where it has to hold without the flagged runs, too, as "
        "a verdict does.",
        ["collapse", "spread", "seeds", "items", "named", "flagged by mistake", "p ≤ 0.05", "decided"],
        list(itertools.product((0.0, 0.2), (0, 2, 6), (3, 5, 10), (1000,))),
        collapse,
    ),
    "unseen": Shown(
        "What no rule can see: one run in five of the treated arm collapses, and the others gain as much as that "
        "costs. If all runs at hand are whole, nothing tells of it. Last: the highest rate of collapse that "
        "leaves so many runs whole with probability 5 %.",
        ["seeds", "supported", "all runs whole", "supported of the others", "could go unseen, %"],
        [(2,), (3,), (5,), (10,), (20,)],
        unseen,
    ),
}
