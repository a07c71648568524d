"""Refinements that had too few pairs: marked wherever they stand, and left out of claims unless a key says otherwise."""

import csv
import json
import re
from pathlib import Path

import pytest

from conftest import record_model, run
from page_study import PRICES, TITLES, PageStudy, checkpoint_of
from selfrefine.analysis.unrefined import of_unrefined
from selfrefine.report import paper_tables
from selfrefine.report.details import details
from selfrefine.report.page.assemble import assemble
from selfrefine.report.selection import of_layout
from selfrefine.report.summary import summary
from selfrefine.report.verdict_tables import claims_page
from selfrefine.store.files import read_json
from selfrefine.study.checkpoint_names import instructed, refined

MARK, NBSP = "†", "\N{NO-BREAK SPACE}"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """(study, what the page reads of it): three seeds; seed 1 had no pairs."""
    monkeypatch.chdir(tmp_path)
    study = PageStudy(seeds=3, unrefined=(1,))
    return study, study.inputs()


def refined_in(rows: list[dict]) -> list[tuple[str, int]]:
    return [(row.get("seed", ""), row["unrefined"]) for row in rows if row["arm"] == "refine"]


def test_every_table_says_how_many_of_a_rows_checkpoints_are_unrefined(made):
    tables = made[1].tables
    assert sorted(set(refined_in(tables.accuracy()))) == [("0", 0), ("1", 1), ("2", 0)]
    assert sorted(set(refined_in(tables.comparisons()))) == [("0", 0), ("1", 1), ("2", 0)]
    for rows in (tables.arms(), tables.lengths(), tables.costs()):
        assert {number for _, number in refined_in(rows)} == {1}
        assert {row["unrefined"] for row in rows if row["arm"] != "refine"} == {0}
    assert [(row["seed"], row["unrefined"]) for row in tables.pairs()] == [("0", 0), ("1", 1), ("2", 0)]
    of_stages = [(row["stage"], row["unrefined"]) for row in tables.stages()]
    assert of_stages.count(("refine", 1)) == 1 and sum(number for _, number in of_stages) == 1


def test_a_checkpoint_is_unrefined_if_one_of_its_refinements_was_not_made():
    start = instructed("s", "refine", "sums", 100, 0)
    first = refined(start, "sums", "cot", 100, 0)
    second = refined(first, "sums", "cot", 100, 0)
    other = refined(start, "sums", "cot-2", 100, 0)
    names = {"start": start, "first": first, "second": second, "other": other, "teacher": ""}
    cells = [{"checkpoint": name, "samples": file} for file, name in names.items()]
    assert of_unrefined(cells, [first]) == {"first", "second"}
    assert of_unrefined(cells, [second]) == {"second"}
    assert of_unrefined(cells, []) == set()


def comparisons(claims: list[dict], claim: int) -> list[dict]:
    mine = (part for found in claims if found["claim"] == claim for part in found["parts"])
    return [row for part in mine for row in part["comparisons"]]


def test_claims_leave_unrefined_seeds_out_of_both_sides(made):
    study, _ = made
    (row,) = comparisons(study.claims(), 2)
    assert (row["seeds"], row["left_out"], row["unrefined"]) == (2, [1], [])
    assert [seed["seed"] for seed in row["by_seed"]] == [0, 2]
    named = [*row["samples"], *row["against_samples"]]
    assert len(named) == 4 and not any("seed1" in name for name in named)
    (kept,) = comparisons(study.claims(), 1)
    assert (kept["seeds"], kept["left_out"]) == (3, [])
    (other,) = comparisons(study.claims(), 3)
    assert len(other["against_samples"]) == 1 and other["seeds"] == 2


def test_a_key_counts_them(made):
    (row,) = comparisons(made[0].claims(count_unrefined=True), 2)
    assert (row["seeds"], row["left_out"], row["unrefined"]) == (3, [], [1])


