import itertools
from math import comb, sqrt

import numpy as np
import pytest

from selfrefine.statistics import accuracy, bootstrap_means, difference, mcnemar, wilson


# Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_agrees_with_published_intervals(correct, n, low, high):
    assert wilson(correct, n, 0.95) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("level", "z"), [(0.9, 1.6448536), (0.95, 1.9599640), (0.99, 2.5758293)])
def test_wilson_agrees_with_its_formula_at_every_level(level, z):
    p, n = 0.3, 50
    centre, half = (p + z * z / (2 * n)), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    expected = ((centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n))
    assert wilson(15, 50, level) == pytest.approx(expected, abs=1e-7)


def test_wilson_of_none_right_mirrors_that_of_all_right():
    low, high = wilson(0, 40, 0.95)
    assert wilson(40, 40, 0.95) == pytest.approx((1 - high, 1 - low))


def test_wilson_interval_covers_the_truth_about_95_times_in_100():
    draws = np.random.default_rng(1).binomial(100, 0.42, size=600)
    intervals = {correct: wilson(int(correct), 100, 0.95) for correct in set(draws)}
    covered = np.mean([intervals[correct][0] <= 0.42 <= intervals[correct][1] for correct in draws])
    assert 0.925 < covered < 0.975  # standard error 0.009


def test_bootstrap_repeats_itself_and_follows_its_seed():
    values = np.random.default_rng(0).random((2, 30))
    first = bootstrap_means(values, 50, seed=3)
    assert first.shape == (50,)
    assert np.array_equal(bootstrap_means(values, 50, seed=3), first)
    assert not np.array_equal(bootstrap_means(values, 50, seed=4), first)


def test_bootstrap_with_one_seed_is_the_bootstrap_over_items():
    values = np.array([[1.0] * 30 + [0.0] * 70])
    means = bootstrap_means(values, 4000)
    assert np.allclose(means * 100, np.round(means * 100))
    assert means.mean() == pytest.approx(0.3, abs=0.005)
    assert means.std() == pytest.approx(sqrt(0.3 * 0.7 / 100), rel=0.05)


def test_bootstrap_resamples_whole_seeds():
    values = np.array([[0.0] * 10, [1.0] * 10])
    found, counts = np.unique(bootstrap_means(values, 4000), return_counts=True)
    assert found.tolist() == [0.0, 0.5, 1.0]
    assert (counts / 4000).tolist() == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_bootstrap_resamples_the_same_items_for_all_seeds():
    row = np.array([1.0] * 5 + [0.0] * 5)
    crossed = bootstrap_means(np.array([row, 1 - row]), 4000)
    together = bootstrap_means(np.array([row, row]), 4000)
    # Where the drawn seeds differ, the rows cancel on every draw of items; they could not if each had a draw of its own.
    assert np.mean(crossed == 0.5) == pytest.approx(0.5 + 0.5 * comb(10, 5) / 2**10, abs=0.03)
    assert together.std() == pytest.approx(sqrt(0.25 / 10), rel=0.05)


def test_accuracy_of_one_seed_is_stated_with_wilson():
    outcomes = np.array([[True] * 15 + [False] * 35])
    assert accuracy(outcomes, 0.95, 100) == (0.3, *wilson(15, 50, 0.95), "wilson")


def test_accuracy_of_several_seeds_takes_in_the_spread_between_seeds():
    n = 200
    alike = np.array([[True] * 100 + [False] * 100] * 4)
    apart = np.array([[True] * right + [False] * (n - right) for right in (60, 80, 120, 140)])
    estimate, low, high, method = accuracy(alike, 0.95, 2000)
    assert (estimate, method) == (0.5, "bootstrap over seeds and items")
    assert (low, high) == pytest.approx(wilson(100, 200, 0.95), abs=0.02)
    wide_estimate, wide_low, wide_high, _ = accuracy(apart, 0.95, 2000)
    assert wide_estimate == 0.5
    assert wide_high - wide_low > 1.3 * (high - low)


