"""Log odds of gains to losses, and means over benchmarks."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from selfrefine.analysis import power, statistics
from selfrefine.analysis.effects import log_odds, mean_over
from selfrefine.analysis.statistics import paired, these_checkpoints, wilson


def sides(gained: int, lost: int, items: int) -> tuple[np.ndarray, np.ndarray]:
    treated = np.array([[True] * gained + [False] * (items - gained)])
    control = np.array([[False] * gained + [True] * lost + [False] * (items - gained - lost)])
    return treated, control


@pytest.mark.parametrize(("gained", "lost"), [(30, 10), (5, 20), (9, 9)])
def test_log_odds_of_one_seed_are_wilson_s_interval_of_the_share_of_gains(gained, lost):
    treated, control = sides(gained, lost, 200)
    found = log_odds(treated, control, paired(treated, control), 0.95)
    low, high = wilson(gained, gained + lost, 0.95)
    # The variance between pairs has n - 1 below.
    assert found["low"] == pytest.approx(math.log(low / (1 - low)), abs=0.02)
    assert found["high"] == pytest.approx(math.log(high / (1 - high)), abs=0.02)
    assert found["value"] == pytest.approx(math.log((gained + 0.5) / (lost + 0.5)))


def test_log_odds_without_losses_have_no_upper_end_and_without_either_there_are_none():
    treated, control = sides(12, 0, 100)
    found = log_odds(treated, control, paired(treated, control), 0.95)
    assert found["high"] is None
    assert found["low"] == pytest.approx(math.log(wilson(12, 12, 0.95)[0] / (1 - wilson(12, 12, 0.95)[0])), abs=1e-6)
    mirrored = log_odds(control, treated, paired(control, treated), 0.95)
    assert mirrored["low"] is None
    assert mirrored["high"] == pytest.approx(-found["low"])
    assert log_odds(treated, treated, paired(treated, treated), 0.95) is None


def test_log_odds_of_several_seeds_are_no_surer_than_of_their_items():
    treated, control = sides(30, 10, 200)
    three, before = (np.repeat(side, 3, axis=0) for side in (treated, control))
    one = log_odds(treated, control, paired(treated, control), 0.95)
    same = log_odds(three, before, these_checkpoints(paired(three, before)), 0.95)
    assert (same["low"], same["high"]) == pytest.approx((one["low"], one["high"]), abs=0.02)
    generator = np.random.default_rng(0)
    treated, control = generator.random((3, 300)) < 0.5, generator.random((3, 300)) < 0.4
    gap = paired(treated, control)
    fixed, runs = (log_odds(treated, control, of, 0.95) for of in (these_checkpoints(gap), gap))
    assert runs["low"] < fixed["low"] < fixed["high"] < runs["high"]


def test_the_mean_over_benchmarks_agrees_with_statsmodels():
    effects, errors = np.array([0.12, 0.03, 0.20, -0.02, 0.09]), np.array([0.03, 0.02, 0.05, 0.03, 0.04])
    found = mean_over(effects, errors, 0.95)
    theirs = combine_effects(effects, errors**2, method_re="iterated", use_t=True)
    assert found.between == pytest.approx(theirs.tau2, rel=1e-3)
    assert found.estimate == pytest.approx(theirs.mean_effect_re, rel=1e-3)
    # Hartung and Knapp's standard error, which their factor does not raise here.
    reach = stats.t.isf(0.025, 4) * theirs.sd_eff_w_re_hksj
    assert found.high - found.estimate == pytest.approx(reach, rel=1e-2)


def test_the_mean_over_benchmarks_that_agree_is_no_surer_than_their_errors():
    found = mean_over([0.05, 0.05, 0.05], [0.02, 0.02, 0.02], 0.95)
    assert found.between == 0
    assert found.high - 0.05 == pytest.approx(stats.t.isf(0.025, 2) * 0.02 / math.sqrt(3))


def test_power_between_two_margins_counts_both_sides():
    generator = np.random.default_rng(1)
    control = generator.random((1, 1000)) < 0.5
    of = paired(control ^ (generator.random((1, 1000)) < 0.16), control)._replace(mean=0.0)
    truth = power.as_estimated(of)
    both, one = (power.chances(truth, says, 0.05, 0.1, 1, 1000).supported for says in ("about", "not below"))
    assert both == pytest.approx(2 * one - 1, abs=1e-6)
    hits = 0
    for _ in range(2000):
        gains, losses, _ = generator.multinomial(1000, [of.square / 2, of.square / 2, 1 - of.square])
        treated, before = sides(gains, losses, 1000)
        gap = paired(treated, before)
        hits += max(statistics.p_value(gap, bound) for bound in (-0.05, 0.05)) <= 0.1 and abs(gap.mean) < 0.05
    assert hits / 2000 == pytest.approx(both, abs=4 * math.sqrt(both * (1 - both) / 2000) + 0.01)