def test_a_claim_whose_refinements_all_lacked_pairs_is_not_tested(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = PageStudy(seeds=2, unrefined=(0, 1))
    for counted, verdict in ((False, "not tested"), (True, "contradicted")):
        (claim,) = (found for found in study.claims(count_unrefined=counted) if found["claim"] == 3)
        assert claim["verdict"] == verdict
    (part,) = (part for part in claims_by_number(study)[2]["parts"] if "out-family" in part["title"])
    assert (part["verdict"], part["missing"]) == ("not tested", "refinements with enough pairs to learn from")
    text = claims_page(study.claims(), 0.95, 5, TITLES)
    assert "Not tested: the study would need refinements with enough pairs to learn from." in text


def claims_by_number(study: PageStudy) -> dict[int, dict]:
    return {claim["claim"]: claim for claim in study.claims()}


def test_the_refinements_that_had_pairs_do_not_support_a_claim_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = PageStudy(200, seeds=2)
    assert claims_by_number(study)[2]["parts"][1]["verdict"] == "supported"
    # A second benchmark to learn from, whose refinements lacked pairs.
    more = []
    for cell in study.index["cells"]:
        if cell["arm"] in ("instruct", "refine") and cell["evaluation"] == "sums":
            own = {"task": "words", "evaluation": "words", "refine_task": cell["refine_task"] and "words"}
            name = cell["checkpoint"].replace("/sums/", "/words/")
            path = Path(cell["samples"].replace("seed", "words-seed"))
            path.parent.mkdir(parents=True)
            path.write_bytes(Path(cell["samples"]).read_bytes())
            more.append({**cell, **own, "checkpoint": name, "samples": str(path)})
            log = path.with_name("training.jsonl")
            log.write_text("")
            stage = "refine" if cell["arm"] == "refine" else "instruct"
            record = {"stage": stage, "figures": {"updates": 0 if stage == "refine" else 1}}
            log.with_name("record.json").write_text(json.dumps(record))
            study.index["training"][name] = str(log)
    study.index["cells"] += more
    part = claims_by_number(study)[2]["parts"][1]
    assert [row["verdict"] for row in part["comparisons"]] == ["supported"]
    assert (part["verdict"], part["missing"]) == ("undecided", "refinements with enough pairs to learn from")


def test_summary_and_details_mark_them(made):
    study, inputs = made
    text = summary(inputs.tables, study.claims(), TITLES, False)
    assert f"refine {MARK} (1 of 3 seeds) " in text
    assert (
        f"- {MARK} 1 of 3 refinements had too few pairs and left the student as it was; claims leave them out." in text
    )
    counted = summary(inputs.tables, study.claims(True), TITLES, True)
    assert "as it was; claims count them." in counted
    long_form = details(inputs.tables, TITLES, inputs.sources, PRICES)
    marked = [line for line in long_form.splitlines() if MARK in line and line.startswith("| ")]
    sections = re.split(r"\n## ", long_form)
    for title in ("Accuracy", "Differences", "How the answers look", "How long", "Preference pairs", "What one"):
        (section,) = (one for one in sections if one.startswith(title))
        assert MARK in section, title
    assert all("refine" in line or "unrefined" in line for line in marked)
    assert "too few pairs to learn from" in long_form


def test_laid_out_tables_have_a_column_for_them_where_there_are_some(made, tmp_path, monkeypatch):
    _, inputs = made
    tables = inputs.tables
    laid = {
        "transfer": paper_tables.transfer(
            of_layout("transfer", "ant-135m", tables.arms()), TITLES, "ant-135m", [*TITLES]
        ),
        "lengths": paper_tables.lengths(of_layout("lengths", "", tables.lengths()), TITLES),
        "yields": paper_tables.yields(of_layout("yields", "", tables.pairs()), TITLES),
        "cost": paper_tables.cost(of_layout("cost", "", tables.costs()), PRICES),
    }
    shown = {"yields": "yes", "cost": "1 of 3 checkpoints"}
    for name, table in laid.items():
        rows = list(csv.DictReader(table.csv().splitlines()))
        column = [row[f"unrefined {MARK}"] for row in rows]
        assert set(column) == {"", shown.get(name, "1 of 3 seeds")}, name
        assert f"Unrefined {MARK}: had too few pairs" in table.caption
        assert MARK not in table.latex() and r"\dag{}" in table.latex()
    (tmp_path / "all").mkdir()
    monkeypatch.chdir(tmp_path / "all")
    refined_all = PageStudy(seeds=2).inputs().tables
    without = paper_tables.lengths(of_layout("lengths", "", refined_all.lengths()), TITLES)
    assert MARK not in without.markdown()


def test_the_page_marks_them_and_says_what_claims_do(made):
    study, inputs = made
    text = assemble(inputs)
    assert f"then refined, seed 1{NBSP}{MARK}" in text and f"then refined, seed 0{NBSP}{MARK}" not in text
    assert "Claims leave them out." in text and f"1 seed left out{NBSP}{MARK}" in text
    counted = assemble(study.inputs(count_unrefined=True))
    assert "Claims count them as refined." in counted and "seed left out" not in counted


def test_the_page_of_a_study_without_them_has_no_mark(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = assemble(PageStudy(seeds=2).inputs())
    assert MARK not in text.split("<script>")[0]


@pytest.mark.parametrize("counted", [False, True])
def test_the_program_of_the_claims_reads_the_records_of_trainings(made, tmp_path, counted):
    study, _ = made
    for path in Path("results/store").rglob("record.json"):
        known = read_json(path)
        record_model(path.parent, stage=known["stage"], figures=known["figures"])
    index = tmp_path / "listing/tables.json"
    index.parent.mkdir()
    index.write_text(json.dumps(study.index))
    settings = {"level": 0.95, "margin": 5, "extractor": "strict", "titles": TITLES, "count_unrefined": counted}
    settings |= {"looks": None, "spending": "obrien-fleming"}
    settings |= {"students": {"ant-135m": "Ant <1>"}, "teachers": {"qwen2.5-1.5b": "Qwen"}}
    place = tmp_path / "out/record.json"
    run("python", PROGRAM, "--settings", json.dumps(settings), "--index", index, "--record", place, cwd=tmp_path)
    (row,) = comparisons(read_json(place.with_name("claims.json"))["claims"], 2)
    assert (row["seeds"], row["left_out"]) == ((3, []) if counted else (2, [1]))
    # Numbers are by name, and what people read by title.
    assert (row["student"], row["teacher"]) == ("ant-135m", "qwen2.5-1.5b")
    text = place.with_name("claims.md").read_text()
    assert "| Ant &lt;1&gt; " in text and "ant-135m" not in text and "qwen2.5" not in text
    assert (" (1 left out †)" in text, " (1 †)" in text) == (not counted, counted)
    logs = [Path(study.index["training"][checkpoint_of("refine", seed)]) for seed in range(3)]
    assert {str(log.with_name("record.json")) for log in logs} < set(read_json(place)["inputs"])


PROGRAM = Path(__file__).parent.parent / "scripts/claims.py"
