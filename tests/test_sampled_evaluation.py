"""Several answers to each test item: tables, intervals, claims, figures."""

import csv
import json
import math

import numpy as np
import pytest
import yaml

from conftest import artifact, make_study, run, snakemake
from selfrefine.analysis import accuracy_tables, power, statistics, yield_tables
from selfrefine.analysis.pass_at_k import majority_at_k, of_answers, pass_at_k
from selfrefine.analysis.pass_rate import pass_rate
from selfrefine.analysis.verdicts import Answers
from selfrefine.errors import UserError
from selfrefine.report.page.changes import correct_by_item
from selfrefine.schema.config import Evaluation
from selfrefine.store.files import read_json, read_jsonl, write_jsonl

FACTS = dict.fromkeys((*accuracy_tables.FACTS, "seed", "checkpoint"), "") | {"evaluation": "boxes"}


def answers(*items: str, strict="+") -> list[dict]:
    """Rows of samples.jsonl: for each item a string of + (correct), - (incorrect) and . (none extracted)."""
    return [
        {
            "id": f"q{number}-{sample}",
            "item": f"q{number}",
            "sample": sample,
            "extracted": {"+": "A", "-": "B", ".": None}[mark],
            "legacy_extracted": "C",
            "strict": float(mark == strict),
            "legacy": 0.0,
            "chain": 0.0,
            "finish_reason": "stop",
            "tokens": 10 + sample,
        }
        for number, marks in enumerate(items)
        for sample, mark in enumerate(marks)
    ]


def cell(path, **facts) -> dict:
    return FACTS | {"arm": "instruct", "student": "s", "seed": 0, "samples": str(path)} | facts


def test_accuracy_is_the_mean_share_of_correct_answers(tmp_path):
    write_jsonl(tmp_path / "samples.jsonl", answers("++++", "+---", "----", "++.."))
    read = accuracy_tables.read_answers([cell(tmp_path / "samples.jsonl")], "strict")
    (row,) = accuracy_tables.accuracy_table(read, 0.95).to_dict("records")
    assert (row["n"], row["correct"], row["accuracy"]) == (4, 1.75, 0.4375)
    assert row["committed"] == 14 / 16 and row["mean_tokens"] == 11.5
    (arm,) = accuracy_tables.arms_table(read, 0.95).to_dict("records")
    assert (arm["accuracy"], arm["low"], arm["high"]) == (row["accuracy"], row["low"], row["high"])
    assert arm["interval"] == "wilson over samples"


def test_one_answer_to_each_item_is_counted_as_ever(tmp_path):
    rows = [{name: value for name, value in row.items() if name not in ("item", "sample")} for row in answers("+", "-")]
    write_jsonl(tmp_path / "samples.jsonl", rows)
    read = accuracy_tables.read_answers([cell(tmp_path / "samples.jsonl")], "strict")
    (row,) = accuracy_tables.accuracy_table(read, 0.95).to_dict("records")
    assert isinstance(row["correct"], int)
    assert (row["low"], row["high"]) == statistics.wilson(1, 2, 0.95)


def test_the_interval_is_wilsons_where_all_answers_to_an_item_agree_and_narrower_where_they_vary():
    agree = np.array([[1.0] * 6 + [0.0] * 4])
    _, low, high, _ = pass_rate(agree, 0.95)
    assert (low, high) == pytest.approx(statistics.wilson(6, 10, 0.95))
    _, lower, higher, _ = pass_rate(np.array([[0.75] * 6 + [0.375] * 4]), 0.95)
    assert higher - lower < high - low
    for constant in (0.0, 0.5, 1.0):
        value, low, high, _ = pass_rate(np.full((1, 10), constant), 0.95)
        assert 0 <= low <= value <= high <= 1


def test_the_interval_covers_the_true_rate():
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        rates = random.beta(0.8, 1.2, 60)
        shares = random.binomial(8, rates) / 8
        _, low, high, _ = pass_rate(shares[None], 0.95)
        covered += low <= 0.4 <= high
    assert 0.92 <= covered / 400 <= 0.99


def test_pass_and_majority_at_k_are_those_of_each_item(tmp_path):
    marks = ("++--", "+---", "....")
    write_jsonl(tmp_path / "samples.jsonl", answers(*marks))
    table = yield_tables.pass_table([cell(tmp_path / "samples.jsonl")], "strict", 0.95)
    found = {(row["measure"], row["k"]): row for row in table.to_dict("records")}
    assert sorted(found) == [(measure, k) for measure in ("maj", "pass") for k in (1, 2, 4)]
    for k in (1, 2, 4):
        assert found["pass", k]["value"] == pytest.approx(sum(pass_at_k(4, n, k) for n in (2, 1, 0)) / 3)
        votes = [[{"+": "A", "-": "B", ".": None}[mark] for mark in text] for text in marks]
        right = [[mark == "+" for mark in text] for text in marks]
        expected = sum(majority_at_k(a, c, k) for a, c in zip(votes, right, strict=True)) / 3
        assert found["maj", k]["value"] == pytest.approx(expected)
    assert found["pass", 1]["arm"] == "instruct" and found["pass", 1]["evaluation"] == "boxes"
    read = accuracy_tables.read_answers([cell(tmp_path / "samples.jsonl")], "strict")
    (arm,) = accuracy_tables.arms_table(read, 0.95).to_dict("records")
    assert all(
        found["pass", 1][name] == pytest.approx(arm[other])
        for name, other in (("value", "accuracy"), ("low", "low"), ("high", "high"))
    )


