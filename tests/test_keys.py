"""The keys of artifacts: which of them a change of the configuration, the code, a command or a local file moves."""

import itertools
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from conftest import REPOSITORY
from selfrefine.errors import UserError
from selfrefine.store.commands import commands_of
from selfrefine.store.locations import place_of
from selfrefine.study.artifact import Artifact
from selfrefine.study.artifacts import Artifacts
from selfrefine.study.design import Study
from selfrefine.study.lookup import artifact_at

COMMANDS = commands_of(REPOSITORY / "rules")
STUDENT, TEACHER = "smollm2-135m", "qwen2.5-coder-1.5b"


def configuration(name: str = "config", changes: dict | None = None) -> dict:
    config: dict = {}
    for part in ("benchmarks", "recipes", name):
        update_config(config, yaml.safe_load((REPOSITORY / f"config/{part}.yaml").read_text()))
    update_config(config, changes or {})
    return config


def artifacts_of(config: dict, code=None, commands=None, contents=None) -> Artifacts:
    """A study's artifacts; `code`, `commands` and `contents` put others in the place of those here."""
    return Artifacts(
        Study.read(config),
        lambda stage: (code or {}).get(stage, "version 1"),
        lambda rule: {**COMMANDS, **(commands or {})}[rule],
        lambda path: (contents or {}).get(Path(path).name, f"content of {Path(path).name}"),
    )


def all_of(artifacts: Artifacts) -> dict[Path, Artifact]:
    """What the evaluations of a study are made of, by the path without the key."""
    found = {}
    for cell in artifacts.study.cells():
        if cell["arm"] == "teacher":
            wanted = artifacts.answers(cell["teacher"], cell["evaluation"], "test", "cot")
        else:
            wanted = artifacts.evaluation(cell["checkpoint"], cell["evaluation"])
        found |= {one.folder.parent: one for one in wanted.behind()}
    return found


BEFORE = {name: all_of(artifacts_of(configuration(name))) for name in ("config", "paper")}

EVERYTHING_OF_STUDENTS = {"instruct", "sample", "pair", "refine", "evaluate"}
# What changes, and the stages that then have at least one artifact with another key.
CHANGES = {
    "nothing": ({}, set()),
    "a learning rate": ({"instruct": {"learning_rate": 1e-3}}, EVERYTHING_OF_STUDENTS),
    "a student's own learning rate, the same": ({"students": {STUDENT: {"instruct": {"learning_rate": 8e-4}}}}, set()),
    "beta": ({"recipes": {"cot": {"objective": {"beta": 0.2}}}}, {"refine", "evaluate"}),
    "a recipe that is not used": ({"recipes": {"answer": {"objective": {"beta": 0.2}}}}, set()),
    "how many plain answers are sampled": ({"sampling": {"plain": 2}}, {"sample", "pair", "refine", "evaluate"}),
    "the hint of rationales that nobody draws": ({"sampling": {"hint": "It is {answer}."}}, set()),
    "plain prompts of choices, which nobody is asked for": ({"prompts": {"choice": {"plain": "So:"}}}, set()),
    "plain prompts of math": ({"prompts": {"math": {"plain": "So:"}}}, {"sample", "pair", "refine", "evaluate"}),
    "how chains are asked for, in choices": (
        {"prompts": {"choice": {"cot": "Think:"}}},
        {"teach", "export_task", "evaluate"},
    ),
    "the batch of a recorded teacher": ({"teachers": {TEACHER: {"batch_size": 3}}}, set()),
    "what a recorded teacher's weights would be": ({"teachers": {TEACHER: {"dtype": "float32"}}}, set()),
    "a teacher's wish": (
        {"teachers": {TEACHER: {"request": {"math": "Be brief, please."}}}},
        {"teach", "demonstrate", *EVERYTHING_OF_STUDENTS},
    ),
    "a licence": ({"models": {STUDENT: {"licence": "another"}}}, set()),
    "the size that a plan estimates with": ({"models": {STUDENT: {"parameters": 1.0}}}, set()),
    "threads": ({"threads": {"train": 7}}, set()),
    "what is computed in": ({"compute": "float32"}, set()),
    "a level of confidence": ({"statistics": {"level": 0.9}}, set()),
    "a default written out": ({"evaluation": {"style": "cot"}}, set()),
    "how long answers may be": ({"evaluation": {"max_tokens": 95}}, {"export_task", "evaluate"}),
    "the size of a training split": (
        {"benchmarks": {"asdiv": {"splits": {"train": {"size": 100}}}}},
        {"prepare", "teach", "demonstrate", *EVERYTHING_OF_STUDENTS},
    ),
    # No training split holds an item of a test split that is evaluated.
    "another benchmark's test split": (
        {"benchmarks": {"csqa": {"splits": {"test": {"size": 30}}}}},
        {"prepare", "teach", "export_task", "demonstrate", *EVERYTHING_OF_STUDENTS},
    ),
    "a student's batch": ({"students": {STUDENT: {"batch_size": 8}}}, {"sample", "pair", "refine", "evaluate"}),
}


