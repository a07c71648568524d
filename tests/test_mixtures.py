"""Mixtures of teachers: who is drawn for an item, who is asked, what depends on a share, what it cost."""

import collections
import copy
import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml

from conftest import artifact, make_study, nothing_to_do, planned_rules, snakemake
from selfrefine.analysis.jobs import Records, parts_taken
from selfrefine.data.mixtures import asked, teacher_for
from selfrefine.errors import UserError
from selfrefine.schema.stages import Drawn, MixSettings, TeachSettings
from selfrefine.store.files import read_json, read_jsonl
from selfrefine.study import stage_settings
from selfrefine.study.artifacts import Artifacts
from selfrefine.study.design import Study
from selfrefine.study.mixtures import drawn_for, parts_of
from test_keys import COMMANDS, configuration

ITEMS = [f"{number:016x}" for number in range(4000)]
ONE = {"family": "qwen", "engine": "transformers", "model": "qwen2.5-coder-1.5b"}
TEACHERS = {
    "short": {**ONE, "request": {"math": "Be brief."}, "generation": {"max_tokens": 96}},
    "long": {**ONE, "request": {"math": "Explain every step."}, "generation": {"max_tokens": 384}},
    "mixed": {"mixture": {"short": 0.8, "long": 0.2}},
}


def study_with(teachers: dict | None = None, named=("short", "long", "mixed"), **changes) -> dict:
    config = configuration("config", changes)
    config["teachers"] = copy.deepcopy(TEACHERS | (teachers or {}))
    config["study"]["teachers"] = list(named)
    return config


def artifacts_of(config: dict) -> Artifacts:
    return Artifacts(Study.read(config), lambda stage: "version 1", COMMANDS.__getitem__, lambda path: "content")


def keys(config: dict, stages=("teach", "mix", "demonstrate", "instruct")) -> dict[tuple, str]:
    """The keys of the artifacts behind each instructed checkpoint, by stage and names."""
    artifacts = artifacts_of(config)
    rows = [row for row in artifacts.study.checkpoints() if row["arm"] == "instruct"]
    found = (one for row in rows for one in artifacts.checkpoint(row["checkpoint"]).behind())
    return {(one.stage, *one.names): one.key for one in found if one.stage in stages}


def drawn(**shares: float) -> dict[str, str]:
    return {item: teacher_for(item, MixSettings(shares=shares)) for item in ITEMS}


# Draws.


def test_each_teacher_is_drawn_as_often_as_its_share_says():
    counts = collections.Counter(drawn(short=0.7, long=0.2, other=0.1).values())
    for teacher, share in (("short", 0.7), ("long", 0.2), ("other", 0.1)):
        # Four standard deviations of a binomial count.
        assert abs(counts[teacher] - share * len(ITEMS)) < 4 * (len(ITEMS) * share * (1 - share)) ** 0.5


def test_where_a_share_grows_items_only_move_to_its_teacher():
    before, after = drawn(short=0.8, long=0.15, other=0.05), drawn(short=0.64, long=0.32, other=0.04)
    moved = {item for item in ITEMS if before[item] != after[item]}
    assert 0.1 * len(ITEMS) < len(moved) < 0.3 * len(ITEMS)
    assert {after[item] for item in moved} == {"long"}


def test_another_seed_draws_others_and_the_order_of_teachers_changes_nothing():
    shares = {"short": 0.5, "long": 0.5}
    turned = MixSettings(shares=dict(reversed(shares.items())))
    one, other = MixSettings(shares=shares), MixSettings(shares=shares, seed=1)
    assert [teacher_for(item, one) for item in ITEMS] == [teacher_for(item, turned) for item in ITEMS]
    differs = sum(teacher_for(item, one) != teacher_for(item, other) for item in ITEMS)
    assert 0.45 * len(ITEMS) < differs < 0.55 * len(ITEMS)


def test_a_teacher_is_asked_what_any_mixture_draws_for_it():
    items = {item: {} for item in ITEMS}
    one, other = MixSettings(shares={"a": 0.3, "b": 0.7}), MixSettings(shares={"a": 0.5, "c": 0.5}, seed=3)
    found = asked(items, Drawn(teacher="a", mixtures=[one, other]))
    assert set(found) == {item for item in ITEMS if "a" in (teacher_for(item, one), teacher_for(item, other))}
    assert asked(items, None) == items


