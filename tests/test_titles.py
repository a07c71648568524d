"""Titles of students and teachers: people read them wherever there is one, and numbers stay filed under names."""

import collections
import csv
import re
import shutil
from pathlib import Path

import pytest
import yaml

from browser import browser, needs_chromium, opened
from conftest import snakemake
from page_study import PRICES, TITLES, PageStudy
from selfrefine.audit.integrity import AuditedResults
from selfrefine.audit.trace import trace
from selfrefine.report.details import chains_asked_plainly, details, differing
from selfrefine.report.model_names import AS_NAMED, Models
from selfrefine.report.page.assemble import assemble
from selfrefine.report.page.model_titles import model_title
from selfrefine.report.selection import in_layout
from selfrefine.report.study_tables import StudyTables
from selfrefine.report.summary import summary
from selfrefine.report.verdict_tables import claims_page, with_titles

STUDENT, TEACHER = "Ant <i>& Co</i> (135M)", "Qwen_2.5 | *big*"
GIVEN = Models({"ant-135m": STUDENT}, {"qwen2.5-1.5b": TEACHER}, model_title)


def test_a_name_stands_where_there_is_no_title():
    models = Models({"a": "A"}, {"a": "Other"})
    row = {"student": "a", "teacher": "a", "against_teacher": "b", "arm": "refine", "n": 3}
    assert models.titled(row) == row | {"student": "A", "teacher": "Other"}
    assert models.titled({"student": "", "arm": "teacher"}) == {"student": "", "arm": "teacher"}
    assert AS_NAMED.titled(row) == row


def test_the_page_guesses_the_spelling_only_where_no_title_is_given():
    models = Models({"smollm2-135m": "our smollm2-135m"}, {}, model_title)
    assert models.student("smollm2-135m") == "our smollm2-135m"
    assert models.teacher("qwen2.5-1.5b") == "Qwen2.5-1.5B"
    # A laid-out table has titles already: they are not spelled once more.
    assert models.either("our smollm2-135m") == "our smollm2-135m"
    assert models.either("qwen2.5-1.5b") == "Qwen2.5-1.5B"


def test_a_row_of_a_titled_table_leads_to_the_rows_that_it_shows():
    rows = [{"student": name, "arm": "refine", "stage": "refine", "share": "100"} for name in ("a", "b")]
    titled = [Models({"a": "The A"}).titled(row) for row in rows]
    laid = {"student": "The A", "arm": "refine", "stage": "refine"}
    assert in_layout("cost", "", laid, titled, {}, "") == titled[:1]


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = PageStudy(seeds=3, unrefined=(1,))
    return study, study.inputs(GIVEN)


def test_the_page_has_titles_throughout(made):
    text = assemble(made[1])
    # The configuration is shown as it is, and files by their names.
    shown = re.sub(r'"file":"[^"]*"', "", text).split("Configuration, with every default")[0]
    assert "Ant &lt;i&gt;&amp; Co" in shown and "Qwen_2.5 | *big*" in shown
    assert not re.search("ant-135m|Ant-135M", shown, re.IGNORECASE)
    assert not re.search(r"qwen2\.5-1\.5b", shown, re.IGNORECASE)


@needs_chromium
def test_the_page_shows_titles_as_text_in_a_browser(made, tmp_path):
    path = tmp_path / "index.html"
    path.write_text(assemble(made[1]), encoding="utf-8")
    with browser() as running, opened(running, path) as page:
        assert STUDENT in page.inner_text(".compared") and TEACHER in page.inner_text(".compared")
        assert STUDENT in page.inner_text("#reader .detail")
        page.goto(f"file://{path}#read=sampled")
        assert TEACHER in page.inner_text("#reader .detail")