def test_higher_level_gives_wider_intervals():
    outcomes = np.random.default_rng(0).random((3, 80)) < 0.6
    _, low, high, _ = accuracy(outcomes, 0.99, 2000)
    _, inner_low, inner_high, _ = accuracy(outcomes, 0.9, 2000)
    assert low < inner_low < outcomes.mean() < inner_high < high


@pytest.mark.parametrize(("level", "z"), [(0.9, 1.645), (0.95, 1.960)])
def test_intervals_leave_out_the_same_share_on_both_sides(level, z):
    right = np.array([[True, False] * 1000] * 2)
    half = z * sqrt(0.25 / 2000)
    for low, high in (accuracy(right, level, 4000)[1:3], difference(right, np.zeros_like(right), level, 4000)[1:]):
        assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.0015)


def test_difference_is_treated_minus_control():
    treated, control = np.array([[True] * 8 + [False] * 2]), np.array([[True] * 5 + [False] * 5])
    estimate, low, high = difference(treated, control, 0.95, 500)
    assert estimate == pytest.approx(0.3)
    assert 0 <= low < 0.3 < high <= 1
    assert difference(control, treated, 0.95, 500)[0] == pytest.approx(-0.3)


def test_difference_of_equal_outcomes_is_exactly_nothing():
    outcomes = np.random.default_rng(0).random((3, 50)) < 0.5
    assert difference(outcomes, outcomes.copy(), 0.95, 200) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("seeds", [1, 3])
def test_difference_is_paired_by_item(seeds):
    generator = np.random.default_rng(2)
    control = np.tile(generator.random(300) < 0.5, (seeds, 1))
    better = control.copy()
    better[:, np.flatnonzero(~control[0])[:15]] = True
    shuffled = better[:, generator.permutation(300)]
    estimate, low, high = difference(better, control, 0.95, 1000)
    same_estimate, loose_low, loose_high = difference(shuffled, control, 0.95, 1000)
    assert estimate == same_estimate == pytest.approx(0.05)
    assert low > 0
    assert (low, high) == pytest.approx((0.05 - 0.025, 0.05 + 0.025), abs=0.006)  # 1.96 sqrt(0.05 x 0.95 / 300)
    assert loose_low < 0
    assert loose_high - loose_low > 2 * (high - low)


def outcomes_with(gained: int, lost: int, both: int = 4, neither: int = 3) -> tuple[np.ndarray, np.ndarray]:
    treated = [True] * gained + [False] * lost + [True] * both + [False] * neither
    control = [False] * gained + [True] * lost + [True] * both + [False] * neither
    return np.array(treated), np.array(control)


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 5, 2 / 32),
        (5, 0, 2 / 32),
        (1, 6, 2 * (1 + 7) / 128),
        (10, 2, 2 * (1 + 12 + 66) / 4096),
        (2, 8, 2 * (1 + 10 + 45) / 1024),
        (3, 3, 1.0),
        (1, 0, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_agrees_with_binomials_by_hand(gained, lost, p):
    assert mcnemar(*outcomes_with(gained, lost)) == (gained, lost, pytest.approx(p))


@pytest.mark.parametrize(("gained", "lost"), list(itertools.product((0, 4, 9, 30), (1, 7, 12))))
def test_mcnemar_is_twice_the_smaller_tail_of_a_fair_coin(gained, lost):
    n = gained + lost
    tail = sum(comb(n, k) for k in range(min(gained, lost) + 1)) / 2**n
    assert mcnemar(*outcomes_with(gained, lost))[2] == pytest.approx(min(1.0, 2 * tail))


def test_mcnemar_looks_only_at_items_that_differ():
    assert mcnemar(*outcomes_with(6, 1, both=0, neither=0)) == mcnemar(*outcomes_with(6, 1, both=500, neither=900))