def test_the_other_extractor_votes_with_its_own_answers():
    (row,) = of_answers(answers("+"), "legacy")
    assert (row["extracted"], row["correct"]) == ("C", False)


def test_greedy_answers_make_no_curve(tmp_path):
    rows = [{name: value for name, value in row.items() if name not in ("item", "sample")} for row in answers("+", "-")]
    write_jsonl(tmp_path / "samples.jsonl", rows)
    assert yield_tables.pass_table([cell(tmp_path / "samples.jsonl")], "strict", 0.95).empty


def test_shares_are_compared_by_a_test_that_fits_them():
    treated, control = np.array([0.75, 0.5, 1.0, 0.25] * 10), np.array([0.5, 0.5, 0.75, 0.25] * 10)
    gained, lost, p = statistics.mcnemar(treated, control)
    assert (gained, str(lost)) == (5.0, "0.0") and 0 < p < 0.05
    estimate, low, high = statistics.difference(treated[None], control[None], 0.95)
    assert estimate == 0.125 and low < estimate < high
    assert statistics.mcnemar(treated, treated)[2] == 1.0
    parts = statistics.paired(treated[None], control[None])
    assert parts.shares and 0 < statistics.p_value(parts, 0.0) == p
    assert power.needed([parts], "above", 0.0, 0.05, "items").estimated is not None
    assert not statistics.paired(treated[None] > 0.5, control[None] > 0.5).shares


def test_a_claim_reads_shares_and_refuses_an_answer_that_stands_twice(tmp_path):
    write_jsonl(tmp_path / "samples.jsonl", answers("++--", "----"))
    assert Answers("strict").of(tmp_path / "samples.jsonl") == {"q0": 0.5, "q1": 0.0}
    write_jsonl(tmp_path / "twice.jsonl", answers("+") + answers("+"))
    with pytest.raises(UserError, match="item q0 is answered twice"):
        Answers("strict").of(tmp_path / "twice.jsonl")
    assert correct_by_item(str(tmp_path / "samples.jsonl"), "strict") == {"q0": False, "q1": False}


def test_samples_without_temperature_are_refused():
    with pytest.raises(ValueError, match="8 samples at temperature 0 would be the same"):
        Evaluation(samples=8)
    assert Evaluation(samples=8, temperature=0.7).top_p == 1


@pytest.mark.model
def test_a_study_with_several_answers_to_each_item_from_training_to_claims(tiny_model, tmp_path):
    path, config = make_study(tmp_path, tiny_model)
    config["evaluation"] |= {"samples": 4, "temperature": 1.0}
    config["study"]["seeds"] = [0, 1]
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    snakemake(tmp_path)
    rows = read_jsonl(artifact(tmp_path, "evaluate/tiny/base/boxes") / "samples.jsonl")
    assert len(rows) == 80 and len({row["item"] for row in rows}) == 20 and len({row["id"] for row in rows}) == 80
    assert len({row["text"] for row in rows}) > 20
    report = read_json(artifact(tmp_path, "evaluate/tiny/base/boxes") / "report.json")
    assert report["results"]["boxes"]["strict,all"] == pytest.approx(sum(row["strict"] for row in rows) / 80)
    folder = tmp_path / "results/tiny"
    with open(folder / "tables/pass_at_k.csv") as file:
        table = list(csv.DictReader(file))
    with open(folder / "tables/arms.csv") as file:
        arms = {(row["arm"], row["evaluation"]): row for row in csv.DictReader(file)}
    first = [row for row in table if (row["measure"], row["k"]) == ("pass", "1")]
    assert {row["arm"] for row in first} == {"baseline", "instruct", "refine"} and len(first) == 6
    for row in first:
        arm = arms[row["arm"], row["evaluation"]]
        assert (row["value"], row["low"], row["high"], row["seeds"]) == (
            *(arm[n] for n in ("accuracy", "low", "high")),
            arm["seeds"],
        )
    curve = [
        float(row["value"])
        for row in table
        if (row["arm"], row["evaluation"], row["measure"]) == ("refine", "boxes", "pass")
    ]
    assert len(curve) == 3 and curve == sorted(curve)
    assert (folder / "figures/pass-at-k-tiny.svg").exists()
    assert "pass@4" in (folder / "tables/paper/pass-at-k-tiny.md").read_text()
    claims = json.loads((folder / "claims.json").read_text())
    shown = [c for claim in claims["claims"] for part in claim["parts"] for c in part["comparisons"]]
    assert shown and all(0 <= comparison["p"] <= 1 and not math.isnan(comparison["low"]) for comparison in shown)
    outcome = run("python", "scripts/study.py", "trace", "--all", cwd=tmp_path, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    outcome = run(
        "python",
        "scripts/study.py",
        "trace",
        "results/tiny/tables/pass_at_k.csv",
        "arm=refine",
        cwd=tmp_path,
        check=False,
    )
    assert "items solved in" in outcome.stdout, outcome.stdout + outcome.stderr
