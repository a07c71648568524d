"""Power and advice, against simulated studies (bench/simulated_planning.py)."""

from math import sqrt

import numpy as np
import pytest
import simulated_planning as simulated
from scipy import special, stats
from worlds import World

from selfrefine.analysis import power, statistics
from selfrefine.analysis.advice import advice, claim_advice, would_decide
from selfrefine.analysis.power import chances, detectable, known, needed

ALPHA, MARGIN = 0.05, 0.05

# A share of n studies is off by more than four standard errors once in 16,000 runs; the seeds are fixed.


@pytest.mark.parametrize(
    ("says", "effect", "seeds", "items", "spread"),
    [
        ("above", 0.1, 1, 300, 0.0),
        ("above", 0.05, 3, 1000, 0.0),
        ("above", 0.1, 3, 300, 2),
        ("above", 0.05, 5, 1000, 2),
        ("not below", 0.0, 3, 1000, 0.0),
        ("about", 0.0, 3, 1000, 0.0),
        ("about", 0.02, 10, 2000, 2),
    ],
)
def test_power_is_found_as_often_as_predicted(says, effect, seeds, items, spread):
    studies, world = 150, World(spread=spread)
    generator = np.random.default_rng([11, seeds, items])
    told = chances(simulated.truth(world, effect), says, MARGIN, simulated.level(says), seeds, items).supported
    drawn = (simulated.draw(world, generator, seeds, items, effect) for _ in range(studies))
    found = np.mean([simulated.verdict(of, says) == "supported" for of in drawn])
    # The normal form of the tests, and truths estimated from one large study, are off by some points themselves.
    assert abs(found - told) < 0.07 + 4 * sqrt(told * (1 - told) / studies)


def test_equivalence_counts_both_sides():
    # A standard error of 2.3 points: far from one margin by 0.8, from both by less.
    truth = known(0.0, 0.2, 0.0, 0.2, 0.0)
    items = 380
    one_sided = chances(truth, "not below", MARGIN, ALPHA, 1, items).supported
    both = chances(truth, "about", MARGIN, ALPHA, 1, items).supported
    assert both == pytest.approx(2 * one_sided - 1, abs=0.01)


@pytest.mark.parametrize(
    ("says", "unit", "seeds", "items", "spread"),
    [
        ("above", "items", 1, 200, 0.0),
        ("above", "both", 2, 200, 3),
        ("above", "both", 3, 200, 3),
        ("above", "seeds", 3, 1000, 3),
        ("about", "both", 2, 200, 3),
        ("about", "both", 3, 200, 3),
    ],
)
def test_advice_that_is_followed_decides_three_of_four_studies(says, unit, seeds, items, spread):
    of = simulated.follow(World(spread=spread), seeds, items, says, unit, 70)
    assert len(of.assured) > 10
    assert np.mean(of.assured) > 0.75 - 4 * sqrt(0.75 * 0.25 / len(of.assured))
    assert np.mean(of.assured) >= np.mean(of.by_estimate) - 0.05


def test_the_estimates_alone_overpromise():
    """What the advice was before: variances that came out at 0, taken for true."""
    of = simulated.follow(World(spread=3), 3, 200, "above", "both", 150)
    assert np.mean(of.by_estimate) < np.mean(of.assured) - 0.1


@pytest.mark.parametrize(("seeds", "items", "spread"), [(1, 300, 0.0), (3, 1000, 0.0), (3, 1000, 2), (5, 300, 2)])
def test_differences_that_are_called_detectable_are_found(seeds, items, spread):
    world, generator, found = World(spread=spread), np.random.default_rng([14, seeds, items]), []
    for _ in range(100):
        distance = detectable(simulated.draw(world, generator, seeds, items, 0.0), "above", MARGIN, ALPHA)
        drawn = simulated.draw(world, generator, seeds, items, distance)
        found.append(simulated.verdict(drawn, "above") == "supported")
    assert np.mean(found) > 0.75 - 4 * sqrt(0.75 * 0.25 / len(found))


def test_nothing_is_detectable_beyond_equal_arms_or_a_full_score():
    of = simulated.draw(World(), np.random.default_rng(0), 3, 100, 0.0)
    for says in ("not below", "about"):
        assert detectable(of, says, MARGIN, ALPHA) is None  # only a difference of more than the margin would be found
        assert detectable(of, says, 0.4, ALPHA) < 0.4
    distance = detectable(of, "above", MARGIN, ALPHA)
    assert distance is not None
    assert detectable(of, "above", MARGIN, ALPHA, highest=distance / 2) is None
    few = statistics.components(np.array([[1.0, 0.0, 0.0]]))
    assert detectable(few, "above", MARGIN, ALPHA) is None  # three items cannot pass an exact test


