"""The power of claims before a study, and what `study.py plan` says of it."""

import copy
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from worlds import World

from conftest import run
from selfrefine.analysis import power, statistics, verdicts
from selfrefine.analysis.claim_power import DRAWS, Assumed, contradiction_of_claim, power_of_claim
from selfrefine.analysis.paper_claims import CLAIMS
from selfrefine.errors import UserError
from selfrefine.report.spending import plain
from selfrefine.study.artifact import Artifact
from selfrefine.study.pilot import Pilot
from selfrefine.study.power_table import Design, PowerTable
from selfrefine.study.side_by_side import side_by_side
from test_planning import planner
from test_power import simulated

ALPHA, MARGIN = 0.05, 0.05
CLAIM_1 = "1. Instructed students beat the baseline"
ONE = Assumed(0.06, 0.25, 0.3, (0.02,), (1.0,))


def table(study: dict | None = None, pilot: Pilot | None = None, **assumed) -> PowerTable:
    return PowerTable(planner(study, **assumed), [], pilot)


def plan_of(of: PowerTable, claim: int):
    return next(plan for plan in of._plans if plan.claim.number == claim)


@pytest.mark.parametrize("says", ["above", "not below", "about"])
@pytest.mark.parametrize(("seeds", "items"), [(1, 400), (3, 1000), (8, 2000)])
def test_the_power_of_one_comparison_is_that_of_its_claim(says, seeds, items):
    one = ONE if says == "above" else ONE._replace(difference=0.01)
    between = 0.02**2 if seeds > 1 else 0.0
    within = one.discordance - one.difference**2 - between
    truth = power.known(one.difference, one.discordance, between, 0.3 * within, 0.7 * within)
    told = power.chances(truth, says, MARGIN, ALPHA, seeds, items).supported
    drawn = power_of_claim([(one, items)], says, MARGIN, ALPHA, seeds, 1)
    assert abs(drawn - told) < 0.02 + 4 * (0.25 / DRAWS) ** 0.5


@pytest.mark.parametrize(("seeds", "items", "effect"), [(1, 500, 0.1), (3, 1000, 0.08)])
def test_a_claim_of_several_comparisons_is_supported_as_often_as_predicted(seeds, items, effect):
    """Against verdicts with Holm's correction on drawn answers, three independent comparisons to a claim."""
    studies, world, generator, found = 120, World(), np.random.default_rng([21, seeds]), []
    for _ in range(studies):
        gaps = [simulated.draw(world, generator, seeds, items, effect) for _ in range(3)]
        rows = [{"difference": gap.mean, "p": statistics.p_value(gap, 0.0)} for gap in gaps]
        verdicts.judge(rows, "above", 1 - ALPHA, MARGIN)
        found.append(all(row["verdict"] == "supported" for row in rows))
    truth = simulated.truth(world, effect)
    stable = truth.between_items / (truth.between_items + truth.residual)
    one = Assumed(float(truth.mean[0]), float(truth.square[0]), stable, (0.0,), (1.0,))
    told = power_of_claim([(one, items)] * 3, "above", MARGIN, ALPHA, seeds, 3)
    assert abs(np.mean(found) - told) < 0.07 + 4 * (told * (1 - told) / studies) ** 0.5


def test_more_comparisons_and_other_recipes_take_power():
    alone, three, six = (power_of_claim([(ONE, 1000)] * n, "above", MARGIN, ALPHA, 5, n) for n in (1, 3, 6))
    assert alone > three > six
    assert power_of_claim([(ONE, 1000)] * 3, "above", MARGIN, ALPHA, 5, 6) < three


def test_the_plan_counts_the_comparisons_that_verdicts_would_have():
    of = table()
    counted = {plan.claim.number: len(plan.comparisons) for plan in of._plans}
    # 3 students with 2 teachers each, on 6 tasks.
    assert counted[1] == counted[2] == counted[3] == 36
    assert counted[4] == 18
    assert counted[7] == 4 * (36 + 36)
    assert len(of._plans) == len(CLAIMS)


def test_effects_discordance_and_spread_are_assumed_as_they_are_told():
    of = table()
    (claim,) = {one.difference for one in (of._assumed(CLAIMS[0], *pair) for pair in plan_of(of, 1).comparisons)}
    assert claim == pytest.approx(0.1)
    own = table(power={"effects": {1: 7}, "discordance": 20, "between_seeds": 1})
    one = own._assumed(CLAIMS[0], *plan_of(own, 1).comparisons[0])
    assert one == Assumed(0.07, 0.2, 0.3, (0.01,), (1.0,))
    told = own.assumptions()
    assert "20 % of items" in told and "standard deviation of 1 points" in told and "effects of 1 7 by claim" in told
    with pytest.raises(UserError, match="assumptions: power.stable"):
        table(power={"stable": 2})


