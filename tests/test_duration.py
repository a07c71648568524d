"""What is said about a study's time before it runs, with the rate of a machine that is made up."""

import json
import subprocess

import pytest
import yaml
from snakemake.utils import update_config

from conftest import REPOSITORY
from selfrefine.schema.assumptions import Assumptions
from selfrefine.study import duration
from selfrefine.study.design import Study

ASSUMED = Assumptions.read(yaml.safe_load((REPOSITORY / "config/assumptions.yaml").read_text()))


def study(name: str, **changes) -> Study:
    config: dict = {}
    for part in ("benchmarks", "recipes", name):
        update_config(config, yaml.safe_load((REPOSITORY / f"config/{part}.yaml").read_text()))
    update_config(config, changes)
    return Study.read(config)


@pytest.fixture
def rate(monkeypatch, tmp_path):
    """Makes the measured rate one's own, where nothing is prepared yet; the commands that asked for it."""
    monkeypatch.chdir(tmp_path)
    asked: list[list[str]] = []

    def measure(gflops: float | None):
        def answer(command, **_):
            asked.append(command)
            return subprocess.CompletedProcess(command, 0, json.dumps({"computed_in": "float32", "gflops": gflops}))

        monkeypatch.setattr(duration.subprocess, "run", answer)
        return asked

    return measure


QUICKSTART = [("evaluate", {"checkpoint": "smollm2-135m/base", "task": "asdiv"})] * 9


def test_the_time_follows_the_measured_rate(rate):
    said = []
    for gflops in (100, 200):
        rate(gflops)
        said.append(duration.expected_duration(study("config"), ASSUMED, QUICKSTART, cores=2))
    # 200 items of 110 tokens read and 96 written with 0.1345 billion parameters, and the start of nine jobs.
    seconds = [9 * (22000 * 269e6 / 1e11 / n + 19200 * 269e6 / 0.7e11 / n + 0.27 + 5 + 0.8) for n in (1, 2)]
    for text, wanted in zip(said, seconds, strict=True):
        assert int(text.split()[1]) == pytest.approx(wanted / 60, abs=0.6)
    assert said[0].endswith("weights of bfloat16 are multiplied in float32 (100 GFLOP/s measured).")


def test_a_model_that_no_gpu_holds_is_estimated_too(rate):
    rate(100)
    teach = [("teach", {"teacher": "llama-2-70b", "task": "csqa-hub", "split": "test", "style": "cot"})]
    assert duration.expected_duration(study("paper"), ASSUMED, teach, cores=2).startswith("About ")


def test_items_that_are_made_already_are_counted(rate, tmp_path):
    rate(100)
    unknown = study("config", benchmarks={"asdiv": {"splits": {"test": {"size": None}}}})
    made = tmp_path / "items.jsonl"
    assert duration.expected_duration(unknown, ASSUMED, QUICKSTART, 2, lambda task, split: made) == ""
    made.write_text("{}\n" * 200)
    expected = duration.expected_duration(study("config"), ASSUMED, QUICKSTART, 2)
    assert duration.expected_duration(unknown, ASSUMED, QUICKSTART, 2, lambda task, split: made) == expected


@pytest.mark.parametrize(
    ("name", "jobs", "changes", "gflops"),
    [
        ("config", QUICKSTART[:0], {}, 100),
        ("config", QUICKSTART, {"models": {"smollm2-135m": {"parameters": None}}}, 100),
        ("config", QUICKSTART, {"benchmarks": {"asdiv": {"splits": {"test": {"size": None}}}}}, 100),
        ("config", QUICKSTART, {}, None),
    ],
    ids=["little to do", "a model of unknown size", "a split of unknown size", "a GPU"],
)
def test_nothing_is_said_of(name, jobs, changes, gflops, rate):
    asked = rate(gflops)
    assert duration.expected_duration(study(name, **changes), ASSUMED, jobs, cores=2) == ""
    assert len(asked) == (gflops is None)
