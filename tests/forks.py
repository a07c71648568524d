"""Programs run time and again in forks of one process that has loaded their libraries, which takes longest, once.

Each is a process of its own still, runs from its first line, and reads this repository's code anew.
"""

import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

SNAKEMAKE = ("snakemake.cli", "smart_open")
TRAINING = ("torch", "transformers.models.auto.modeling_auto", "peft", "trl", "datasets")
# Names the Python that a forked Snakemake takes for its own.
PYTHON = "FORKED_PYTHON"


class Forks:
    """A process that has loaded `modules`, as a context. Not for several threads at once."""

    def __init__(self, modules: tuple[str, ...]):
        self._server = subprocess.Popen(
            [sys.executable, __file__, *modules], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *fault) -> None:
        self._server.stdin.close()
        assert self._server.wait(timeout=60) == 0

    def run(self, program: str, *arguments: str, cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
        """Runs `snakemake`, or a Python program by its path from `cwd`; its output is kept as text."""
        command = [program, *map(str, arguments)]
        with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
            asked = [command, str(cwd), environment, out.name, err.name]
            print(json.dumps(asked), file=self._server.stdin, flush=True)
            return subprocess.CompletedProcess(command, int(self._server.stdout.readline()), out.read(), err.read())


def serve(modules: list[str]) -> None:
    """Runs what is asked for on standard input, a line each; answers with the exit status."""
    # As the stages do before they load it (selfrefine/models/checkpoints.py).
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    for name in modules:
        importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        command, cwd, environment, *outputs = json.loads(line)
        pid = os.fork()
        if not pid:
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(environment)
            for number, name in ((0, os.devnull), *enumerate(outputs, 1)):
                os.dup2(os.open(name, os.O_RDWR), number)
            start(command)
            return
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def start(command: list[str]) -> None:
    """Runs a program in this process, as if Python had been started with it."""
    sys.argv = command
    if command[0] == "snakemake":
        from snakemake.cli import main

        # Jobs run with the Python beside the one that runs Snakemake (rules/common.smk).
        sys.executable = os.environ.pop(PYTHON, sys.executable)

        main(command[1:])
    else:
        sys.path[0] = str(Path(command[0]).resolve().parent)
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1:])