def moved(before: dict[Path, Artifact], after: dict[Path, Artifact]) -> set[str]:
    """The stages that have an artifact with another key, or one that is there on one side alone."""
    return {
        (before.get(place) or after[place]).stage
        for place in {*before, *after}
        if place not in before or place not in after or before[place].key != after[place].key
    }


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_moves_the_keys_of_what_depends_on_it(name):
    changes, stages = CHANGES[name]
    assert moved(BEFORE["config"], all_of(artifacts_of(configuration(changes=changes)))) == stages


def test_an_added_seed_moves_nothing_and_a_removed_one_neither():
    one, two = (all_of(artifacts_of(configuration(changes={"study": {"seeds": seeds}}))) for seeds in ([0], [0, 1]))
    assert all(two[place].key == artifact.key for place, artifact in one.items())
    assert {artifact.stage for place, artifact in two.items() if place not in one} == EVERYTHING_OF_STUDENTS


def test_another_name_moves_keys_of_nothing_but_paths():
    """A student's name is a label: what it reads is the same, and so is its key."""
    config = configuration()
    renamed = configuration()
    renamed["students"]["small"] = renamed["students"].pop(STUDENT)
    renamed["study"]["students"] = ["small"]
    keys = [sorted(one.key for one in all_of(artifacts_of(each)).values()) for each in (config, renamed)]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    ("changed", "stages"),
    [
        ({"code": {"sample": "0123456789abcdef"}}, {"sample", "pair", "refine", "evaluate"}),
        (
            {"commands": {"pair": COMMANDS["pair"].replace(" {params.demonstrations}", "")}},
            {"pair", "refine", "evaluate"},
        ),
        ({"commands": {"export_task": COMMANDS["export_task"] + " --more"}}, {"export_task", "evaluate"}),
        ({"contents": {f"{TEACHER}.jsonl": "more"}}, {"teach", "demonstrate", *EVERYTHING_OF_STUDENTS}),
    ],
    ids=["code", "a flag deleted", "a flag added", "a recording"],
)
def test_code_commands_and_local_files_count(changed, stages):
    assert moved(BEFORE["config"], all_of(artifacts_of(configuration(), **changed))) == stages


def test_a_missing_recording_is_named():
    with pytest.raises(UserError, match=r"teachers\.qwen2\.5-coder-1\.5b\.recording: there is no file"):
        all_of(artifacts_of(configuration(), contents={f"{TEACHER}.jsonl": None}))


@pytest.mark.parametrize("name", BEFORE)
def test_a_path_leads_back_to_its_artifact(name):
    found = artifacts_of(configuration(name))
    chosen = itertools.islice(BEFORE[name].values(), 0, None, 7 if name == "paper" else 1)
    for artifact in chosen:
        place = place_of(artifact.folder)
        assert place == place_of(artifact.record) == (artifact.stage, artifact.names, artifact.key)
        assert artifact_at(found, *place).folder == artifact.folder


@pytest.mark.parametrize("path", ["results/tiny/summary.md", "results/store", "results/store/code", "raw.jsonl"])
def test_other_paths_are_none_of_an_artifact(path):
    assert place_of(path) is None


def test_no_two_artifacts_share_a_folder():
    for by_place in BEFORE.values():
        assert len({artifact.folder for artifact in by_place.values()}) == len(by_place)


def test_a_stale_path_is_refused_with_the_key_of_today():
    artifacts = artifacts_of(configuration())
    artifact = artifacts.evaluation(f"{STUDENT}/base", "asdiv")
    with pytest.raises(UserError, match=f"in this configuration its key is {artifact.key}"):
        artifact_at(artifacts, "evaluate", (STUDENT, "base", "asdiv"), "0" * 12)
    with pytest.raises(UserError, match="this configuration has no such artifact"):
        artifact_at(artifacts, "evaluate", (STUDENT, "base", "nothing"), artifact.key)


def test_twenty_rounds_have_short_paths_of_their_own():
    changes = {"schedules": {"long": {"steps": ["cot"], "rounds": 20}}, "study": {"recipes": ["long"]}}
    found = all_of(artifacts_of(configuration(changes=changes)))
    rounds = [artifact for artifact in found.values() if artifact.stage == "refine"]
    assert len(rounds) == 20
    assert len({artifact.key for artifact in rounds}) == 20
    assert (
        max(len(str(artifact.record)) for artifact in rounds) - min(len(str(artifact.record)) for artifact in rounds)
        == 1
    )


def test_commands_are_read_without_what_belongs_to_the_machine():
    for rule, command in COMMANDS.items():
        words = ("threads", "{log}", "allocator", "launcher", "vllm", "compute", "also", "--code", "--record {")
        assert not any(word in command for word in words), rule
    assert COMMANDS["ask"] == COMMANDS["teach"]
    assert COMMANDS["demonstrate"].startswith(
        'python "$SELFREFINE/demonstrate.py" --settings {params.settings:q} --answers'
    )