# What a configuration asks for.


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"mixture": {"short": 0.8, "lnog": 0.2}}, "teachers.mixed.mixture.lnog: 'lnog' is not defined; did you mean"),
        ({"mixture": {"short": 0.8, "long": 0.3}}, "teachers.mixed: mixture: the shares sum to 1.1; make it 1"),
        ({"mixture": {"short": 1.0, "long": 0.0}}, "mixture.short: 1 is no share above 0 and below 1"),
        ({"mixture": {"short": 1.0}}, "mixture: needs two teachers or more"),
        ({"mixture": {"short": 0.5, "long": 0.5}, "engine": "vllm"}, "set 'engine' in their own entries"),
        ({"mixture": {"short": 0.5, "long": 0.5}, "family": "qwen"}, "set 'family' in their own entries"),
        ({"mixture": {"short": 0.5, "long": 0.5}, "generation": {"max_tokens": 9}}, "set 'generation' in their own"),
        ({"family": "qwen"}, "needs the key 'engine', or is a mixture"),
        ({"engine": "transformers", "model": "qwen2.5-coder-1.5b"}, "needs the key 'family', or is a mixture"),
        ({**ONE, "mixture_seed": 3}, "mixture_seed: draws nothing without the key 'mixture'"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(entry, said):
    with pytest.raises(UserError) as error:
        Study.read(study_with({"mixed": entry}))
    assert said in str(error.value)


def test_a_mixture_of_mixtures_is_refused():
    with pytest.raises(UserError, match=r"teachers\.again\.mixture\.mixed: is a mixture itself"):
        Study.read(study_with({"again": {"mixture": {"mixed": 0.5, "long": 0.5}}}))


def test_a_mixture_reads_back_as_it_was_written():
    study = Study.read(study_with())
    assert yaml.safe_load(study.yaml())["teachers"]["mixed"] == {
        "title": None,
        "mixture": {"long": 0.2, "short": 0.8},
        "mixture_seed": 0,
    }
    assert Study.read(yaml.safe_load(study.yaml())).teachers == study.teachers
    assert "mixture" not in yaml.safe_load(study.yaml())["teachers"]["short"]


def test_a_mixture_is_of_a_family_that_its_teachers_agree_on():
    config = study_with()
    assert {row["family"] for row in Study.read(config).checkpoints() if row["teacher"] == "mixed"} == {"out"}
    config["students"]["smollm2-135m"]["family"] = "qwen"
    assert {row["family"] for row in Study.read(config).checkpoints() if row["teacher"] == "mixed"} == {"in"}
    config["teachers"]["long"]["family"] = "llama"
    assert {row["family"] for row in Study.read(config).checkpoints() if row["teacher"] == "mixed"} == {""}


def test_teachers_that_teach_by_themselves_are_asked_every_item():
    study = Study.read(study_with())
    assert drawn_for(study, "short", "train") is None and drawn_for(study, "short", "test") is None
    assert "drawn" not in stage_settings.settings(
        study, "teach", teacher="short", task="asdiv", split="train", style="cot"
    )
    alone = Study.read(study_with(named=("short", "mixed")))
    settings = stage_settings.settings(alone, "teach", teacher="long", task="asdiv", split="train", style="cot")
    assert settings["drawn"] == {
        "teacher": "long",
        "mixtures": [{"shares": {"long": 0.2, "short": 0.8}, "seed": 0}],
    }
    assert TeachSettings.model_validate(settings).drawn == drawn_for(alone, "long", "train")
    assert parts_of(alone, "mixed") == ["long", "short"]


def test_a_teacher_no_student_learns_from_is_asked_drawn_training_items_and_every_test_item():
    config = study_with()
    config["students"]["smollm2-135m"]["teachers"] = ["short", "mixed"]
    study = Study.read(config)
    assert drawn_for(study, "long", "train") is not None
    assert drawn_for(study, "long", "test") is None


def test_one_model_that_is_asked_in_two_ways_is_fetched_once():
    artifacts = artifacts_of(study_with())
    answers = [artifacts.answers(name, "asdiv", "train", "cot") for name in ("short", "long")]
    assert answers[0].inputs["model"] == answers[1].inputs["model"]
    assert answers[0].key != answers[1].key
    sources = [row for row in artifacts.study.sources() if row["role"] == "teacher"]
    assert [row["name"] for row in sources] == ["short", "long"]
    assert len({row["sha256"] for row in sources}) == 1


# Keys.


def changed(before: dict, after: dict) -> set[tuple[str, str]]:
    assert before.keys() == after.keys()
    return {(stage, names[0]) for stage, *names in before if before[stage, *names] != after[stage, *names]}


def test_a_share_changes_what_depends_on_the_mixture_alone():
    before = keys(study_with())
    after = keys(study_with({"mixed": {"mixture": {"short": 0.7, "long": 0.3}}}))
    moved = {key for key in before if before[key] != after[key]}
    assert moved == {key for key in before if "mixed" in key[1] or key[-1].startswith("mixed-")}
    assert {stage for stage, *_ in moved} == {"mix", "demonstrate", "instruct"}


def test_a_share_changes_what_a_teacher_is_asked_for_the_mixture_alone():
    named = ("short", "mixed")
    before = keys(study_with(named=named))
    after = keys(study_with({"mixed": {"mixture": {"short": 0.7, "long": 0.3}}}, named=named))
    moved = {key[:2] for key in before if before[key] != after[key]}
    assert {("teach", "long"), ("mix", "mixed"), ("demonstrate", "mixed")} <= moved
    assert ("teach", "short") not in moved and ("demonstrate", "short") not in moved


def test_a_seed_of_the_draw_is_another_mixture():
    before, after = keys(study_with()), keys(study_with({"mixed": {**TEACHERS["mixed"], "mixture_seed": 1}}))
    assert {key[:2] for key in before if before[key] != after[key]} >= {("mix", "mixed"), ("demonstrate", "mixed")}
    assert not any(before[key] != after[key] for key in before if key[0] == "teach")


def test_a_study_without_mixtures_keeps_its_keys():
    with_mixture, without = keys(study_with()), keys(study_with(named=("short", "long")))
    assert without.items() <= with_mixture.items()


# Costs.


def test_a_mixture_costs_the_answers_that_it_takes():
    folder, mix = "results/store/teach", "results/store/mix/mixed/x/0123456789ab/record.json"
    asked_all = f"{folder}/long/x/0123456789ab/record.json"
    items = "results/store/prepare/long/0123456789ab/items.jsonl"
    mixed = {
        "figures": {"mixture": {"long": {"taken": 20, "of": 100}}},
        "inputs": {items: {}, f"{folder}/long/x/0123456789ab/answers.jsonl": {}},
    }
    known = {mix: mixed, asked_all: {"figures": {}, "inputs": {}}}
    records = Records([mix, asked_all], known.__getitem__)
    assert parts_taken({mix, asked_all}, records) == {asked_all: 0.2}
    assert parts_taken({asked_all}, records) == {}


# A whole study.


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, tiny_model) -> Path:
    """A finished study of two teachers of one model, which is asked in two ways, and their mixture."""
    folder = tmp_path_factory.mktemp("mixed") / "study"
    folder.mkdir()
    path, config = make_study(folder, tiny_model)
    one = {"family": "tiny", "engine": "transformers", "model": "tiny", "dtype": "float32"}
    config["teachers"] = {
        "short": {**one, "request": {"choice": "Be brief."}, "generation": {"max_tokens": 6}},
        "long": {**one, "request": {"choice": "Explain."}, "generation": {"max_tokens": 12}},
        "mixed": {"title": "Both ways", "mixture": {"short": 0.6, "long": 0.4}},
        "rarely": {"mixture": {"short": 0.5, "only": 0.5}},
        "only": {**one, "family": "other", "generation": {"max_tokens": 8}},
    }
    config["demonstrations"] = {"keep_wrong": True, "keep_cut": True}
    config["study"]["teachers"] = ["short", "long", "mixed", "rarely"]
    config["study"]["arms"] = ["baseline", "instruct"]
    config["instruct"]["epochs"] = 1
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    snakemake(folder)
    return folder


