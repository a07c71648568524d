"""Which build of torch the set-up takes."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

from conftest import REPOSITORY, run

FILES = [str(REPOSITORY / "envs" / name) for name in ("requirements.txt", "dev.txt")]


@pytest.fixture
def install(monkeypatch, tmp_path):
    """(what pip is asked, install): a machine as told, and a pip that finds the builds of torch as told."""
    spec = importlib.util.spec_from_file_location("install", REPOSITORY / "envs/install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    asked: list[list[str]] = []

    def install(found: bool, devices=(), programs=(), system="Linux", status=0) -> int:
        def pip(command, **options):
            assert command[: len(module.PIP)] == [*module.PIP]
            asked.append(command[len(module.PIP) :])
            missing = "--dry-run" in command and not found
            return subprocess.CompletedProcess(command, 1 if missing else status)

        for name in devices:
            (tmp_path / name).touch()
        monkeypatch.setattr(module, "DEVICES", tmp_path)
        monkeypatch.setattr(module.shutil, "which", lambda name: name if name in programs else None)
        monkeypatch.setattr(module.platform, "system", lambda: system)
        monkeypatch.setattr(module.subprocess, "run", pip)
        monkeypatch.setattr(module.sys, "argv", ["install.py", *FILES])
        with pytest.raises(SystemExit) as ended:
            module.main()
        return ended.value.code

    return asked, install


PLAIN = ["-r", FILES[0], "-r", FILES[1]]


def build() -> str:
    """The CPU build of the pinned torch."""
    (pin,) = [line for line in Path(FILES[0]).read_text().splitlines() if line.startswith("torch==")]
    return f"{pin}+cpu"


def test_without_a_gpu_the_cpu_build_is_taken_where_pip_finds_it(install, capsys):
    asked, install = install
    assert install(found=True) == 0
    assert asked == [["--dry-run", "--no-deps", build()], [*PLAIN, build()]]
    assert capsys.readouterr().out == ""


def test_where_pip_finds_none_the_pin_is_taken_and_what_is_smaller_is_said(install, capsys):
    asked, install = install
    assert install(found=False) == 0
    assert asked == [["--dry-run", "--no-deps", build()], PLAIN]
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "PIP_EXTRA_INDEX_URL" in said


@pytest.mark.parametrize(
    "machine",
    [{"devices": ["nvidia0"]}, {"devices": ["kfd"]}, {"programs": ["nvidia-smi"]}, {"system": "Darwin"}],
    ids=str,
)
def test_with_a_gpu_or_on_another_system_the_pin_is_taken(install, machine, capsys):
    asked, install = install
    assert install(found=True, **machine) == 0
    assert asked == [PLAIN]
    assert capsys.readouterr().out == ""


def test_a_failure_of_pip_is_one_of_the_set_up(install):
    _, install = install
    assert install(found=True, status=2) == 2


def test_it_explains_itself():
    assert run("python", "envs/install.py", "--help").stdout.startswith("usage:")
