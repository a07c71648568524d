"""Claims of a study's own: which comparisons they make, what they refuse, and where they show."""

import copy
import json
from pathlib import Path

import pytest
import yaml

from conftest import REPOSITORY, run, tiny_config
from selfrefine.analysis.comparing import Policy
from selfrefine.analysis.own_claims import claims_of
from selfrefine.analysis.verdicts import assess_all
from selfrefine.errors import UserError
from selfrefine.schema.claims import Claims
from selfrefine.store.files import read_json
from selfrefine.study.design import Study
from selfrefine.study.policy import policy_of
from selfrefine.study.power_table import Design, PowerTable
from selfrefine.study.stage_settings import settings
from test_claims import Planted, claims_command
from test_planning import planner

OWN = {"title": "One beats the other", "where": {"domain": "in"}}
BY_RECIPE = OWN | {"treated": {"arm": "refine", "recipe": ["cot", "ipo"]}, "control": {"recipe": "rft"}}


def config(claims: dict, **study) -> dict:
    found = tiny_config(Path("model"), Path("boxes.jsonl"), Path("oracle.jsonl"))
    found |= {"recipes": yaml.safe_load((REPOSITORY / "config/recipes.yaml").read_text())["recipes"], "claims": claims}
    found["study"] |= {"tasks": ["boxes", "far"], "shares": [50, 100], "seeds": [0, 1], "teachers": ["oracle", "own"]}
    found["study"] |= {"arms": ["baseline", "instruct", "refine", "cross", "refine-only"]}
    found["study"] |= {"recipes": ["cot", "ipo", "rft"]} | study
    found["teachers"]["own"] = found["teachers"]["oracle"] | {"family": "tiny"}
    return found


def compared(claim: dict, **study) -> list[tuple]:
    """(recipe, treated, control) of the comparisons of a claim."""
    made = Study.read(config({"paper": False, "mine": claim}, **study))
    (own,) = claims_of(made.claims)
    pairs = [pair for part in own.parts for pair in part.own.pairs(made.arms())]
    return [(treated.recipe, treated, control) for treated, control in pairs]


def test_sides_are_alike_in_all_that_they_do_not_name():
    found = compared(BY_RECIPE)
    # Of two recipes, each on two tasks, of two teachers, at two shares.
    assert len(found) == 2 * 2 * 2 * 2
    for recipe, treated, control in found:
        assert (recipe, control.recipe) in {("cot", "rft"), ("ipo", "rft")}
        assert treated.in_domain
        assert treated._replace(recipe="", samples={}) == control._replace(recipe="", samples={})


# By what sides name: how many comparisons of two tasks, two teachers, two shares and three recipes there are.
SIDES = {
    "a fact that one side lacks": ({"arm": "instruct"}, {"arm": "baseline"}, {"domain": "in"}, 8),
    "a teacher as the control": ({"arm": "refine", "recipe": "cot"}, {"arm": "teacher"}, {"domain": "in"}, 8),
    "one share": ({"arm": "instruct"}, {"arm": "baseline"}, {"domain": "in", "share": 50}, 4),
    "a teacher, and with it the family": ({"teacher": "oracle"}, {"teacher": "own"}, {"arm": "instruct"}, 8),
    "a family, and with it the teacher": ({"family": "in"}, {"family": "out"}, {"arm": "instruct", "domain": "in"}, 4),
    "out of domain": ({"arm": "instruct"}, {"arm": "baseline"}, {"domain": "out"}, 8),
    "a share against another": ({"share": 100}, {"share": 50}, {"arm": "instruct", "domain": "in"}, 4),
    "a task left open": ({"arm": "cross", "recipe": "cot", "task": "any"}, {"arm": "refine", "recipe": "cot"}, {"domain": "in"}, 8),
    "phase 2 alone against phase 1 alone": ({"arm": "refine-only", "recipe": "cot"}, {"arm": "instruct"}, {"domain": "in"}, 8),
    "an arm that one side names": ({"arm": "instruct", "share": 100}, {"share": 50}, {"domain": "in"}, 4),
    "a control of any recipe but its own": ({"arm": "refine", "recipe": "cot"}, {"arm": "refine", "recipe": "any"}, {"domain": "in"}, 16),
}  # fmt: skip