def test_a_study_of_a_mixture_ends_with_its_tables_and_page(mixed):
    assert nothing_to_do(snakemake(mixed, "-n"))
    assert len(list(mixed.glob("results/store/fetch_model/*/*/record.json"))) == 1
    accuracy = list(csv.DictReader((mixed / "results/tiny/tables/accuracy.csv").open()))
    families = {row["teacher"]: row["family"] for row in accuracy if row["arm"] == "instruct"}
    assert families == {"short": "in", "long": "in", "mixed": "in", "rarely": ""}
    assert {row["teacher"] for row in accuracy if row["arm"] == "teacher"} == {"short", "long", "mixed", "rarely"}
    assert "Both ways" in (mixed / "results/tiny/index.html").read_text()


def test_each_demonstration_says_whose_answer_it_is(mixed):
    rows = read_jsonl(artifact(mixed, "demonstrate/mixed/boxes") / "demonstrations.jsonl")
    settings = MixSettings(shares={"short": 0.6, "long": 0.4})
    of = {name: artifact(mixed, f"teach/{name}/boxes-train-cot") / "answers.jsonl" for name in ("short", "long")}
    texts = {name: {row["item"]: row["text"] for row in read_jsonl(path)} for name, path in of.items()}
    assert {row["teacher"] for row in rows} == {"short", "long"}
    for row in rows:
        assert row["teacher"] == teacher_for(row["item"], settings)
        assert row["text"] == texts[row["teacher"]][row["item"]]
    record = read_json(artifact(mixed, "mix/mixed/boxes-train-cot") / "record.json")
    assert sum(part["taken"] for part in record["figures"]["mixture"].values()) == 30
    assert {part["of"] for part in record["figures"]["mixture"].values()} == {30}
    assert all("teacher" not in row for row in read_jsonl(of["short"]))


