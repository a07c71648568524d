"""Tables on planning: power that is predicted and found, advice that is followed, differences called detectable."""

import itertools
from typing import Any, NamedTuple

import numpy as np
from worlds import ALPHA, Shown, World, share

from selfrefine.analysis import comparing, power, statistics
from selfrefine.analysis.power import Truth
from selfrefine.analysis.statistics import Components

MARGIN = 0.05
# True differences that advice is followed for: normal with this standard deviation, as where effects are not known.
EFFECTS_SD = 0.06
# Answers of a study that is drawn; larger ones are decided as often as their true variances say.
MOST_ANSWERS = 1_000_000
DESIGNS = ((1, 300), (2, 1000), (3, 300), (3, 1000), (5, 1000), (10, 2000))
PILOTS = ((1, 200), (2, 200), (3, 200), (3, 1000), (5, 1000))
# Pilots of each setting: each is followed by two studies that are larger.
MOST_PILOTS = 400


def draw(world: World, generator: np.random.Generator, seeds: int, items: int, effect: float) -> Components:
    """The components of the difference in one study."""
    (treated,), control = world.study(generator, seeds, items, [effect])
    return statistics.paired(treated, control)


def truth(world: World, effect: float, seeds: int = 200, items: int = 20_000) -> Truth:
    """The true mean and variances of the difference, from one study larger than any."""
    of = draw(world, np.random.default_rng(0), seeds, items, effect)
    return power.known(of.mean, of.square, of.between_seeds, of.between_items, of.residual)


def level(says: str) -> float:
    """The two-sided level of a test whose p is held against ALPHA."""
    return ALPHA * 2 / comparing.sides(says)


def verdict(of: Components, says: str) -> str:
    """A comparison's verdict by itself."""
    if comparing.p_of(of, says, MARGIN) > ALPHA:
        return "undecided"
    return "supported" if comparing.bears_out(says, of.mean, MARGIN) else "contradicted"


def predicted(studies: int, says: str, effect: float, seeds: int, items: int, spread: int) -> list[Any]:
    """Power that is predicted from the true variances, and found."""
    world, generator = World(spread=spread), np.random.default_rng([6, seeds, items, spread, round(1000 * effect)])
    told = power.chances(truth(world, effect), says, MARGIN, level(says), seeds, items).supported
    found = [verdict(draw(world, generator, seeds, items, effect), says) == "supported" for _ in range(studies)]
    row = [says, f"{100 * effect:+g}", seeds, items, spread, f"{100 * told:.1f}", share(found)]
    return [*row, f"{100 * (np.mean(found) - told):+.1f}"]


class Followed(NamedTuple):
    """What became of pilots: those undecided, those of them with advice, and what following it decided."""

    pilots: int
    advised: int
    by_estimate: list[float]
    assured: list[float]
    numbers: list[int]


def follow(world: World, seeds: int, items: int, says: str, unit: str, studies: int) -> Followed:
    """Pilots whose true effects vary; where one is undecided, a new study of the advised size, twice.

    `by_estimate` takes the number that holds if the estimates are true, `assured` the assured one.
    """
    generator = np.random.default_rng([7, seeds, items, round(1e6 * world.seed_variance), len(says), len(unit)])
    pilots, advised, found, numbers = 0, 0, ([], []), []
    for _ in range(studies):
        effect = EFFECTS_SD * generator.standard_normal()
        of = draw(world, generator, seeds, items, effect)
        if verdict(of, says) != "undecided":
            continue
        pilots += 1
        advice = power.needed([of], says, MARGIN, level(says), unit)
        advised += advice.assured is not None
        numbers += [advice.assured] if advice.assured else []
        for number, into in zip(advice, found, strict=True):
            if number:
                into.append(decided(world, generator, effect, says, *power.sizes(unit, number, seeds, items)))
    return Followed(pilots, advised, *found, numbers)


def decided(world: World, generator: np.random.Generator, effect: float, says: str, seeds: int, items: int) -> float:
    """Whether a new study decides; the probability that it does, where it is too large to be drawn."""
    if seeds * items > MOST_ANSWERS:
        return power.chances(truth(world, effect, 200, 3000), says, MARGIN, level(says), seeds, items).decided
    return float(verdict(draw(world, generator, seeds, items, effect), says) != "undecided")


def advice(studies: int, says: str, seeds: int, items: int, spread: int, unit: str) -> list[Any]:
    """How often advice that is followed decides."""
    of = follow(World(spread=spread), seeds, items, says, unit, min(studies, MOST_PILOTS))
    middle = f"{np.median(of.numbers):,.0f}" if of.numbers else "–"
    row = [says, unit, seeds, items, spread, f"{of.advised} of {of.pilots}", middle]
    return [*row, share(of.by_estimate), share(of.assured)]


def detected(studies: int, says: str, seeds: int, items: int, spread: int) -> list[Any]:
    """How often a difference is found that a study of the same size called detectable."""
    world, generator = World(spread=spread), np.random.default_rng([8, seeds, items, spread, len(says)])
    bound, found, none = 0.0 if says == "above" else -MARGIN, [], 0
    for _ in range(studies):
        of = draw(world, generator, seeds, items, bound)
        distance = power.detectable(of, says, MARGIN, level(says), highest=0.95 - world.accuracy)
        if distance is None:
            none += 1
            continue
        found.append(verdict(draw(world, generator, seeds, items, bound + distance), says) == "supported")
    return [says, seeds, items, spread, share([True] * none + [False] * len(found)), share(found)]


PLANNING = {
    "predicted": Shown(
        "Power that is predicted from true variances, and the share of studies that support the claim, with the difference\n"
        "in points. The margin is 5 points.",
        ["claim", "true difference", "seeds", "items", "spread", "predicted", "found", "found − predicted"],
        [
            (*case, *design, spread)
            for case in (("above", 0.05), ("above", 0.1), ("not below", 0.0), ("about", 0.0), ("about", 0.02))
            for design, spread in itertools.product(DESIGNS, (0, 2))
            if design[0] > 1 or not spread
        ],
        predicted,
    ),
    "advice": Shown(
        f"Pilots whose true differences are normal with a standard deviation of {100 * EFFECTS_SD:g} points. Each that is\n"
        "undecided is asked how many items, seeds or both would decide, and a new study of that size is drawn. The first\n"
        "share is of numbers that take the estimates for true; the last, of assured numbers, has to be 75 % or more.",
        ["claim", "more", "seeds", "items", "spread", "with advice", "median number", "by the estimate", "assured"],
        [
            (says, *pilot, spread, unit)
            for says, pilot, spread, unit in itertools.product(
                ("above", "about"), PILOTS, (0, 3), ("items", "seeds", "both")
            )
            # One seed says nothing of others; more items alone decide hardly anything under two to five.
            if (pilot[0] == 1 and not spread and unit == "items") or (pilot[0] > 1 and unit != "items")
        ],
        advice,
    ),
    "detectable": Shown(
        "Studies that call nothing detectable (not even a rise to 95 %, or from a margin, equal arms); and of differences that\n"
        "a study called detectable, the share that a new study of the same size finds: 80 % are promised.",
        ["claim", "seeds", "items", "spread", "none", "found"],
        [
            (says, *design, spread)
            for says, design, spread in itertools.product(("above", "not below"), DESIGNS, (0, 2))
            if design[0] > 1 or not spread
        ],
        detected,
    ),
}