@pytest.mark.parametrize("case", SIDES)
def test_sides_select_by_facts(case):
    treated, control, where, number = SIDES[case]
    assert len(compared({"title": "t", "treated": treated, "control": control, "where": where})) == number


# What is wrong with a claim, and what is said of it.
REFUSED = {
    "a typo in a fact": (
        OWN | {"treated": {"recipie": "cot"}, "control": {"recipe": "rft"}},
        "claims.mine.treated.recipie: is no fact of an arm; facts are arm, student, teacher, family, task, refine_task, "
        "recipe, share, select, evaluation",
    ),
    "a value that the study lacks": (
        OWN | {"treated": {"recipe": "dpo"}, "control": {"recipe": "rft"}},
        "claims.mine.treated.recipe: the study has no recipe 'dpo'; it has cot, ipo, rft",
    ),
    "a share that it lacks": (
        BY_RECIPE | {"where": {"share": 25}},
        "claims.mine.where.share: the study has no share '25'; it has 100, 50",
    ),
    "a typo in a key": (OWN | {"treted": {}}, "claims.mine.treted: unknown key; did you mean 'treated'?"),
    "one side": (OWN | {"treated": {"recipe": "cot"}}, "control is missing: a comparison has two sides"),
    "no sides": (OWN, "compares nothing"),
    "the same sides": (OWN | {"treated": {"arm": "refine"}, "control": {"arm": "refine"}}, "are alike"),
    "nothing to compare": (
        OWN | {"treated": {"arm": "cross"}, "control": {"arm": "refine"}},
        "claims.mine: the study has nothing to compare: no two arms have arm cross and arm refine and are alike",
    ),
    "a domain of one side": (OWN | {"treated": {"domain": "in"}, "control": {"recipe": "rft"}}, "belongs under `where`"),
    "parts beside sides": (BY_RECIPE | {"parts": [BY_RECIPE | {"title": ""}]}, "has parts: name where, treated"),
    "a part of nothing": (
        {"title": "t", "parts": [{"treated": {"arm": "cross"}, "control": {"arm": "refine"}}]},
        "claims.mine.parts.0: the study has nothing to compare",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_study_has_none_of_is_refused_with_what_there_is(case):
    claim, said = REFUSED[case]
    claim = copy.deepcopy(claim)
    if "parts" in claim and case == "parts beside sides":
        claim["parts"] = [{key: claim[key] for key in ("where", "treated", "control")}]
    with pytest.raises(UserError) as refused:
        Study.read(config({"mine": claim}))
    assert said in str(refused.value)


def test_a_study_without_any_claim_is_refused():
    with pytest.raises(UserError, match="paper is false and there is no other claim"):
        Study.read(config({"paper": False}))


def test_names_that_would_be_numbers_are_refused():
    with pytest.raises(UserError, match="begin with a letter"):
        Study.read(config({"1": BY_RECIPE}))


@pytest.fixture
def study(tmp_path) -> Planted:
    found = Planted(tmp_path)
    for recipe, correct in (("cot", 90), ("ipo", 52), ("rft", 50)):
        found.train("refine", correct, recipe=recipe)
    found.train("instruct", 20)
    return found


def assessed(study: Planted, claims: dict) -> list[dict]:
    own = claims_of(Claims.model_validate(claims))
    return assess_all(study.cells, "strict", Policy(0.95, 0.05), {"a": "Boxes"}, claims=own)


def test_each_recipe_has_a_verdict_and_all_are_corrected_together(study):
    found = assessed(study, {"paper": False, "mine": BY_RECIPE})
    assert [(one["claim"], one["recipe"], one["verdict"]) for one in found] == [
        ("mine", "cot", "supported"),
        ("mine", "ipo", "undecided"),
    ]
    cot, ipo = (one["parts"][0]["comparisons"][0] for one in found)
    assert cot["compared"] == ["refine cot", "refine rft"]
    assert (cot["accuracy"], cot["against_accuracy"]) == (0.45, 0.25)
    assert cot["corrected_p"] == pytest.approx(2 * cot["p"])
    assert ipo["corrected_p"] == pytest.approx(ipo["p"])


def test_parts_about_different_recipes_make_one_claim(study):
    parts = [
        {"treated": {"recipe": "cot"}, "control": {"recipe": "rft"}},
        {"treated": {"arm": "refine", "recipe": "rft"}, "control": {"arm": "instruct"}},
    ]
    (found,) = assessed(study, {"paper": False, "mine": {"title": "All gain", "parts": parts}})
    assert (found["recipe"], found["verdict"]) == ("", "supported")
    assert [len(part["comparisons"]) for part in found["parts"]] == [1, 1]


def test_identical_arms_are_named_by_what_they_differ_in(study):
    study.train("refine", 50, recipe="kto")
    same = OWN | {"treated": {"recipe": "kto"}, "control": {"recipe": "rft"}}
    (found,) = assessed(study, {"paper": False, "mine": same})
    assert found["verdict"] == "undecided"
    assert any(note.startswith("Identical: refine kto and refine rft of s on Boxes") for note in found["notes"])


def test_they_stand_beside_the_papers_which_stay_as_they_are(study):
    alone = assess_all(study.cells, "strict", Policy(0.95, 0.05), {"a": "Boxes"})
    both = assessed(study, {"mine": BY_RECIPE})
    assert both[: len(alone)] == alone
    assert {one["claim"] for one in both[len(alone) :]} == {"mine"}


def test_a_margin_judges_them_as_it_judges_the_papers(study):
    about = BY_RECIPE | {"treated": {"arm": "refine", "recipe": "ipo"}, "says": "about"}
    (found,) = assessed(study, {"paper": False, "mine": about})
    assert (found["says"], found["verdict"]) == ("about", "supported")


def test_the_program_writes_them(study):
    command = claims_command(study)
    place = command.index("--settings") + 1
    given = json.loads(command[place]) | {"claims": {"paper": False, "mine": BY_RECIPE}}
    run(*command[:place], json.dumps(given), *command[place + 1 :])
    text, found = (study.folder / "out/claims.md").read_text(), read_json(study.folder / "out/claims.json")
    assert text.startswith("# The study's claims\n") and "arXiv 2405.00402" not in text
    assert "## mine: One beats the other (cot): supported" in text
    assert "refine cot against refine rft" in text
    assert [one["claim"] for one in found["claims"]] == ["mine", "mine"]


def test_settings_and_policy_of_a_study_without_own_claims_are_as_before():
    plain = Study.read(config({}))
    assert "claims" not in settings(plain, "claims")
    assert list(policy_of(plain)["claims"]) == [str(number) for number in range(1, 8)]


def test_claims_are_registered_and_keyed_but_for_the_effect_that_only_the_plan_reads():
    one, other, more = (
        Study.read(config({"mine": BY_RECIPE | change})) for change in ({}, {"effect": 3}, {"title": "Another"})
    )
    assert settings(one, "claims") == settings(other, "claims") != settings(more, "claims")
    assert policy_of(one) == policy_of(other) != policy_of(more)
    assert policy_of(one)["claims"]["mine"]["parts"] == [
        "an arm with arm refine, recipe cot or ipo and one with recipe rft, domain in on both sides, alike in all else"
    ]


def test_the_plan_has_their_power_and_their_effect():
    of = planner()
    claims = {"paper": False, "mine": OWN | {"treated": {"arm": "refine"}, "control": {"arm": "instruct"}, "effect": 7}}
    object.__setattr__(of.study, "claims", Claims.model_validate(claims))
    table = PowerTable(of, [])
    (plan,) = table._plans
    assert len(plan.comparisons) == 4 * 36
    assert {table._assumed(plan.claim, *pair).difference for pair in plan.comparisons} == {0.07}
    assert "mine: One beats the other" in table.table(Design(3, None))