def test_a_teacher_that_only_a_mixture_names_is_asked_no_other_items(mixed):
    settings = MixSettings(shares={"short": 0.5, "only": 0.5})
    for split in ("train", "test"):
        rows = read_jsonl(artifact(mixed, f"teach/only/boxes-{split}-cot") / "answers.jsonl")
        items = read_jsonl(artifact(mixed, f"prepare/boxes-{split}") / "items.jsonl")
        wanted = {item["id"] for item in items if teacher_for(item["id"], settings) == "only"}
        assert {row["item"] for row in rows} == wanted
        assert 0 < len(wanted) < len(items)


def test_the_cost_of_a_mixture_counts_each_item_once(mixed):
    names = [str(path.relative_to(mixed)) for path in mixed.glob("results/store/*/**/record.json")]
    read = {name: read_json(mixed / name) for name in names}
    behind = {name for name in names if "/teach/" in name and "boxes-train" in name and "/only/" not in name}
    behind |= {name for name in names if "/mix/mixed/boxes-train" in name}
    taken = parts_taken(behind, Records(names, read.__getitem__))
    assert sum(taken.values()) == pytest.approx(1)
    costs = list(csv.DictReader((mixed / "results/tiny/tables/costs.csv").open()))
    assert {"teach", "mix"} <= {row["stage"] for row in costs}


def test_another_share_plans_what_depends_on_the_mixture_alone(mixed, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(mixed, folder, symlinks=True)
    path = folder / "config/tiny.yaml"
    config = yaml.safe_load(path.read_text())
    config["teachers"]["mixed"]["mixture"] = {"short": 0.3, "long": 0.7}
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    planned = planned_rules(snakemake(folder, "-n"))
    assert "teach" not in planned and "sample" not in planned
    assert planned["mix"] == 3  # to the training split and two test splits
    assert (planned["demonstrate"], planned["instruct"], planned["evaluate"]) == (1, 1, 2)


def test_a_mixture_with_an_answer_missing_is_refused(mixed, tmp_path):
    """The program says whose answer is lacking, where files of another study are given to it."""
    import subprocess
    import sys

    items = artifact(mixed, "prepare/boxes-train") / "items.jsonl"
    one = artifact(mixed, "teach/only/boxes-train-cot") / "answers.jsonl"
    settings = json.dumps({"shares": {"only": 0.5, "short": 0.5}, "seed": 7})
    other = artifact(mixed, "teach/short/boxes-train-cot") / "answers.jsonl"
    command = [sys.executable, "scripts/mix.py", "--settings", settings, "--items", str(items), "--answers", str(one)]
    found = subprocess.run(
        [*command, str(other), "--record", str(tmp_path / "mix/record.json")], cwd=mixed, capture_output=True, text=True
    )
    assert found.returncode == 1
    assert "which is drawn for 'only'" in found.stderr