def test_summary_details_and_claims_have_titles_throughout(made):
    study, inputs = made
    tables = StudyTables(inputs.tables.folder, GIVEN._replace(spell=str))
    claims = with_titles(study.claims(students=GIVEN.students), GIVEN)
    texts = [
        summary(tables, claims, TITLES, False),
        details(
            tables, TITLES, [*inputs.sources, source("student", "ant-135m"), source("teacher", "qwen2.5-1.5b")], PRICES
        ),
        claims_page(claims, 0.95, 5, TITLES),
    ]
    for text in texts:
        assert "ant-135m" not in text and "qwen2.5" not in text
    for text in texts[1:]:
        assert "Ant &lt;i&gt;& Co&lt;/i&gt; (135M)" in text and r"Qwen_2.5 \| \*big\*" in text


def source(role: str, name: str) -> dict[str, str]:
    return {"role": role, "name": name, "licence": "MIT", "source": "file:x", "sha256": ""}


def test_no_sentence_stands_twice_without_saying_of_which_set(made):
    study, inputs = made
    text = details(inputs.tables, TITLES, inputs.sources, PRICES)
    lists = [line for line in text.splitlines() if line.startswith("- ")]
    again = [line for line, number in collections.Counter(lists).items() if number > 1]
    assert lists and again == []
    paths = [{**row, "style": "plain", "seed": seed} for row in inputs.tables.paths()[:1] for seed in "012"]
    lines = chains_asked_plainly([*paths, {**paths[0], "teacher": "another"}], TITLES)
    assert len(set(lines)) == 4 and "instructed by another" in lines[-1] and "seed 2, asked plainly on" in lines[2]
    rows = inputs.tables.comparisons()
    told = differing([{**row, "differs": "torch: 1 and 2"} for row in rows], TITLES)
    assert len(told) == 1 and told[0].startswith("torch: 1 and 2: ")
    sides = told[0].removeprefix("torch: 1 and 2: ").split("; ")
    assert len(sides) == len(set(sides)) == len(rows)


@pytest.mark.model
def test_a_studys_titles_reach_its_results_and_its_numbers_are_still_traced(finished, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(finished[0], folder, symlinks=True)
    path = folder / "config/tiny.yaml"
    config = yaml.safe_load(path.read_text())
    config["students"]["tiny"]["title"], config["teachers"]["oracle"]["title"] = "Tiny & Co", "The *Oracle*"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    before = {stage.name for stage in (folder / "results/store").iterdir()}
    made_before = set((folder / "results/store").glob("*/**/record.json"))
    snakemake(folder)
    made = set((folder / "results/store").glob("*/**/record.json")) - made_before
    stages = {record.relative_to(folder / "results/store").parts[0] for record in made}
    assert stages == {"claims", "flips", "layout", "listing", "page", "plot", "summarise"} <= before
    shown = folder / "results/tiny"
    for name in ("summary.md", "details.md", "claims.md", "tables/paper/transfer-tiny.md", "tables/paper/cost.tex"):
        text = (shown / name).read_text()
        assert "Tiny" in text and not re.search(r"\btiny\b(?!\.)", text.replace("-tiny", "")), name
    # A title may be drawn in several lines.
    drawn = re.findall(r">([^<]*)</text>", (shown / "figures/accuracy.svg").read_text())
    assert "Tiny &amp; Co" in " ".join(drawn)
    assert "The *Oracle*" in (shown / "figures/training.svg").read_text()
    results = AuditedResults(folder / "results")
    for name in ("transfer-tiny", "teachers", "lengths", "cost", "yields"):
        table = shown / f"tables/paper/{name}.csv"
        for row in csv.DictReader(table.read_text().splitlines()):
            assert not {"tiny", "oracle"} & {*row.values()}
            column = next(iter(row))
            assert " fetch " in "\n".join(trace(results, str(table), {column: row[column]})), table
    chain = "\n".join(trace(results, str(shown / "figures/claims.svg"), {"claim": "1"}))
    assert "correct in" in chain and results.faults == {}
    assert Path(shown / "tables/accuracy.csv").read_text().count("tiny")