def test_the_cheapest_design_reaches_what_it_promises_and_cheaper_ones_do_not():
    study = {"study": {"students": ["llama-2-7b"], "tasks": ["gsm8k"], "evaluate": ["gsm8k"], "shares": [100]}}
    of = table(study)
    plan = plan_of(of, 1)
    found = of.cheapest(plan)
    assert found is not None
    assert of.power(plan, found) >= 0.8
    for items in of.candidates(plan):
        for seeds in (2, 3, 4, 5):
            other = Design(seeds, items)
            assert of.power(plan, other) < 0.8 or of.cost(other) >= of.cost(found)


def test_items_are_bounded_by_what_a_benchmark_has():
    of = table()
    assert of.sizes(5000)("gsm8k") == 1000
    assert of.sizes(50)("gsm8k") == 50
    assert of.sizes(None)("gsm8k") == 1000


def pilot_file(tmp_path, seeds: int = 3, spread: float = 0.0):
    of = simulated.draw(World(spread=spread), np.random.default_rng(3), seeds, 500, 0.08)
    row = {"components": of._asdict(), "evaluation": "gsm8k", "samples": ["a"], "against_samples": ["b"]}
    claims = [{"claim": 1, "recipe": "cot", "parts": [{"comparisons": [row]}]}]
    path = tmp_path / "claims.json"
    path.write_text(json.dumps({"claims": claims}))
    return path, of


def test_a_pilot_replaces_assumptions_and_keeps_its_doubt_about_seeds(tmp_path):
    path, of = pilot_file(tmp_path)
    mine, assumed = table(pilot=Pilot(path)), table()
    first = plan_of(mine, 1).comparisons[0]
    one = mine._assumed(CLAIMS[0], *first)
    assert one.difference == pytest.approx(of.mean)
    assert sum(one.weights) == pytest.approx(1)
    assert max(one.spreads) > 0.02 > min(one.spreads)  # three seeds that came out alike rule out little
    assert mine._assumed(CLAIMS[1], *plan_of(mine, 2).comparisons[0]) == assumed._assumed(
        CLAIMS[1], *plan_of(assumed, 2).comparisons[0]
    )
    assert str(path) in mine.assumptions()
    one_seed = Pilot(pilot_file(tmp_path, seeds=1)[0]).replace(CLAIMS[0], ONE, first[0])
    assert (one_seed.spreads, one_seed.stable) == (ONE.spreads, ONE.stable)


def test_a_pilot_gives_each_comparison_what_it_found_of_its_like(tmp_path):
    of = simulated.draw(World(), np.random.default_rng(3), 1, 500, 0.08)._asdict()
    found = {
        ("cot", "a", "sums"): 0.05,
        ("cot", "b", "sums"): 0.01,
        ("kto", "a", "sums"): -0.03,
        ("kto", "a", "far"): 0.4,
    }
    claims = [
        {
            "claim": 2,
            "recipe": recipe,
            "parts": [
                {
                    "comparisons": [
                        {"components": of | {"mean": mean}, "student": student, "evaluation": evaluation}
                        | {"samples": [f"{recipe}-{student}-{evaluation}"], "against_samples": []}
                    ]
                }
            ],
        }
        for (recipe, student, evaluation), mean in found.items()
    ]
    (tmp_path / "claims.json").write_text(json.dumps({"claims": claims}))
    pilot = Pilot(tmp_path / "claims.json")

    def difference(recipe: str, student: str, evaluation: str) -> float:
        arm = SimpleNamespace(recipe=recipe, student=student, evaluation=evaluation)
        return pilot.replace(CLAIMS[1], ONE, arm).difference

    assert {key: difference(*key) for key in found} == pytest.approx(found)
    assert difference("cot", "a", "far") == pytest.approx(0.05)  # the recipe and the student count for more
    assert difference("cot", "c", "sums") == pytest.approx(0.03)
    assert difference("ipo", "b", "far") == pytest.approx(0.01)
    assert pilot.replace(CLAIMS[2], ONE, None) == ONE
    assert "claim 2: -3.0 to +40.0 points" in pilot.told()


@pytest.mark.parametrize(
    ("says", "difference", "contradicted"),
    [
        *(("above", -0.1, True), ("above", 0.0, False), ("above", 0.1, False)),
        *(("not below", -0.2, True), ("not below", -0.05, False), ("not below", 0.1, False)),
        *(("about", -0.2, True), ("about", 0.2, True), ("about", 0.0, False)),
    ],
)
def test_a_claim_is_contradicted_where_one_comparison_lies_beyond(says, difference, contradicted):
    far, fine = ONE._replace(difference=difference), ONE._replace(difference=0.06 if says == "above" else 0.0)
    given = [(far, 1000), (fine, 1000)], says, 0.05, 0.05 if says == "above" else 0.1, 5, 2
    chance = contradiction_of_claim(*given, runs=4)
    assert chance > 0.95 if contradicted else chance < 0.1
    assert chance + power_of_claim(*given, runs=4) <= 1 + 1e-9


