"""`study.py preview` on benchmarks of one's own."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from conftest import make_workflow, run
from selfrefine.store.locations import place_of
from selfrefine.study.open_study import open_study

REPOSITORY = Path(__file__).parent.parent
PROGRAM = [sys.executable, REPOSITORY / "scripts/study.py", "preview"]


def rows_of(number: int, word: str = "box") -> list[dict]:
    return [
        {"Question Text": f"{word} {i} holds {i + 3} keys. How many?", "one": f"{i + 3}", "two": f"{i}", "key": i % 2}
        for i in range(number)
    ]


def benchmark(name: str, **more) -> dict:
    return {
        "title": name.title(),
        "kind": "choice",
        "files": {"all": {"source": f"file:{name}.jsonl"}},
        "fields": {"question": "Question Text", "choices": ["one", "two"], "answer": "key", "answer_is": "index0"},
        "near_duplicate": 1.0,
        "splits": {"train": {"file": "all", "size": 20}, "test": {"file": "all", "size": 20}},
        **more,
    }


@pytest.fixture
def study(tmp_path):
    """A function that writes a study of benchmarks, and gives what preview says of one."""
    make_workflow(tmp_path)
    for name in ("config.yaml", "recordings"):
        (tmp_path / "config" / name).symlink_to(REPOSITORY / "config" / name)

    def preview(*arguments, rows: list[dict] | None = None, check: bool = True, **more):
        config = {
            "study": {"name": "mine", "tasks": ["mine"], "evaluate": ["mine", "far"]},
            "benchmarks": {"mine": benchmark("mine", **more), "far": benchmark("far")},
        }
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
        for name, found in (("mine", rows or rows_of(60)), ("far", rows_of(20, "shelf"))):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
        return run(*PROGRAM, "mine", *arguments, "--configfile", "mine.yaml", cwd=tmp_path, check=check)

    preview.folder = tmp_path
    return preview


def test_items_are_shown_as_they_are_asked_with_the_correct_option_marked(study):
    shown = study().stdout
    assert shown.startswith("Mine (mine), test split, from mine.jsonl")
    assert shown.count("--- item ") == 10 and "of 20, " in shown
    asked = re.search(r"Question: box (\d+) holds \d+ keys. How many\?\n   Choices:\n(..) A\) .*\n(..) B\)", shown)
    assert (asked[2] == "=>") == (int(asked[1]) % 2 == 0) and {asked[2], asked[3]} == {"=>", "  "}
    assert "Let's think step by step" in shown
    assert re.search(r"rows read: 60\n  not needed: 40\nitems: 20\n", shown)
    assert re.search(r"correct options:\n  A +10  #{40}\n  B +10  #{40}\n", shown)
    assert re.search(r"prompts in characters: median [\d.]+, longest \d+\n", shown)


def test_a_training_split_is_shown_without_what_other_benchmarks_test(study):
    rows = rows_of(100) + rows_of(5, "shelf")
    shown = study("--split", "train", "--items", "2", rows=rows).stdout
    assert shown.count("--- item ") == 2
    assert re.search(r"held apart from the test split of mine: \d+ the same", shown)
    assert "held apart from the test split of far: 5 the same, 0 nearly so" in shown


def test_items_are_shown_with_the_worked_examples_of_the_training_split(study):
    shown = study("--items", "1", shots=2).stdout
    assert shown.count("Question: ") == 3 and len(re.findall(r"The answer is [AB]\.", shown)) == 2
    assert (
        "Question: "
        in study("--items", "1", shots={"examples": [{"question": "q", "choices": ["a", "b"], "answer": "B"}]}).stdout
    )
    refused = study(
        "--items",
        "1",
        shots=2,
        splits={"train": {"file": "all", "size": 58}, "test": {"file": "all", "size": 20}},
        check=False,
    )
    assert refused.returncode == 1 and "REFUSED: " in refused.stdout and "lower `size`" in refused.stdout


@pytest.mark.parametrize(
    ("more", "rows", "message"),
    [
        ({}, [*rows_of(60), rows_of(61)[60] | {"key": None}], r"1 rows cannot be mapped.*drop_unmapped"),
        ({"splits": {"test": {"file": "all", "size": 90}, "train": {"file": "all"}}}, rows_of(60), "lower `size`"),
    ],
)
def test_what_the_workflow_would_refuse_is_shown_and_refused(study, more, rows, message):
    outcome = study(rows=rows, check=False, **more)
    assert outcome.returncode == 1 and outcome.stdout.count("--- item ") == 10
    assert re.search(f"REFUSED: .*{message}", outcome.stdout)


def test_dropped_rows_are_counted_with_examples(study):
    shown = study(rows=[*rows_of(60), rows_of(61)[60] | {"key": None}], drop_unmapped=True).stdout
    assert "dropped, answer unmapped: 1" in shown and "mine.jsonl:61: field 'key' is empty" not in shown.split("\n")[0]
    assert "mine.jsonl:61: " in shown


@pytest.mark.parametrize(
    ("arguments", "more", "message"),
    [
        (["--split", "train"], {"splits": {"test": {"file": "all"}}}, "splits: has no 'train' split"),
        (
            [],
            {"fields": benchmark("mine")["fields"] | {"question": "question text"}},
            r"mine\.jsonl:1: .*'Question Text'",
        ),
        ([], {"files": {"all": {"source": "file:gone.csv"}}}, "gone.csv"),
    ],
)
def test_faults_are_told_in_one_line(study, arguments, more, message):
    outcome = study(*arguments, check=False, **more)
    assert outcome.returncode == 1 and re.search(message, outcome.stderr) and "Traceback" not in outcome.stderr


def test_other_sources_are_fetched_to_their_place_in_the_store(study):
    halves = {"source": "file:half{n}.jsonl", "parts": 2}
    for number in (1, 2):
        found = rows_of(60)[30 * (number - 1) : 30 * number]
        (study.folder / f"half{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    path = re.search(r"from (results/\S+)", study(files={"all": halves}).stdout)[1]
    assert place_of(path).stage == "fetch" and (study.folder / path).with_name("record.json").is_file()
    assert re.search(r"from (results/\S+)", study(files={"all": halves}).stdout)[1] == path


def test_training_splits_are_held_apart_from_every_evaluated_benchmark(study, monkeypatch):
    study()
    monkeypatch.chdir(study.folder)
    artifacts = open_study([Path("mine.yaml")]).artifacts
    held_out = artifacts.items("mine", "train").inputs["held_out"]
    assert [one.names for one in held_out] == [("mine-test",), ("far-test",)]
    assert "held_out" not in artifacts.items("mine", "test").inputs


def test_shipped_studies_ask_for_the_same_settings_as_before(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    found = open_study([]).artifacts.items("asdiv", "train").settings
    assert set(found) == {"kind", "fields", "drop_unmapped", "near_duplicate", "name", "split"}
