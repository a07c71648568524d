"""What runs the jobs of small test studies: forks that behave as processes that Python started, where that is the same."""

import os
import subprocess

import pytest

from conftest import _job_forks

PROGRAM = """import os, signal, sys
print("torch" in sys.modules, sys.argv[1:], os.getcwd(), os.environ.get("OWN"), flush=True)
print("said", file=sys.stderr, flush=True)
if sys.argv[1] == "die":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize(("asked", "status"), [("0", 0), ("3", 3), ("die", -9)])
@pytest.mark.parametrize(
    ("stage", "more", "forked"),
    [
        ("evaluate", {}, True),
        ("evaluate", {"OMP_NUM_THREADS": "7"}, True),
        ("evaluate", {"HF_HOME": "elsewhere"}, False),
        ("pair", {}, False),
        ("study", {}, False),
    ],
)
def test_a_job_has_its_own_arguments_folder_environment_output_and_status(tmp_path, stage, more, forked, asked, status):
    """`forked`: torch is there before the program's first line. A stage without torch is forked where it is not."""
    (tmp_path / "scripts").mkdir()
    program = tmp_path / f"scripts/{stage}.py"
    program.write_text(PROGRAM)
    command = [_job_forks() / "python", program, asked]
    environment = {**os.environ, "OWN": "mine", **more}
    outcome = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert outcome.stdout == f"{forked} {[asked]} {tmp_path} mine\n"
    assert (outcome.stderr, outcome.returncode) == ("said\n", status)
