"""The difference at matched length: planted worlds in which a gain is length alone, and in which it is not."""

import json

import numpy as np
import pytest

from conftest import run
from selfrefine.analysis.comparing import Policy
from selfrefine.analysis.matched_length import FEWEST, at_matched_length, intercept
from selfrefine.analysis.verdicts import assess_all
from selfrefine.store.files import read_json, read_jsonl, write_jsonl
from selfrefine.study.policy import policy_of
from selfrefine.study.stage_settings import settings
from test_claims import Planted, claims_command
from test_planning import planner

MOST, LEVEL = 1.5, 0.95


def answers(seeds: int, items: int, shift: float, effect: float, seed: int = 0, spread: float = 0.0):
    """((correct, correct), (tokens, tokens)) of a treated arm whose answers are exp(shift) times as long.

    An answer is correct by its item's difficulty and by how long it is; `effect` is what else the treated arm gains,
    and `spread` how much that varies between seeds.
    """
    random = np.random.default_rng(seed)
    difficulty = random.normal(0, 1, items)
    usual = random.normal(4, 0.3, items)
    both = []
    for own_shift, own_effect in ((shift, effect), (0.0, 0.0)):
        logs = usual + own_shift + random.normal(0, 0.35, (seeds, items))
        varied = own_effect + (random.normal(0, spread, (seeds, 1)) if own_effect else 0.0)
        chance = 1 / (1 + np.exp(-(difficulty + 1.5 * (logs - 4) + varied)))
        both.append((random.random((seeds, items)) < chance, np.exp(logs)))
    (treated, longer), (control, shorter) = both
    return (treated, control), (longer, shorter)


def test_a_gain_that_is_length_alone_is_gone_at_matched_length():
    correct, tokens = answers(3, 3000, 0.5, 0.0)
    assert (correct[0].mean() - correct[1].mean()) > 0.1
    found = at_matched_length(correct, tokens, MOST, LEVEL)
    assert abs(found["difference"]) < 0.03
    assert found["low"] < 0 < found["high"] and found["p"] > 0.05


def test_a_gain_beyond_length_stays():
    correct, tokens = answers(3, 3000, 0.5, 0.8)
    found = at_matched_length(correct, tokens, MOST, LEVEL)
    # What the effect adds to the same answers, at the lengths that they have.
    assert 0.08 < found["difference"] < 0.2 and found["low"] > 0.05
    assert found["difference"] < correct[0].mean() - correct[1].mean()


def test_a_gain_that_length_hides_is_found():
    correct, tokens = answers(3, 3000, -0.5, 0.8)
    assert correct[0].mean() - correct[1].mean() < 0.03
    assert at_matched_length(correct, tokens, MOST, LEVEL)["low"] > 0.05


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_cover_and_tests_err_as_rarely_as_promised(seeds):
    """Of 300 studies in which length is all."""
    errs = 0
    for study in range(300):
        found = at_matched_length(*answers(seeds, 300, 0.4, 0.0, seed=study), MOST, LEVEL)
        errs += found["p"] < 0.05
    assert errs / 300 < 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5


def test_seeds_that_disagree_widen_the_interval():
    alike, apart = (at_matched_length(*answers(4, 600, 0.2, 0.8, spread=s), MOST, LEVEL) for s in (0.0, 1.0))
    assert apart["high"] - apart["low"] > 1.5 * (alike["high"] - alike["low"])


def test_matches_and_their_lengths_are_counted():
    treated = np.array([[1.0] * 30 + [0.0] * 10])
    tokens = np.array([[60.0] * 20 + [200.0] * 10 + [50.0] * 10])
    found = at_matched_length((treated, np.zeros((1, 40))), (tokens, np.full((1, 40), 50.0)), MOST, LEVEL)
    assert (found["items"], found["pairs"], found["of_pairs"]) == (30, 30, 40)
    assert (found["tokens"], found["against_tokens"]) == (pytest.approx(1700 / 30), 50.0)
    # All that are longer are correct, and none at equal length.
    assert found["difference"] == pytest.approx(0.0, abs=1e-9)


def test_an_arm_without_seeds_counts_under_each_of_the_other():
    correct, tokens = answers(3, 200, 0.1, 0.5)
    one = at_matched_length((correct[0], correct[1][:1]), (tokens[0], tokens[1][:1]), MOST, LEVEL)
    many = (np.repeat(side[1][:1], 3, axis=0) for side in (correct, tokens))
    repeated, lengths = many
    assert one == at_matched_length((correct[0], repeated), (tokens[0], lengths), MOST, LEVEL)