def test_what_is_no_pilot_is_refused(tmp_path):
    path = tmp_path / "claims.json"
    path.write_text(json.dumps({"claims": [{"claim": 1}]}))
    with pytest.raises(UserError, match=f"{re.escape(str(path))}: not the claims.json of a study of this version"):
        Pilot(path)


def cells_of(told: str) -> dict[str, list[str]]:
    """The rows of a comparison of designs, by their first cell."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told.splitlines() if line.startswith("|")]
    return {first: others for first, *others in rows}


def evaluations() -> list[Artifact]:
    """The evaluation of a baseline and of two instructed students of one seed, on GSM8K."""
    names = [
        "llama-2-7b/base",
        *(f"llama-2-7b/instruct/{teacher}/gsm8k/100/0" for teacher in ("gpt-3.5", "llama-2-70b")),
    ]
    return [Artifact("evaluate", (), {"checkpoint": name, "task": "gsm8k"}, {}, {}, "", "") for name in names]


def test_designs_stand_side_by_side_with_what_they_cost_and_find():
    small = planner({"study": {"seeds": [0, 1], "recipes": ["cot"], "arms": ["baseline", "instruct"]}})
    own, other = PowerTable(planner(), evaluations()), PowerTable(small, evaluations())
    told = side_by_side([("mine.yaml", own), ("other.yaml", other)], [3, 6], [200])
    found = cells_of(told)
    headings = [f"{name}: {seeds} seeds, 200 items" for name in ("mine.yaml", "other.yaml") for seeds in (3, 6)]
    assert found[""] == headings
    # One job whatever the seeds, and two that stand for one of each seed.
    assert found["jobs"][2:] == ["4", "7"]
    designs = [(own, Design(3, 200)), (own, Design(6, 200)), (other, Design(3, 200)), (other, Design(6, 200))]
    hours = [of.cost(design) for of, design in designs]
    assert found["GPU hours"] == [plain(each) for each in hours] and hours[1] > hours[0]
    assert found["USD, on-demand"] == [plain(2.5 * each) for each in hours]
    assert found["kg CO2e"] == [plain(0.5 * 1.58 * 0.445 * each) for each in hours]
    power = [f"{100 * of.powers(design)[CLAIM_1]:.0f} %" for of, design in designs]
    assert found[f"power: {CLAIM_1}"] == power and len(set(power)) > 1
    refined = next(name for name in found if name.startswith("power: 2."))
    assert found[refined][2:] == ["–", "–"], "the other study refines nothing"
    assert "assumed, with 350 W a GPU" in told and told.count("Assumed: accuracies") == 1


def test_without_numbers_designs_are_as_configured():
    told = side_by_side([("mine.yaml", table())], [], [200, 500])
    assert cells_of(told)[""] == ["3 seeds, 200 items", "3 seeds, 500 items"]


def test_the_command_compares_designs(fresh):
    folder, path, config = fresh
    own = copy.deepcopy(config)
    own["models"]["tiny"]["parameters"] = 0.0001
    path.write_text(json.dumps(own))
    (folder / "config/other.yaml").write_text(json.dumps(own | {"study": own["study"] | {"arms": ["baseline"]}}))
    command = ("python", "scripts/study.py", "plan", "--configfile", "config/tiny.yaml")
    told = run(*command, "--seeds", "2", "5", cwd=folder).stdout
    assert "## Designs side by side" in told and "By stage" not in told
    assert [heading.split(",")[0] for heading in cells_of(told)[""]] == ["2 seeds", "5 seeds"]
    told = run(*command, "--against", "config/other.yaml", cwd=folder).stdout
    headings = cells_of(told)[""]
    assert [heading.split(":")[0] for heading in headings] == ["config/tiny.yaml", "config/other.yaml"]
    jobs = [int(number.replace(",", "")) for number in cells_of(told)["jobs"]]
    assert jobs[0] > jobs[1]


def test_the_command_gives_power_beside_what_it_assumes(fresh):
    folder, path, config = fresh
    own = copy.deepcopy(config)
    own["models"]["tiny"]["parameters"] = 0.0001
    path.write_text(json.dumps(own))
    command = ("python", "scripts/study.py", "plan", "--configfile", "config/tiny.yaml")
    told = run(*command, "--seeds", "3", "--items", "400", cwd=folder).stdout
    assert "## Power of the claims" in told
    assert "of the design with 3 seeds, 400 items" in told
    assert "Assumed: accuracies of baseline 30" in told
    assert "not a whole number" in run(*command, "--seeds", "none", cwd=folder, check=False).stderr
