import gc
import itertools
from math import comb, sqrt

import numpy as np
import pytest
import simulated_comparisons
import worlds
from scipy import integrate, stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from selfrefine.analysis import statistics
from selfrefine.analysis.statistics import accuracy, components, difference, mcnemar, paired, wilson


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


@pytest.mark.parametrize(("n", "level"), list(itertools.product((1, 7, 300), (0.5, 0.95, 0.999))))
def test_wilson_agrees_with_scipy(n, level):
    for correct in range(n + 1):
        expected = stats.binomtest(correct, n).proportion_ci(level, method="wilson")
        assert wilson(correct, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_none_right_mirrors_that_of_all_right():
    low, high = wilson(0, 40, 0.95)
    assert wilson(40, 40, 0.95) == pytest.approx((1 - high, 1 - low))


def test_wilson_interval_covers_the_truth_about_95_times_in_100():
    draws = np.random.default_rng(1).binomial(100, 0.42, size=600)
    intervals = {correct: wilson(int(correct), 100, 0.95) for correct in set(draws)}
    covered = np.mean([intervals[correct][0] <= 0.42 <= intervals[correct][1] for correct in draws])
    assert 0.925 < covered < 0.975  # standard error 0.009


def test_components_by_hand():
    # Rows are seeds. Mean squares: seeds 3 x (1/6)^2 x 2 = 1/6, items 2 x (1/4 + 1/4) / 2 = 1/2,
    # rest (3/2 - 1/6 - 1) / 2 = 1/6.
    parts = components(np.array([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    assert (parts.seeds, parts.items, parts.mean, parts.square) == (2, 3, 0.5, 0.5)
    assert parts.between_seeds == pytest.approx(0, abs=1e-12)
    assert parts.between_items == pytest.approx((1 / 2 - 1 / 6) / 2)
    assert parts.residual == pytest.approx(1 / 6)
    assert parts.seed_share == pytest.approx((1 / 6) / (1 / 2))


def test_components_are_what_was_planted():
    generator = np.random.default_rng(0)
    seeds, items, rest = generator.normal(0, 0.2, (300, 1)), generator.normal(0, 0.3, (1, 2000)), 0.4
    parts = components(0.1 + seeds + items + generator.normal(0, rest, (300, 2000)))
    assert parts.between_seeds == pytest.approx(0.2**2, rel=0.25)  # standard error 0.08
    assert parts.between_items == pytest.approx(0.3**2, rel=0.1)  # 0.03
    assert parts.residual == pytest.approx(rest**2, rel=0.01)  # 0.002
    assert parts.variance(300, 2000) == pytest.approx(0.2**2 / 300 + 0.3**2 / 2000, rel=0.3)


@pytest.mark.parametrize(("share", "df"), list(itertools.product((0.01, 0.3, 0.9), (1, 2, 4, 30))))
def test_the_reference_is_a_t_plus_a_normal(share, df):
    def density(t: float) -> float:
        return stats.t.pdf(t, df) * (
            stats.norm.sf((2.5 - sqrt(share) * t) / sqrt(1 - share))
            + stats.norm.cdf((-2.5 - sqrt(share) * t) / sqrt(1 - share))
        )

    centre, rest = integrate.quad(density, -40, 40, limit=500)[0], 2 * stats.t.sf(40, df)
    assert statistics.tail(2.5, share, df) == pytest.approx(centre + rest, abs=2e-4)


def test_the_reference_is_normal_without_seeds_and_student_s_without_items():
    for df in (1, 2, 9, 400):
        assert statistics.tail(1.7, 0.0, df) == pytest.approx(2 * stats.norm.sf(1.7))
        assert statistics.tail(1.7, 1.0, df) == pytest.approx(2 * stats.t.sf(1.7, df), rel=1e-9)
        assert statistics.critical(1.0, df, 0.05) == pytest.approx(stats.t.isf(0.025, df), rel=1e-9)
    between = [statistics.critical(share, 2, 0.05) for share in (0.0, 0.2, 0.6, 1.0)]
    assert between == sorted(between)


def test_accuracy_of_one_seed_is_stated_with_wilson():
    for correct in (0, 1, 15, 50):
        outcomes = np.array([[True] * correct + [False] * (50 - correct)])
        *numbers, method = accuracy(outcomes, 0.95)
        assert numbers == pytest.approx([correct / 50, *wilson(correct, 50, 0.95)], abs=1e-8)
        assert method == "wilson"


def test_accuracy_of_several_seeds_takes_in_the_spread_between_seeds():
    n = 200
    alike = np.array([[True] * 100 + [False] * 100] * 4)
    apart = np.array([[True] * correct + [False] * (n - correct) for correct in (60, 80, 120, 140)])
    estimate, low, high, method = accuracy(alike, 0.95)
    assert (estimate, method) == (0.5, "wilson over seeds and items")
    assert (low, high) == pytest.approx(wilson(100, 200, 0.95), abs=0.002)
    wide_estimate, wide_low, wide_high, _ = accuracy(apart, 0.95)
    assert wide_estimate == 0.5
    # Seeds alone: t of 3 degrees of freedom times the standard error of (0.3, 0.4, 0.6, 0.7); Wilson's stays in 0 to 1.
    half = stats.t.isf(0.025, 3) * stats.sem([0.3, 0.4, 0.6, 0.7])
    assert 0.8 * half < (wide_high - wide_low) / 2 < half


def test_accuracy_of_none_right_under_any_seeds_is_as_unsure_as_the_items_are_few():
    _, low, high, _ = accuracy(np.zeros((3, 40), dtype=bool), 0.95)
    assert (low, high) == pytest.approx(wilson(0, 40, 0.95), abs=1e-8)


def test_higher_level_gives_wider_intervals():
    outcomes = np.random.default_rng(0).random((3, 80)) < 0.6
    _, low, high, _ = accuracy(outcomes, 0.99)
    _, inner_low, inner_high, _ = accuracy(outcomes, 0.9)
    assert low < inner_low < outcomes.mean() < inner_high < high


def test_difference_is_treated_minus_control():
    treated, control = np.array([[True] * 8 + [False] * 2]), np.array([[True] * 5 + [False] * 5])
    estimate, low, high = difference(treated, control, 0.95)
    assert estimate == pytest.approx(0.3)
    assert -1 <= low <= 0 < 0.3 < high <= 1
    mirrored = difference(control, treated, 0.95)
    assert mirrored == pytest.approx((-estimate, -high, -low), abs=1e-7)


# The quartic whose outer real roots are Tango's limits: Yang, Sun & Hardin, Statistics in Medicine 32 (2013).
def tango(gained: int, lost: int, n: int, level: float) -> tuple[float, float]:
    g, d, s = stats.norm.isf((1 - level) / 2) ** 2, gained - lost, gained + lost
    quartic = [
        n**2 * (n / g + 1) ** 2,
        -n * d * (n / g + 1) * (4 * n / g + 1),
        2 * n * d**2 * (3 * n / g + 2) / g - n**2 * (s / g + 1),
        n * d * (2 * s / g + 1) - d**3 * (4 * n / g + 1) / g,
        d**2 * (d**2 / g - s) / g,
    ]
    roots = np.roots(quartic)
    real = roots[np.abs(roots.imag) < 1e-6].real
    return float(real.min()), float(real.max())


@pytest.mark.parametrize(
    ("gained", "lost", "n", "level"), [(40, 20, 160, 0.95), (12, 1, 50, 0.9), (9, 0, 200, 0.95), (30, 3, 40, 0.99)]
)
def test_the_interval_of_one_seed_is_tango_s(gained, lost, n, level):
    treated, control = outcomes_with(gained, lost, 0, n - gained - lost)
    assert difference(treated[None], control[None], level)[1:] == pytest.approx(tango(gained, lost, n, level), abs=1e-6)


def test_equal_outcomes_leave_room_for_a_difference():
    outcomes = np.random.default_rng(0).random((1, 50)) < 0.5
    z = stats.norm.isf(0.025)
    room = z**2 / (50 + z**2)  # Tango's limits where no pair differs
    assert difference(outcomes, outcomes.copy(), 0.95) == pytest.approx((0, -room, room), abs=1e-7)
    several = np.repeat(outcomes, 3, axis=0)
    assert difference(several, several.copy(), 0.95) == pytest.approx((0, -room, room), abs=1e-7)


@pytest.mark.parametrize("seeds", [1, 3])
def test_difference_is_paired_by_item(seeds):
    generator = np.random.default_rng(2)
    control = np.tile(generator.random(300) < 0.5, (seeds, 1))
    better = control.copy()
    better[:, np.flatnonzero(~control[0])[:15]] = True
    shuffled = better[:, generator.permutation(300)]
    estimate, low, high = difference(better, control, 0.95)
    same_estimate, loose_low, loose_high = difference(shuffled, control, 0.95)
    assert estimate == same_estimate == pytest.approx(0.05)
    assert low > 0
    assert (low, high) == pytest.approx((0.05 - 0.025, 0.05 + 0.025), abs=0.01)  # 1.96 sqrt(0.05 x 0.95 / 300)
    assert loose_low < 0
    assert loose_high - loose_low > 2 * (high - low)


def test_difference_is_paired_by_seed():
    generator = np.random.default_rng(3)
    control = np.array(
        [generator.permutation([True] * correct + [False] * (300 - correct)) for correct in (90, 150, 210)]
    )
    better = control.copy()
    for row in better:
        row[np.flatnonzero(~row)[:30]] = True
    _, low, high = difference(better, control, 0.95)
    _, loose_low, loose_high = difference(better[[1, 2, 0]], control, 0.95)
    assert 0 < low < 0.1 < high
    assert loose_low < 0
    assert loose_high - loose_low > 5 * (high - low)


def test_a_control_without_seeds_counts_as_the_same_under_each():
    generator = np.random.default_rng(4)
    treated, control = generator.random((3, 60)) < 0.6, generator.random((1, 60)) < 0.4
    assert paired(treated, control) == paired(treated, np.repeat(control, 3, axis=0))


@pytest.mark.parametrize(("seeds", "bound"), list(itertools.product((1, 2, 4), (0.0, -0.05, 0.05))))
def test_intervals_leave_out_what_the_test_rejects(seeds, bound):
    generator = np.random.default_rng(5)
    left_out = 0
    for _ in range(60):
        treated = generator.random((seeds, 80)) < generator.uniform(0.5, 1, (1, 80))
        control = generator.random((seeds, 80)) < 0.5
        gap = paired(treated, control)
        low, high = statistics.interval(gap, 0.95)
        rejected = statistics.p_value(gap, bound) <= 0.05
        left_out += rejected
        # The exact test is stricter at 0 than the score interval, which therefore ends there.
        assert rejected == (not low <= bound <= high) or (seeds == 1 and bound == 0 and bound in (low, high))
    assert left_out > 0


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


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 0), (12, 4), (7, 30), (25, 25)])
def test_mcnemar_agrees_with_statsmodels_and_is_the_test_of_one_seed(gained, lost):
    treated, control = outcomes_with(gained, lost, 5, 9)
    expected = statsmodels_mcnemar([[5, gained], [lost, 9]], exact=True).pvalue
    assert mcnemar(treated, control)[2] == pytest.approx(expected)
    assert statistics.p_value(paired(treated[None], control[None]), 0.0) == pytest.approx(expected)


def test_holm_by_hand():
    # Sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2 raised to the one before, 0.5.
    assert statistics.holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert statistics.holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert statistics.holm([0.7, 0.6]) == [1.0, 1.0]
    assert statistics.holm([]) == []


@pytest.fixture
def no_garbage():
    """statsmodels collects garbage at each correction: for as long as this lasts there is none to look through."""
    gc.freeze()
    yield
    gc.unfreeze()


def test_holm_agrees_with_statsmodels(no_garbage):
    generator = np.random.default_rng(0)
    for number in (1, 2, 3, 10, 40):
        for p_values in (generator.random(number), generator.integers(0, 4, number) / 50):
            expected = multipletests(p_values, method="holm")[1]
            assert statistics.holm(list(p_values)) == pytest.approx(list(expected), abs=1e-15)


def gaps(seeds: int, items: int, effect: float, spread: float, studies: int, number: int = 0) -> list:
    """Components of simulated differences (bench/simulate.py)."""
    world, generator = worlds.World(spread=spread), np.random.default_rng([number, seeds, items])
    drawn = (world.study(generator, seeds, items, [effect]) for _ in range(studies))
    return [paired(treated, control) for (treated,), control in drawn]


# The rival that is measured beside, so that it is beaten fairly.


def test_bootstrap_repeats_itself_and_follows_its_seed():
    values = np.random.default_rng(0).random((2, 30))
    first = worlds.bootstrap_means(values, 50, seed=3)
    assert first.shape == (50,)
    assert np.array_equal(worlds.bootstrap_means(values, 50, seed=3), first)
    assert not np.array_equal(worlds.bootstrap_means(values, 50, seed=4), first)


def test_bootstrap_with_one_seed_is_the_bootstrap_over_items():
    values = np.array([[1.0] * 30 + [0.0] * 70])
    means = worlds.bootstrap_means(values, 4000)
    assert np.allclose(means * 100, np.round(means * 100))
    assert means.mean() == pytest.approx(0.3, abs=0.005)
    assert means.std() == pytest.approx(sqrt(0.3 * 0.7 / 100), rel=0.05)


def test_bootstrap_resamples_whole_seeds():
    values = np.array([[0.0] * 10, [1.0] * 10])
    found, counts = np.unique(worlds.bootstrap_means(values, 4000), return_counts=True)
    assert found.tolist() == [0.0, 0.5, 1.0]
    assert (counts / 4000).tolist() == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_bootstrap_resamples_the_same_items_for_all_seeds():
    row = np.array([1.0] * 5 + [0.0] * 5)
    crossed = worlds.bootstrap_means(np.array([row, 1 - row]), 4000)
    together = worlds.bootstrap_means(np.array([row, row]), 4000)
    # Where the drawn seeds differ, the rows cancel on every draw of items; they could not if each had its own draw.
    assert np.mean(crossed == 0.5) == pytest.approx(0.5 + 0.5 * comb(10, 5) / 2**10, abs=0.03)
    assert together.std() == pytest.approx(sqrt(0.25 / 10), rel=0.05)


# Simulations. A share of n studies is off by more than 4 standard errors once in 16,000 runs; the seeds are fixed.


def most(promised: float, studies: int) -> float:
    return promised + 4 * sqrt(promised * (1 - promised) / studies)


@pytest.mark.parametrize(
    ("seeds", "items", "spread"), [(1, 40, 0), (1, 200, 0), (2, 200, 6), (3, 40, 6), (3, 1000, 2), (5, 200, 6)]
)
def test_without_an_effect_the_test_rejects_no_more_often_than_its_level(seeds, items, spread):
    studies = 300
    drawn = gaps(seeds, items, 0.0, spread, studies)
    assert np.mean([statistics.p_value(gap, 0.0) <= 0.05 for gap in drawn]) <= most(0.05, studies)
    missed = [not low <= 0 <= high for low, high in (statistics.interval(gap, 0.95) for gap in drawn)]
    assert np.mean(missed) <= most(0.05, studies)


def test_methods_that_leave_seeds_out_or_resample_them_do_not_hold_their_level():
    studies, world, generator = 300, worlds.World(spread=6), np.random.default_rng(6)
    drawn = [world.study(generator, 3, 1000, [0.0]) for _ in range(studies)]
    ours = np.mean([statistics.p_value(paired(treated, control), 0.0) <= 0.05 for (treated,), control in drawn])
    items_alone = np.mean([worlds.items_alone_reject(treated, control) for (treated,), control in drawn])
    bootstrap = np.mean(
        [worlds.bootstrap_rejects(treated, control, i) for i, ((treated,), control) in enumerate(drawn)]
    )
    assert ours <= most(0.05, studies) < bootstrap < items_alone


def test_accuracies_are_covered_as_often_as_promised():
    studies, world, generator = 300, worlds.World(accuracy=0.1, spread=2), np.random.default_rng(7)
    missed = []
    for _ in range(studies):
        (treated,), _ = world.study(generator, 3, 200, [0.0])
        _, low, high, _ = accuracy(treated, 0.95)
        missed.append(not low <= world.accuracy <= high)
    assert np.mean(missed) <= most(0.05, studies)


@pytest.mark.parametrize(("seeds", "items", "spread"), [(1, 200, 0), (3, 200, 2), (5, 200, 2)])
def test_an_effect_of_the_detectable_size_is_found_about_as_often_as_promised(seeds, items, spread):
    studies, effect = 300, simulated_comparisons.promised_effect(worlds.World(spread=spread), seeds, items)
    drawn = gaps(seeds, items, effect, spread, studies)
    found = np.mean([statistics.p_value(gap, 0.0) <= 0.05 and gap.mean > 0 for gap in drawn])
    assert 0.8 - 4 * sqrt(0.8 * 0.2 / studies) < found < 0.8 + 4 * sqrt(0.8 * 0.2 / studies)
    missed = [not low <= effect <= high for low, high in (statistics.interval(gap, 0.95) for gap in drawn)]
    assert np.mean(missed) <= most(0.05, studies)


@pytest.mark.parametrize("seeds", [1, 3])
def test_at_the_margin_few_studies_pass_for_not_inferior(seeds):
    studies = 300
    drawn = gaps(seeds, 200, -0.05, 0, studies, number=8)
    assert np.mean([statistics.p_value(g, -0.05) <= 0.05 and g.mean > -0.05 for g in drawn]) <= most(0.025, studies)