def test_too_few_matches_and_answers_without_tokens_say_nothing():
    correct, tokens = answers(1, 200, 4.0, 0.5)
    assert at_matched_length(correct, tokens, MOST, LEVEL) is None
    assert at_matched_length(correct, (np.zeros((1, 200)), tokens[1]), MOST, LEVEL) is None
    few = tuple(side[:, : FEWEST - 1] for side in (*correct, tokens[1], tokens[1]))
    assert at_matched_length(few[:2], few[2:], MOST, LEVEL) is None


def test_nothing_is_known_for_certain_where_all_items_are_alike():
    ones = np.ones((1, 50))
    found = at_matched_length((ones, ones), (ones, ones), MOST, LEVEL)
    assert found["difference"] == 0.0 and found["low"] < 0 < found["high"] and found["p"] == 1.0


def test_the_intercept_is_that_of_least_squares_and_its_variance_that_of_the_sandwich():
    random = np.random.default_rng(5)
    ratios, items = random.normal(0.1, 0.2, 120), np.repeat(np.arange(40), 3)
    gaps = 0.2 + 0.5 * ratios + random.normal(0, 0.3, 120) + np.repeat(random.normal(0, 0.2, 40), 3)
    statsmodels = pytest.importorskip("statsmodels.api")
    model = statsmodels.OLS(gaps, statsmodels.add_constant(ratios))
    theirs = model.fit(cov_type="cluster", cov_kwds={"groups": items})
    ours = intercept(gaps, ratios, items)
    assert (ours.difference, ours.variance) == pytest.approx((theirs.params[0], theirs.bse[0] ** 2), rel=1e-9)


def lengthen(path, tokens) -> None:
    write_jsonl(path, [row | {"tokens": tokens(number)} for number, row in enumerate(read_jsonl(path))])


@pytest.fixture
def study(tmp_path) -> Planted:
    """Refined answers are correct where they are longer on Boxes (a), and as long as before on Far (b)."""
    found = Planted(tmp_path)
    for task in ("a", "b"):
        refined = found.train("refine", 120, task=task, evaluation=task)
        lengthen(refined, lambda n, task=task: 68 if task == "a" and 40 <= n < 120 else 50 + n % 5)
        lengthen(found.train("instruct", 40, task=task, evaluation=task), lambda n: 50 + n % 5)
    return found


def test_claims_say_whether_a_gain_is_length_alone(study):
    policy = Policy(0.95, 0.05, matched_length=MOST)
    titles = {"a": "Boxes", "b": "Far"}
    (claim,) = [one for one in assess_all(study.cells, "strict", policy, titles) if one["claim"] == 2]
    by_task = {row["evaluation"]: row for part in claim["parts"] for row in part["comparisons"]}
    assert {row["verdict"] for row in by_task.values()} == {"supported"}
    assert by_task["a"]["matched_length"]["verdict"] == "undecided"
    assert by_task["b"]["matched_length"]["verdict"] == "supported"
    assert by_task["b"]["matched_length"]["difference"] == pytest.approx(0.4, abs=0.02)
    assert claim["beyond_length"] == "undecided"
    (margin,) = [one for one in assess_all(study.cells, "strict", policy, titles) if one["claim"] == 3]
    assert "beyond_length" not in margin


def test_the_program_writes_them_beside_the_claim_and_only_if_asked(study):
    command = claims_command(study)
    run(*command)
    plain = (study.folder / "out/claims.md").read_text()
    assert "Not length alone" not in plain and "matched_length" not in (study.folder / "out/claims.json").read_text()
    place = command.index("--settings") + 1
    given = json.loads(command[place]) | {"matched_length": MOST}
    again = [*command[:place], json.dumps(given), *command[place + 1 : -1], study.folder / "again/record.json"]
    run(*again)
    text = (study.folder / "again/claims.md").read_text()
    assert "### Not length alone: undecided" in text and "at matched length |" in text
    rows = [
        row
        for one in read_json(study.folder / "again/claims.json")["claims"]
        if one["claim"] == 2
        for row in one["parts"][1]["comparisons"]
    ]
    assert [row["matched_length"]["of_pairs"] for row in rows] == [200, 200]


def test_what_is_not_asked_for_is_neither_in_settings_nor_in_the_policy():
    study = planner().study
    assert "matched_length" not in settings(study, "claims")
    assert "matched_length" not in policy_of(study)["statistics"]
    object.__setattr__(study, "statistics", study.statistics.model_copy(update={"matched_length": MOST}))
    assert settings(study, "claims")["matched_length"] == policy_of(study)["statistics"]["matched_length"] == MOST
