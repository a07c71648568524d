"""Studies that are judged more than once, and training runs that collapse."""

from math import sqrt

import numpy as np
import pytest
import simulated_studies
from pydantic import ValidationError
from scipy import stats

from selfrefine.analysis import outlying_runs
from selfrefine.analysis.looks import level_at, nominal_levels
from selfrefine.analysis.outlying_runs import HALVES, outlying, shortest_half, unseen
from selfrefine.schema.config import Statistics

FIFTHS = (0.2, 0.4, 0.6, 0.8, 1.0)


def number(cell: str) -> float:
    return float(cell.split(" ")[0])


def most(promised: float, studies: int) -> float:
    return 100 * (promised + 4 * sqrt(promised * (1 - promised) / studies))


# Bounds of five equal looks at 0.05, two-sided, as R's ldbounds gives them (Reboussin et al. 2000, Controlled Clinical
# Trials 21:190).
@pytest.mark.parametrize(
    ("spending", "bounds"),
    [
        ("obrien-fleming", (4.8769, 3.3569, 2.6803, 2.2898, 2.0310)),
        ("pocock", (2.4380, 2.4268, 2.4101, 2.3966, 2.3859)),
    ],
)
def test_boundaries_agree_with_published_ones(spending, bounds):
    found = [stats.norm.isf(level / 2) for level in nominal_levels(FIFTHS, 0.05, spending)]
    assert found == pytest.approx(bounds, abs=2e-4)


@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock"])
def test_boundaries_are_crossed_as_often_as_the_level_says(spending):
    levels = nominal_levels(FIFTHS, 0.05, spending)
    steps = np.random.default_rng(0).standard_normal((200_000, 5)) * sqrt(0.2)
    paths = steps.cumsum(axis=1) / np.sqrt(FIFTHS)
    crossed = (np.abs(paths) >= stats.norm.isf(np.array(levels) / 2)).any(axis=1).mean()
    assert crossed == pytest.approx(0.05, abs=4 * sqrt(0.05 * 0.95 / 200_000))


def test_levels_of_a_study_that_declares_looks_or_does_not():
    assert level_at(3, 0.05, None) == 0.05
    assert level_at(1, 0.05, (2, 3)) == level_at(1, 0.05, "any") == 0.05
    assert level_at(4, 0.05, (3, 5)) == 0.0
    assert level_at(5, 0.05, (5,)) == pytest.approx(0.05)
    assert 0.04 < level_at(5, 0.05, (3, 5)) < 0.05
    assert sum(level_at(seeds, 0.05, "any") for seeds in range(2, 5000)) == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize("looks", [[], [1, 3], [3, 2], [2, 2], "some", True])
def test_looks_that_mean_nothing_are_refused(looks):
    with pytest.raises(ValidationError):
        Statistics(looks=looks)


def test_adding_seeds_until_decided_errs_no_more_often_than_promised():
    studies = 600
    *_, each, late, evenly, any_time, extended, _ = simulated_studies.looking(studies, 200, 6, 0.0)
    assert number(each) > most(0.05, studies)  # what it is for
    for cell in (late, evenly, any_time):
        assert number(cell) <= most(0.05, studies)
    assert number(extended) <= most(0.075, studies)
    *_, late, evenly, any_time, _, _ = simulated_studies.looking(200, 1000, 2, 0.1)
    assert min(number(late), number(evenly), number(any_time)) > 95


@pytest.mark.parametrize("values", range(2, 12))
def test_the_length_of_the_shortest_half(values):
    draws = np.random.default_rng(values).standard_normal((20_000, values))
    lengths = [shortest_half(row) for row in draws]
    assert HALVES[values - 2] == pytest.approx(np.mean(lengths), abs=5 * np.std(lengths) / sqrt(20_000))


def test_outlying_runs():
    assert outlying([0.41, 0.02, 0.40], 1000) == [1]
    assert outlying([0.41, 0.02, 0.40, 0.0, 0.42], 1000) == [1, 3]
    assert outlying([0.41, 0.02], 1000) == []
    assert outlying([0.41, 0.33, 0.40], 1000) == []  # less than ten points
    assert outlying([0.35, 0.45, 0.55], 1000) == []  # a spread, no outlier
    assert outlying([0.1, 0.25, 0.1], 20) == []  # three of 20 items
    assert unseen(3, 0.95) == pytest.approx(1 - 0.05 ** (1 / 3))


def test_collapsed_runs_are_named_and_whole_ones_are_not():
    *_, named, _, before, now = simulated_studies.collapse(300, 0.2, 2, 5, 1000)
    assert number(named) > 95
    assert number(now) <= number(before)
    assert number(now) <= most(0.05, 300)
    *_, flagged, _, _ = simulated_studies.collapse(300, 0.0, 2, 5, 1000)
    assert number(flagged) < 1
    assert outlying_runs.FAR == 5
