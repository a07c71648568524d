"""The store on other versions of Snakemake than the pinned one, from the lowest that it is said to work on.

`SNAKEMAKES=9.0.0,9.14.5 pytest tests/test_versions.py` installs each with pip, in a folder of its own (two minutes).
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import REPOSITORY, checked, contents, environment, make_study

VERSIONS = [name for name in os.environ.get("SNAKEMAKES", "").split(",") if name]
LOWEST = "9.0.0"


def test_the_lowest_version_that_is_named_is_the_one_that_is_tried():
    assert f'min_version("{LOWEST.removesuffix(".0")}")' in (REPOSITORY / "Snakefile").read_text()


@pytest.fixture(scope="module", params=VERSIONS)
def version(request, tmp_path_factory) -> dict[str, str]:
    """The environment in which `python -m snakemake` is a version of its own."""
    folder = tmp_path_factory.mktemp("snakemake") / request.param
    wanted = f"snakemake=={request.param}"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-qq", "--target", folder, wanted], check=True, capture_output=True
    )
    return {**environment(), "PYTHONPATH": str(folder)}


def snakemake(version: dict[str, str], folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "config/tiny.yaml", *arguments]
    outcome = subprocess.run(command, cwd=folder, env=version, capture_output=True, text=True)
    checked(outcome)
    return outcome.stdout + outcome.stderr


def ran(text: str) -> list[str]:
    """The rules of the jobs in Snakemake's output, sorted, without `all`."""
    return sorted(name for name in re.findall(r"^(?:local)?rule (\w+):", text, re.MULTILINE) if name != "all")


def without_packages(folder: Path) -> dict:
    """A study's results; the versions of packages in records, Snakemake's among them, left out."""
    found = contents(folder)
    return {
        name: {key: value for key, value in content.items() if key != "packages"}
        if isinstance(content, dict)
        else content
        for name, content in found.items()
    }


def put(folder: Path, section: str, key: str, value) -> None:
    path = folder / "config/tiny.yaml"
    config = yaml.safe_load(path.read_text())
    config[section][key] = value
    path.write_text(yaml.safe_dump(config, sort_keys=False))


@pytest.mark.skipif(not VERSIONS, reason="SNAKEMAKES names the versions to try")
def test_a_version_makes_the_same_study(version, finished, tmp_path, tiny_model):
    make_study(tmp_path, tiny_model)
    for name in ("boxes.jsonl", "oracle.jsonl"):
        shutil.copy(finished[0] / name, tmp_path / name)
    snakemake(version, tmp_path)
    expected, found = without_packages(finished[0]), without_packages(tmp_path)
    assert expected == found
    assert len(expected) > 100
    assert "Nothing to be done" in snakemake(version, tmp_path)


@pytest.mark.skipif(not VERSIONS, reason="SNAKEMAKES names the versions to try")
def test_a_version_runs_what_a_change_touches(version, finished, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(finished[0], folder, symlinks=True)
    shutil.rmtree(folder / ".snakemake")
    for path in (folder / "results").rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path, (1_500_000_000 + path.stat().st_size % 1000,) * 2)
    assert "Nothing to be done" in snakemake(version, folder)
    put(folder, "statistics", "margin", 4)
    changed = ["claims", "configuration", "flips", "page", "show", "summarise"]
    assert ran(snakemake(version, folder, "-n")) == changed
    assert ran(snakemake(version, folder)) == changed
    put(folder, "statistics", "margin", 5)
    assert ran(snakemake(version, folder)) == ["show"]
    assert "Nothing to be done" in snakemake(version, folder)
    put(folder, "refine", "beta", 0.3)
    shutil.rmtree(folder / "results/store/pair")
    jobs = ran(snakemake(version, folder, "-n"))
    assert [name for name in ("pair", "refine", "sample", "instruct", "teach") if name in jobs] == ["pair", "refine"]
    assert ran(snakemake(version, folder)) == jobs
    assert "Nothing to be done" in snakemake(version, folder)