@pytest.mark.parametrize("says", ["above", "not below", "about"])
@pytest.mark.parametrize("seeds", [1, 2])
def test_twelve_items_without_a_difference_are_not_enough(says, seeds):
    """Arms that never differed on the items at hand were taken for arms that never will: twelve items, said the advice."""
    alike = np.arange(12)[None, :] % 2 == np.zeros((seeds, 1))
    of = statistics.paired(alike, alike)
    found = needed([of], says, MARGIN, ALPHA, "items")
    assert all(number is None or number > 100 for number in found)
    assert found.assured is not None or seeds == 2


def test_more_comparisons_need_more_items_and_one_contradiction_needs_none():
    of = statistics.components(np.array([[1.0] * 9 + [-1.0] * 5 + [0.0] * 50]))
    numbers = [needed([of] * count, "above", MARGIN, ALPHA / count, "items").assured for count in (1, 3)]
    assert numbers[0] < numbers[1]
    row = {"verdict": "undecided", "components": of._asdict(), "seeds": 1, "items": 64}
    assert list(advice([row], "above", ALPHA, MARGIN)) == ["items"]
    assert advice([row, {**row, "verdict": "contradicted"}], "above", ALPHA, MARGIN) == {}
    assert claim_advice([row], {}) == "no number of items or seeds"


def test_pooled_degrees_of_freedom_need_fewer_seeds():
    of = statistics.Components(2, 1000, 0.06, 0.3, 0.0002, 0.045, 0.25, 0.7)
    pooled = of._replace(seed_df=10.0)
    more, fewer = (needed([one], "above", MARGIN, ALPHA, "both").assured for one in (of, pooled))
    assert fewer < more
    assert detectable(pooled, "above", MARGIN, ALPHA) < detectable(of, "above", MARGIN, ALPHA)


def test_these_checkpoints_have_no_seeds_to_vary():
    of = statistics.Components(2, 1000, 0.06, 0.3, 0.0002, 0.045, 0.25, 0.7)
    fixed = statistics.these_checkpoints(of)
    assert detectable(fixed, "above", MARGIN, ALPHA) < 0.06
    assert needed([fixed._replace(mean=0.01)], "above", MARGIN, ALPHA, "items").assured > 1000


def test_advice_in_words():
    assert would_decide({"items": [120, 400], "seeds": [None, 8]}, 3, 100) == "120 to 400 items or 8 seeds"
    assert would_decide({"both": [4, 12]}, 3, 110) == "12 seeds on 440 items"
    assert would_decide({"items": [500, 400]}, 1, 100) == "400 items"
    assert would_decide({}, 1, 100) == ""


@pytest.mark.parametrize(("n", "gain", "loss"), [(30, 0.3, 0.08), (60, 0.25, 0.1), (200, 0.15, 0.08)])
def test_the_power_of_mcnemar_s_test_by_enumeration(n, gain, loss):
    exact = 0.0
    for gained in range(n + 1):
        lost = np.arange(min(gained, n + 1 - gained))
        found = lost[2 * special.bdtr(lost, gained + lost, 0.5) <= ALPHA]
        # Of those that are not gained, so many are lost.
        exact += stats.binom.pmf(gained, n, gain) * stats.binom.pmf(found, n - gained, loss / (1 - gain)).sum()
    truth = known(gain - loss, gain + loss, 0.0, gain + loss - (gain - loss) ** 2, 0.0)
    assert chances(truth, "above", MARGIN, ALPHA, 1, n).supported == pytest.approx(exact, abs=0.03)
    assert tuple(sorted(set(power.NUMBERS))) == power.NUMBERS


def test_comparisons_that_cannot_be_decided_by_size_say_so():
    row = {"verdict": "undecided", "seeds": 1, "items": 64, "alpha": 0.05, "identical": True, "components": {}}
    assert advice([row], "above", ALPHA, MARGIN) == {}
    assert claim_advice([row], {}) == "arms that differ"
    assert claim_advice([{**row, "identical": False, "alpha": 0.0}], {}) == "a declared look"
