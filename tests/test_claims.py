"""Studies planted by hand, whose verdicts are known."""

import json
from math import sqrt
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import worlds
import yaml
from scipy import stats
from statsmodels.stats.multitest import multipletests

from conftest import REPOSITORY, run, tiny_config
from selfrefine.analysis import accuracy_tables, gains, statistics
from selfrefine.analysis.comparing import Policy, bears_out, bounds_of
from selfrefine.analysis.correctness import Answers
from selfrefine.analysis.power import needed
from selfrefine.analysis.verdicts import VERDICTS, arms_of, assess_all, judge, verdict_of
from selfrefine.errors import UserError
from selfrefine.store.files import read_json, write_json, write_jsonl
from selfrefine.study.artifacts import Artifacts
from selfrefine.study.design import Study
from selfrefine.study.final_artifacts import FinalArtifacts

ITEMS = 200
NAMES = ("arm", "student", "teacher", "family", "task", "refine_task", "recipe", "share", "seed", "evaluation")


class Planted:
    """A study: judged answers on disk, and the cells that name them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.cells: list[dict] = []

    def add(self, arm: str, correct: range | list[int], items: int = ITEMS, **facts) -> Path:
        """One cell: the items that are correct, by number."""
        cell = dict.fromkeys(NAMES, "") | {"arm": arm, "student": "s", "evaluation": "a"} | facts
        if arm == "teacher":
            cell["student"] = ""
        path = self.folder / ("-".join(str(cell[name]) for name in NAMES) + ".jsonl")
        rows = []
        for number in range(items):
            row = {"id": f"item{number:03}", "strict": float(number in correct), "legacy": float(number not in correct)}
            rows.append(row | {"id": f"item{number:03}-cot-0", "item": row["id"]} if arm == "teacher" else row)
        write_jsonl(path, rows)
        self.cells.append(cell | {"checkpoint": "", "samples": str(path)})
        return path

    def train(self, arm: str, correct: int | range, task: str = "a", evaluation: str = "a", **facts) -> Path:
        """A trained arm of teacher t on one benchmark; the lowest items are correct."""
        family = {"teacher": "t", "family": "out", "task": task}
        refined = {"refine_task": task, "recipe": "cot"}
        own = {
            "baseline": {},
            "instruct": family,
            "refine": family | refined,
            "cross": family | refined,
            "refine-only": refined,
        }
        facts = own[arm] | ({} if arm == "baseline" else {"share": 100, "seed": 0}) | facts
        correct = range(correct) if isinstance(correct, int) else correct
        return self.add(arm, correct, evaluation=evaluation, **facts)

    def assess(self, margin: float = 0.05, extractor: str = "strict", looks=None) -> list[dict]:
        return assess_all(self.cells, extractor, Policy(0.95, margin, looks), {"a": "Boxes"})

    def verdict(self, claim: int, **options) -> str:
        (found,) = [assessed for assessed in self.assess(**options) if assessed["claim"] == claim]
        return found["verdict"]


@pytest.fixture
def study(tmp_path) -> Planted:
    return Planted(tmp_path)


def rows_of(assessed: list[dict], claim: int) -> list[dict]:
    return [r for found in assessed if found["claim"] == claim for part in found["parts"] for r in part["comparisons"]]


# By claim: arms with so many of 200 correct, and the verdict.


def instructed_and_baseline(study: Planted, instructed: int, baseline: int) -> None:
    study.train("instruct", instructed)
    study.train("baseline", baseline)


def refined_and_instructed(study: Planted, with_in_family: int, with_out_family: int, instructed: int) -> None:
    for teacher, family, correct in (("ours", "in", with_in_family), ("t", "out", with_out_family)):
        study.train("refine", correct, teacher=teacher, family=family)
        study.train("instruct", instructed, teacher=teacher, family=family)


def refined_and_teacher(study: Planted, refined: range, teacher: range) -> None:
    study.train("refine", refined)
    study.add("teacher", teacher, teacher="t")


def refined_by_family(study: Planted, out: int, own: int) -> None:
    study.train("refine", out)
    study.train("refine", own, teacher="ours", family="in")


def out_of_domain(study: Planted, refined: int, instructed: int, baseline: int) -> None:
    for arm, correct in (("refine", refined), ("instruct", instructed), ("baseline", baseline)):
        study.train(arm, correct, evaluation="b")


def crossed_and_refined(study: Planted, crossed: range, refined: range) -> None:
    study.train("cross", crossed, task="b", refine_task="a")
    study.train("refine", refined)


def by_share(study: Planted, refined: int, refined_only: int, instructed: int, instructed_less: int) -> None:
    for share, least in ((100, instructed), (25, instructed_less)):
        for arm, correct in (("refine", refined), ("refine-only", refined_only), ("instruct", least)):
            study.train(arm, correct, share=share)


# Pairs that differ one way only: 30 gained or lost decide, 4 do not. With a margin of 10 items of 200, 2 below is
# within, 40 is not.
PLANTED = [
    (1, instructed_and_baseline, (80, 50), "supported"),
    (1, instructed_and_baseline, (50, 80), "contradicted"),
    (1, instructed_and_baseline, (54, 50), "undecided"),
    (2, refined_and_instructed, (90, 80, 50), "supported"),
    (2, refined_and_instructed, (90, 20, 50), "contradicted"),
    (2, refined_and_instructed, (90, 52, 50), "undecided"),
    (3, refined_and_teacher, (range(98), range(100)), "supported"),
    (3, refined_and_teacher, (range(60), range(100)), "contradicted"),
    (3, refined_and_teacher, (range(88), range(100)), "undecided"),
    (4, refined_by_family, (80, 50), "supported"),
    (4, refined_by_family, (50, 80), "contradicted"),
    (4, refined_by_family, (53, 50), "undecided"),
    (5, out_of_domain, (110, 80, 50), "supported"),
    (5, out_of_domain, (110, 20, 50), "contradicted"),
    (5, out_of_domain, (83, 80, 50), "undecided"),
    (6, crossed_and_refined, (range(100), range(99)), "supported"),
    (6, crossed_and_refined, (range(60), range(100)), "contradicted"),
    (6, crossed_and_refined, (range(140), range(100)), "contradicted"),
    (6, crossed_and_refined, (range(5, 100), range(88)), "undecided"),
    (7, by_share, (120, 90, 50, 50), "supported"),
    (7, by_share, (120, 90, 50, 119), "contradicted"),
    (7, by_share, (120, 90, 86, 50), "undecided"),
]


@pytest.mark.parametrize(("claim", "plant", "correct", "verdict"), PLANTED)
def test_each_claim_gets_the_verdict_that_was_planted(study, claim, plant, correct, verdict):
    plant(study, *correct)
    assert study.verdict(claim) == verdict


NEEDS = {
    1: "the arm instruct and the arm baseline",
    2: "the arm refine and the arm instruct",
    3: "the arm refine and the arm teacher",
    4: "the arm refine",
    5: "the arm refine and the arm instruct",
    6: "the arm cross and the arm refine",
    7: "the arm refine and the arm instruct",
}


def test_a_study_without_the_arms_tests_nothing_and_names_them():
    assessed = assess_all([], "strict", Policy(0.95, 0.05), {})
    assert {found["claim"]: found["verdict"] for found in assessed} == dict.fromkeys(NEEDS, "not tested")
    assert {found["claim"]: found["parts"][0]["missing"] for found in assessed} == NEEDS


def test_what_is_missing_beside_arms_is_named(study):
    for arm in ("baseline", "instruct", "refine", "cross", "refine-only"):
        study.train(arm, 50)
    study.add("teacher", range(50), teacher="t")
    missing = {(found["claim"], part["title"]): part["missing"] for found in study.assess() for part in found["parts"]}
    domain = "a benchmark both trained and evaluated on"
    assert missing[1, ""] == missing[3, ""] == ""
    assert missing[2, "with an in-family teacher"] == f"an in-family teacher, and {domain}"
    assert missing[4, ""] == f"an in-family and an out-family teacher of one student, and {domain}"
    assert missing[5, "instructed against baseline"] == "a benchmark evaluated on and not trained on"
    assert missing[7, "refined against instructed"] == "more than one share"
    study.train("cross", 50, evaluation="b", share=25)
    missing = {(found["claim"], part["title"]): part["missing"] for found in study.assess() for part in found["parts"]}
    assert missing[5, "instructed against baseline"].endswith(" and not trained on, at the largest share")
    assert missing[7, "refined against instructed"] == ""


def test_a_claim_with_an_untested_part_can_be_contradicted_but_not_supported(study):
    study.train("refine", 90)
    study.train("instruct", 50)
    (found,) = [found for found in study.assess() if found["claim"] == 2]
    assert [part["verdict"] for part in found["parts"]] == ["not tested", "supported"]
    assert found["verdict"] == "undecided"
    study.train("refine", 10)
    study.cells.pop(0)
    assert study.verdict(2) == "contradicted"


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        ([["supported"] * 9], "supported"),
        ([["supported"] * 9 + ["undecided"]], "undecided"),
        ([["supported"] * 9 + ["contradicted"]], "contradicted"),
        ([["undecided"], ["contradicted"]], "contradicted"),
        ([["supported"], []], "undecided"),
        ([[], []], "not tested"),
    ],
)
def test_the_rule(parts, verdict):
    assert verdict_of(parts) == verdict
    assert verdict in VERDICTS


@pytest.mark.parametrize(
    ("says", "estimate", "margin", "borne_out"),
    [
        ("above", 0.001, 0.05, True),
        ("above", -0.001, 0.05, False),
        ("not below", -0.049, 0.05, True),
        ("not below", -0.051, 0.05, False),
        ("about", 0.049, 0.05, True),
        ("about", 0.051, 0.05, False),
        ("about", -0.051, 0.05, False),
    ],
)
def test_where_a_claim_says_that_differences_lie(says, estimate, margin, borne_out):
    assert bears_out(says, estimate, margin) == borne_out
    assert all(not bears_out(says, bound, margin) for bound in bounds_of(says, margin))


def test_the_margin_decides(study):
    refined_and_teacher(study, range(88), range(100))
    assert [study.verdict(3, margin=margin) for margin in (0.01, 0.05, 0.15)] == [
        "contradicted",
        "undecided",
        "supported",
    ]


def test_equivalence_asks_for_both_sides(study):
    crossed_and_refined(study, range(112), range(100))
    (row,) = rows_of(study.assess(margin=0.15), 6)
    assert row["verdict"] == "supported"
    assert row["bound"] == 0.15
    assert -0.15 < row["low"] < row["high"] < 0.15
    (row,) = rows_of(study.assess(margin=0.05), 6)
    assert row["verdict"] == "undecided"
    assert row["low"] < 0.05 < row["difference"]


def test_comparisons_of_a_claim_are_corrected_together(study):
    gained = {"a": 6, "b": 7, "c": 9, "d": 1}
    for task, more in gained.items():
        study.train("instruct", 50 + more, task=task, evaluation=task)
        study.train("baseline", 50, evaluation=task)
    rows = {row["evaluation"]: row for row in rows_of(study.assess(), 1)}
    p = {task: stats.binomtest(more, more).pvalue for task, more in gained.items()}
    assert {task: row["p"] for task, row in rows.items()} == pytest.approx(p)
    # Holm: 2/512 x 4; 2/128 x 3; 2/64 x 2 = 0.0625, no more; 1.
    assert [rows[task]["corrected_p"] for task in "cbad"] == pytest.approx([0.015625, 0.046875, 0.0625, 1.0])
    corrected = multipletests([p[task] for task in rows], method="holm")[1]
    assert [row["corrected_p"] for row in rows.values()] == pytest.approx(corrected)
    assert [rows[task]["verdict"] for task in "cbad"] == ["supported", "supported", "undecided", "undecided"]


def test_recipes_have_a_verdict_each_and_are_corrected_together(study):
    study.train("baseline", 20, evaluation="b")
    study.train("instruct", 50, evaluation="b")
    study.train("refine", 80, evaluation="b")
    study.train("refine", 52, evaluation="b", recipe="answer")
    first, second = (found for found in study.assess() if found["claim"] == 5)
    assert (first["recipe"], first["verdict"]) == ("cot", "supported")
    assert (second["recipe"], second["verdict"]) == ("answer", "undecided")
    # Instructed against baseline belongs to both, and counts once: three comparisons in all.
    row = first["parts"][0]["comparisons"][0]
    assert row["corrected_p"] == pytest.approx(3 * row["p"])
    assert first["parts"][1]["comparisons"] == second["parts"][1]["comparisons"]


def test_only_the_largest_share_counts_but_for_the_claim_about_shares(study):
    by_share(study, 120, 90, 50, 50)
    study.train("baseline", 10)
    assessed = study.assess()
    assert {row["share"] for claim in (1, 2) for row in rows_of(assessed, claim)} == {100}
    assert sorted(row["share"] for row in rows_of(assessed, 7)) == [25, 25, 100, 100]


def test_each_student_meets_its_own_teacher_and_start(study):
    for teacher, refined, instructed, taught in (("t", 60, 30, 90), ("u", 160, 130, 190)):
        study.train("refine", refined, teacher=teacher)
        study.train("instruct", instructed, teacher=teacher)
        study.add("teacher", range(taught), teacher=teacher)
    assessed = study.assess()
    assert {row["difference"] for row in rows_of(assessed, 2)} == {30 / ITEMS}
    assert {(row["teacher"], round(row["difference"], 3)) for row in rows_of(assessed, 3)} == {
        ("t", -0.15),
        ("u", -0.15),
    }


SEEDS = {3: 60, 0: 90, 7: 120}


def test_seeds_pair_by_number_in_whatever_order_they_come(study):
    for seed, correct in SEEDS.items():
        study.train("refine", correct + 20, seed=seed)
    for seed, correct in reversed(SEEDS.items()):
        study.train("instruct", correct, seed=seed)
    (row,) = rows_of(study.assess(), 2)
    assert [(test["seed"], test["gained"], test["lost"]) for test in row["by_seed"]] == [
        (0, 20, 0),
        (3, 20, 0),
        (7, 20, 0),
    ]
    assert row["difference"] == pytest.approx(0.1)
    assert (row["seeds"], row["verdict"]) == (3, "supported")


def test_seeds_that_disagree_leave_a_claim_undecided_that_one_of_them_would_support(study):
    for seed, gained in enumerate((60, 5, -10)):
        study.train("refine", 100 + gained, seed=seed)
        study.train("instruct", 100, seed=seed)
    (row,) = rows_of(study.assess(), 2)
    assert row["by_seed"][0]["p"] < 1e-9
    assert row["verdict"] == "undecided"
    for low, high in row["needed"].values():
        assert low is None or 3 < low <= high


def test_the_baseline_and_the_teacher_have_no_seeds(study):
    for seed, correct in enumerate((110, 112, 114)):
        study.train("instruct", correct, seed=seed)
        study.train("refine", correct + 1, seed=seed)
    study.train("baseline", 50)
    study.add("teacher", range(112), teacher="t")
    assessed = study.assess()
    for claim, expected in ((1, (60, 62, 64)), (3, (-1, 1, 3))):
        (row,) = rows_of(assessed, claim)
        assert tuple(test["gained"] - test["lost"] for test in row["by_seed"]) == expected
        assert row["seeds"] == 3
        assert row["difference"] == pytest.approx(sum(expected) / 3 / ITEMS)


def test_one_seed_speaks_of_its_checkpoints(study):
    instructed_and_baseline(study, 54, 50)
    (found,) = [found for found in study.assess() if found["claim"] == 1]
    (row,) = found["parts"][0]["comparisons"]
    assert found["seeds"] == 1
    assert row["needed"].keys() == {"items"}  # one seed tells nothing of others
    assert all(number > ITEMS for number in row["needed"]["items"])
    assert (row["low"], row["p"]) == (0.0, 0.125)


def test_what_would_decide_takes_in_the_correction_over_the_open_comparisons(study):
    instructed_and_baseline(study, 54, 50)
    (alone,) = rows_of(study.assess(), 1)
    for task, correct in (("b", 54), ("c", 150)):
        study.train("instruct", correct, task=task, evaluation=task)
        study.train("baseline", 50, evaluation=task)
    rows = {row["evaluation"]: row for row in rows_of(study.assess(), 1)}
    assert rows["a"]["needed"] == rows["b"]["needed"]
    assert rows["a"]["needed"]["items"][1] > alone["needed"]["items"][1]
    of = statistics.Components(**alone["components"])
    assert rows["a"]["needed"]["items"] == [*needed([of], "above", 0.05, 0.05 / 2, "items")]
    assert rows["c"]["needed"] == {}


def test_the_extractor_decides(study):
    instructed_and_baseline(study, 80, 50)
    assert study.verdict(1, extractor="legacy") == "contradicted"


@pytest.mark.parametrize("side", ["instruct", "baseline"])
def test_an_item_that_one_arm_lacks_is_named_with_its_file(study, side):
    paths = {arm: study.train(arm, correct) for arm, correct in (("instruct", 80), ("baseline", 50))}
    lines = paths[side].read_text().splitlines(keepends=True)
    paths[side].write_text("".join(lines[:17] + lines[18:]))
    (other,) = (path for arm, path in paths.items() if arm != side)
    with pytest.raises(UserError) as caught:
        study.assess()
    assert str(caught.value) == f"{paths[side]}: lacks item item017, which {other} has; evaluate both again"


def test_an_item_that_is_answered_twice_is_named_with_its_file(study):
    path = study.train("instruct", 80)
    study.train("baseline", 50)
    path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[3])
    with pytest.raises(UserError, match=f"{path}: item item003 is answered twice"):
        study.assess()


def test_a_seed_that_one_arm_lacks_is_named_with_its_file(study):
    study.train("refine", 80)
    path = study.train("refine", 80, seed=4)
    study.train("instruct", 50)
    with pytest.raises(UserError, match=f"{path}: instruct has no seed 4"):
        study.assess()


def test_answers_are_joined_by_item_never_by_row(study):
    path = study.train("instruct", 80)
    study.train("baseline", 50)
    before = study.assess()
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert study.assess() == before


def test_the_cells_of_a_whole_study_reach_every_claim(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(Path("model"), Path("boxes.jsonl"), Path("oracle.jsonl"))
    config |= {"recipes": yaml.safe_load((REPOSITORY / "config/recipes.yaml").read_text())["recipes"]}
    config["study"] |= {"tasks": ["boxes", "far"], "shares": [50, 100], "seeds": [0, 1], "teachers": ["oracle", "own"]}
    config["study"]["arms"] = ["baseline", "instruct", "refine", "cross", "refine-only"]
    config["teachers"]["own"] = config["teachers"]["oracle"] | {"family": "tiny"}
    study = Study.read(config)
    finals = FinalArtifacts(
        Artifacts(study, lambda stage: "version 1", lambda rule: rule, lambda path: f"what {path} holds")
    )
    cells = json.loads(finals.listings.text("tables"))["cells"]
    assert len(cells) == len(study.cells())
    for cell in cells:
        rows = [{"id": f"i{n}", "strict": n % 2, "legacy": 0.0} for n in range(6)]
        if cell["arm"] == "teacher":
            rows = [row | {"item": row["id"], "id": f"{row['id']}-cot-0"} for row in rows]
        write_jsonl(Path(cell["samples"]), rows)
    assert sum(len(arm.samples) for arm in arms_of(cells)) == len(cells)
    counts = {
        (found["claim"], part["title"]): len(part["comparisons"])
        for found in assess_all(cells, "strict", Policy(0.95, 0.05), {})
        for part in found["parts"]
    }
    assert counts == {
        (1, ""): 4,
        (2, "with an in-family teacher"): 2,
        (2, "with an out-family teacher"): 2,
        (3, ""): 4,
        (4, ""): 2,
        (5, "refined against instructed"): 4,
        (5, "instructed against baseline"): 4,
        (6, ""): 4,
        (7, "refined against instructed"): 8,
        (7, "refined without instruction against instructed"): 8,
    }


def claims_command(study: Planted, margin: float = 5) -> list:
    index = study.folder / "tables.json"
    write_json(index, {"cells": study.cells, "training": {}})
    settings = {"level": 0.95, "margin": margin, "extractor": "strict", "titles": {"a": "Boxes | far"}}
    settings |= {"looks": None, "spending": "obrien-fleming"}
    command = ["python", "scripts/claims.py", "--settings", json.dumps(settings), "--index", index]
    return [*command, "--record", study.folder / "out/record.json"]


def test_the_program_writes_the_same_bytes_twice_and_records_what_it_read(study):
    refined_and_instructed(study, 90, 54, 50)
    for seed in (1, 2):
        for teacher, family in (("ours", "in"), ("t", "out")):
            study.train("refine", 60 + 3 * seed, seed=seed, teacher=teacher, family=family)
            study.train("instruct", 40, seed=seed, teacher=teacher, family=family)
    study.train("baseline", 50)
    study.add("teacher", range(70), teacher="t")
    study.add("teacher", range(70), teacher="ours")
    command = claims_command(study)
    run(*command)
    names = ("claims.md", "claims.json")
    first = [(study.folder / "out" / name).read_bytes() for name in names]
    record = read_json(study.folder / "out/record.json")
    assert set(record["inputs"]) == {str(study.folder / "tables.json"), *(cell["samples"] for cell in study.cells)}
    assert {Path(path).name for path in record["outputs"]} == set(names)
    for name in (*names, "record.json"):
        (study.folder / "out" / name).unlink()
    run(*command)
    assert [(study.folder / "out" / name).read_bytes() for name in names] == first


def test_the_verdicts_come_first_and_the_numbers_after(study):
    instructed_and_baseline(study, 80, 50)
    refined_and_teacher(study, range(88), range(100))
    run(*claims_command(study))
    text = (study.folder / "out/claims.md").read_text()
    verdicts, details = text.split("## How to read this")
    lines = {line.split("|")[1].strip(): line for line in verdicts.splitlines() if line.startswith("| ")}
    assert "| supported" in lines["1. Instructed students beat the baseline"]
    assert "these checkpoints" in lines["1. Instructed students beat the baseline"]
    teacher = lines["3. Refined students reach their teacher (cot, margin 5 points)"]
    assert "| undecided" in teacher and " items" in teacher
    crossed = next(line for name, line in lines.items() if name.startswith("6. "))
    assert "not tested" in crossed and "needs the arm cross" in crossed
    assert "+15.0 [+10.7, +20.6]" in details
    assert r"Boxes \| far" in details
    assert "## 6. " in details and "Not tested: the study would need the arm cross." in details


def test_the_program_names_what_a_user_can_mend(study):
    study.train("instruct", 80)
    path = study.train("baseline", 50)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    failed = run(*claims_command(study), check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"error: {path}: lacks item item000, which ")
    refused = run(*claims_command(study, margin=0), check=False)
    assert refused.returncode == 2
    assert "margin" in refused.stderr


def test_a_false_claim_is_supported_no_more_often_than_promised():
    studies, verdicts = 200, []
    world, generator = worlds.World(accuracy=0.3, spread=2), np.random.default_rng(9)
    for _ in range(studies):
        treated, control = world.study(generator, 5, 200, [0.0, 0.35, 0.35, 0.35])
        gaps = [statistics.paired(one, control) for one in treated]
        rows = [{"difference": gap.mean, "p": statistics.p_value(gap, 0.0)} for gap in gaps]
        judge(rows, "above", 0.95, 0.0)
        verdicts.append(verdict_of([[row["verdict"] for row in rows]]))
    assert verdicts.count("supported") / studies <= 0.025 + 4 * sqrt(0.025 * 0.975 / studies)
    assert verdicts.count("undecided") / studies > 0.9


# What answers may say, and what is odd about arms.


@pytest.mark.parametrize(
    ("value", "shown"),
    [(float("nan"), "nan"), ("0.0", "'0.0'"), (0.1, "0.1"), (2, "2"), (None, "None"), ("yes", "'yes'"), ([1], "[1]")],
)
def test_correctness_is_0_or_1_and_nothing_else(study, value, shown):
    path = study.train("instruct", 80)
    study.train("baseline", 50)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[6]["strict"] = value
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError) as caught:
        study.assess()
    assert str(caught.value) == f"{path}:7: item item006: 'strict' is {shown}, not 0 or 1; evaluate again"
    cell = study.cells[0]
    with pytest.raises(UserError, match=r":7: item item006: 'strict' is "):
        accuracy_tables.read_answers([cell], "strict")


@pytest.mark.parametrize("value", [True, False, 0, 1, 0.0, 1.0])
def test_true_false_0_and_1_are_verdicts(value, tmp_path):
    path = tmp_path / "samples.jsonl"
    write_jsonl(path, [{"id": "one", "strict": value}])
    assert Answers("strict").of(path) == {"one": bool(value)}


def test_a_verdict_that_is_missing_is_named(tmp_path):
    path = tmp_path / "samples.jsonl"
    write_jsonl(path, [{"id": "one"}])
    with pytest.raises(UserError, match=f"{path}:1: item one: 'strict' is missing, not 0 or 1"):
        Answers("strict").of(path)


def test_no_items_are_an_error_in_words(study):
    path = study.train("instruct", 80)
    study.train("baseline", 50)
    path.write_text("")
    with pytest.raises(UserError, match=f"{path}: holds no answers, so there is nothing to compare"):
        study.assess()
    with pytest.raises(UserError, match="holds no answers"):
        accuracy_tables.read_answers(study.cells, "strict")
    with pytest.raises(ValueError, match="1 seeds and 0 items"):
        statistics.components(np.zeros((1, 0)))
    with pytest.raises(ValueError, match="finite"):
        statistics.components(np.full((1, 3), np.nan))


def test_identical_arms_are_named_and_decide_nothing(study):
    crossed_and_refined(study, range(100), range(100))
    (found,) = [found for found in study.assess(margin=0.2) if found["claim"] == 6]
    (row,) = found["parts"][0]["comparisons"]
    assert row["p"] < 0.05
    assert (row["identical"], row["verdict"], found["verdict"]) == (True, "undecided", "undecided")
    assert found["notes"] == [
        "Identical: cross and refine of s on Boxes have the same items correct under every seed. "
        "Check that both were evaluated."
    ]
    assert row["log_odds"] is None
    study.cells.pop()
    study.train("refine", range(1, 101))
    assert study.verdict(6, margin=0.2) == "supported"


def seeds_of(study: Planted, refined: list[int], instructed: int = 60, task: str = "a") -> None:
    for seed, correct in enumerate(refined):
        study.train("refine", range(correct), seed=seed, task=task, evaluation=task)
        study.train("instruct", range(instructed), seed=seed, task=task, evaluation=task)


def test_both_estimands_stand_side_by_side_and_new_training_runs_judge(study):
    seeds_of(study, [90, 82])  # gains of 30 and 22 of 200
    (found,) = [found for found in study.assess() if found["claim"] == 2]
    (row,) = rows_of([found], 2)
    fixed, runs = row["estimates"]
    assert (fixed["holds_for"], runs["holds_for"]) == ("these checkpoints", "new training runs")
    assert 0.08 < fixed["low"] < 0.13 < fixed["high"] < 0.19
    assert runs["low"] < 0 < runs["high"]
    assert (row["low"], row["high"], row["p"], row["holds_for"]) == (
        *itemgetter("low", "high", "p")(runs),
        found["holds_for"],
    )
    assert found["notes"] == [
        "Two seeds say little of how much training runs vary: the variance between them rests on 1.0 degrees of "
        "freedom. Three seeds or more are advised."
    ]
    assert row["verdict"] == "undecided"


def test_other_comparisons_of_the_stage_decide_what_two_seeds_of_one_do_not(study):
    # Items' difficulty varies, seeds' accuracy does not.
    generator = np.random.default_rng(0)
    for task in "abcd":
        for seed in (0, 1):
            for arm, more in (("refine", 24), ("instruct", 0)):
                correct = generator.permutation(200)[: 80 + more + int(generator.integers(-3, 4))]
                study.train(arm, sorted(correct.tolist()), seed=seed, task=task, evaluation=task)
    together = rows_of(study.assess(), 2)
    study.cells = [cell for cell in study.cells if cell["evaluation"] == "a"]
    (alone,) = rows_of(study.assess(), 2)
    with_others = next(row for row in together if row["evaluation"] == "a")
    assert alone["estimates"][-1]["seed_df"] == 1
    assert 1 < with_others["estimates"][-1]["seed_df"] <= 4
    assert with_others["high"] - with_others["low"] < alone["high"] - alone["low"]
    assert with_others["estimates"][0] == alone["estimates"][0]


def test_intervals_of_margins_have_the_level_that_their_tests_have(study):
    crossed_and_refined(study, range(104), range(100))
    instructed_and_baseline(study, 80, 50)
    assessed = study.assess(margin=0.08)
    assert rows_of(assessed, 1)[0]["interval_level"] == pytest.approx(0.95)
    (row,) = rows_of(assessed, 6)
    assert row["interval_level"] == pytest.approx(0.9)
    assert row["p"] == pytest.approx(statistics.p_value(statistics.Components(**row["components"]), 0.08) / 2)
    for wide in np.linspace(0.02, 0.12, 21):
        (row,) = rows_of(study.assess(margin=wide), 6)
        assert (row["verdict"] == "supported") == (-wide < row["low"] and row["high"] < wide)


def test_an_outlying_run_is_named_and_a_claim_that_rests_on_it_is_undecided(study):
    for seed, correct in enumerate((130, 126, 128, 127, 129)):
        study.train("refine", range(correct), seed=seed)
        study.train("instruct", range(100 if seed != 2 else 0), seed=seed)
    (found,) = [found for found in study.assess() if found["claim"] == 2]
    (row,) = rows_of([found], 2)
    assert row["outlying"] == [{"arm": "instruct", "seed": 2, "accuracy": 0.0, "median": 0.5}]
    assert any(
        "Outlying training run, refine and instruct of s on Boxes: instruct, seed 2: 0.0 %" in n for n in found["notes"]
    )


def test_what_holds_only_with_an_outlying_run_is_undecided():
    row = {"difference": 0.2, "p": 0.001, "alpha": 0.05, "p_without_outlying": 0.3}
    judge([row], "above", 0.95, 0.0)
    assert (row["verdict"], row["rests_on_outlying"]) == ("undecided", True)
    row = {"difference": 0.2, "p": 0.001, "alpha": 0.05, "p_without_outlying": 0.01}
    judge([row], "above", 0.95, 0.0)
    assert row["verdict"] == "supported"
    assert "rests_on_outlying" not in row


def test_a_declared_look_has_its_own_level_and_another_decides_nothing(study):
    seeds_of(study, [100, 101, 99])
    (before,) = rows_of(study.assess(), 2)
    assert before["verdict"] == "supported"
    (found,) = [found for found in study.assess(looks=(3, 6)) if found["claim"] == 2]
    (row,) = rows_of([found], 2)
    assert row["alpha"] == pytest.approx(0.003, abs=1e-3)
    assert row["corrected_p"] == pytest.approx(min(1, row["p"] * 0.05 / row["alpha"]))
    assert row["interval_level"] == pytest.approx(1 - row["alpha"])
    assert "Declared looks at 3, 6 seeds (obrien-fleming): p at 3 is held against 0.003" in found["notes"][0]
    (found,) = [found for found in study.assess(looks=(2, 6)) if found["claim"] == 2]
    (row,) = rows_of([found], 2)
    assert (row["alpha"], row["verdict"]) == (0, "undecided")
    assert row["interval_level"] == pytest.approx(1 - 0.05 / 6)
    assert found["notes"][0].startswith("3 seeds are no declared look (2, 6), so nothing is decided")
    (row,) = rows_of(study.assess(looks="any"), 2)
    assert row["alpha"] == pytest.approx(0.05 / 6)


def test_seeds_that_were_added_after_an_undeclared_look_are_judged_at_any_number_of_seeds(study):
    seeds_of(study, [100, 101, 99])
    assessed = assess_all(study.cells, "strict", Policy(0.95, 0.05, taken=[2]), {"a": "Boxes"})
    (found,) = [found for found in assessed if found["claim"] == 2]
    (row,) = rows_of([found], 2)
    assert row["alpha"] == pytest.approx(0.05 / 6)
    assert found["notes"][0].startswith("Seeds were added after a look at 2 seeds that was not declared.")
    assert "p at 3 is held against 0.008333" in found["notes"][0]


def test_the_mean_over_benchmarks_stands_beside_the_rule_that_all_must_hold(study):
    for task, correct in zip("abc", (90, 84, 66), strict=True):
        study.train("instruct", correct, task=task, evaluation=task)
        study.train("baseline", 60, evaluation=task)
    (found,) = [found for found in study.assess() if found["claim"] == 1]
    overall = found["parts"][0]["overall"]
    assert overall["benchmarks"] == 3
    assert 0.06 < overall["difference"] < 0.12
    assert overall["low"] < overall["difference"] < overall["high"]
    assert overall["between"] > 0.02
    study.cells = study.cells[:2]
    (found,) = [found for found in study.assess() if found["claim"] == 1]
    (row,) = rows_of([found], 1)
    assert found["parts"][0]["overall"] == pytest.approx(
        {"benchmarks": 1, "level": 0.95, "between": None} | {name: row[name] for name in ("difference", "low", "high")}
    )


def test_comparisons_of_arms_have_both_intervals_in_their_table(study):
    for seed, correct in enumerate((90, 82, 86)):
        for arm, number in (("refine", correct), ("instruct", 60)):
            study.train(arm, number, seed=seed)
            start = f"s/instruct/t/a/100/{seed}"
            study.cells[-1]["checkpoint"] = start + ("/refine/a/cot" if arm == "refine" else "")
    frames = []
    for cell in study.cells:
        correct = [json.loads(line)["strict"] == 1 for line in Path(cell["samples"]).read_text().splitlines()]
        items = [f"item{n:03}" for n in range(ITEMS)]
        frames.append(pd.DataFrame({"item": items, "correct": correct}).assign(several=False, select="", **cell))
    monkey = pytest.MonkeyPatch()
    monkey.setattr(gains, "differing", lambda *_: "")
    table = gains.comparisons_table(pd.concat(frames, ignore_index=True), 0.95, {})
    monkey.undo()
    (row,) = rows_of(study.assess(), 2)
    assert len(table) == 3
    assert set(table.holds_for) == {"this checkpoint"}
    assert table.difference.tolist() == pytest.approx([0.15, 0.11, 0.13])
    assert table.mean_difference.tolist() == pytest.approx([row["difference"]] * 3)
    ends = [row["estimates"][place][end] for place in (0, 1) for end in ("low", "high")]
    named = ["checkpoints_low", "checkpoints_high", "runs_low", "runs_high"]
    assert table[named].iloc[0].tolist() == pytest.approx(ends)
    assert table.log_odds_high.iloc[0] == np.inf  # no item was lost
