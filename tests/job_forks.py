"""A `python` for the jobs of a workflow: forks of processes that have loaded the stages' libraries.

Most of what a job of the tiny study takes is loading torch and transformers. Each job is a process of its own still, with
its own arguments, folder, environment and output, and reads the study's code anew. What is asked for otherwise (a module,
another environment, a program of no stage) gets the real Python.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# What stages load, by whether they load torch.
LIBRARIES = {
    "torch": (
        "torch",
        "transformers.models.auto.modeling_auto",
        "peft",
        "trl",
        "datasets",
        "lm_eval.evaluator",
        "pydantic",
    ),
    "tables": ("pydantic", "numpy", "pandas", "scipy.stats", "matplotlib.pyplot", "jinja2"),
}
WITH_TORCH = ("embed", "evaluate", "fetch_model", "instruct", "refine", "refine_online", "sample", "teach")
# What measures the machine at the start of a run.
RATE = "selfrefine.models.rate"
# Libraries read these when they are loaded, so they must be the same in a fork.
READ_ON_LOADING = (
    "HF_",
    "TRANSFORMERS",
    "TORCH",
    "PYTORCH",
    "PYTHON",
    "OMP",
    "GOMP",
    "MKL",
    "ONEDNN",
    "ATEN",
    "CUDA",
    "LD_",
)
# But not these: stages tell torch how many threads to take, whatever Snakemake sets; folders are added in the fork; and
# this one is set where it loads, too.
THREADS = "_NUM_THREADS"
LATER = ("PYTHONPATH", "TORCHDYNAMO_DISABLE")
SHIM = """#!{python} -SEI
import json, os, signal, socket, sys

program = sys.argv[1] if len(sys.argv) > 1 else ""
folder, stage = os.path.split(program)
is_stage = os.path.basename(folder) == "scripts" and stage.endswith(".py") and stage != "study.py"
is_rate = sys.argv[1:3] == ["-m", {rate!r}]
read = {{
    name: value
    for name, value in os.environ.items()
    if name.startswith({read!r}) and not name.endswith({threads!r}) and name not in {later!r}
}}
if not (is_stage or is_rate) or read != {values!r}:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
kind = "torch" if is_rate or stage[:-3] in {with_torch!r} else "tables"
with socket.socket(socket.AF_UNIX) as server:
    server.connect(os.path.join(os.path.dirname(os.path.abspath(__file__)), kind))
    asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(asked).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(asked)
    status = int(server.recv(100) or b"1")
if status < 0:
    if -status not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


def start_job_forks() -> Path:
    """Starts what forks, until this process ends; the folder with the `python` to put first on the path."""
    folder = Path(tempfile.mkdtemp(prefix="forks-"))
    atexit.register(shutil.rmtree, folder)
    values = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(READ_ON_LOADING) and not name.endswith(THREADS) and name not in LATER
    }
    shim = folder / "python"
    shim.write_text(
        SHIM.format(
            python=sys.executable,
            read=READ_ON_LOADING,
            values=values,
            threads=THREADS,
            later=LATER,
            with_torch=WITH_TORCH,
            rate=RATE,
        ),
        encoding="utf-8",
    )
    shim.chmod(0o755)
    for kind in LIBRARIES:
        server = subprocess.Popen([sys.executable, __file__, kind, str(folder / kind)], stdin=subprocess.PIPE)
        atexit.register(_stop, server)
        while not (folder / kind).exists():
            if server.poll() is not None:
                raise RuntimeError(f"what forks jobs ended with status {server.returncode} while it loaded {kind}")
            time.sleep(0.05)
    return folder


def _stop(server: subprocess.Popen) -> None:
    server.kill()
    server.wait()


def serve(kind: str, path: str) -> None:
    """Forks for each connection, until standard input ends."""
    # As the stages do before they load torch (selfrefine/models).
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    for name in LIBRARIES[kind]:
        importlib.import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.new")
    listener.listen()
    os.rename(f"{path}.new", path)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        if not os.fork():
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            with connection:
                job = _read(connection)
                child = os.fork()
                if child:
                    _watch(child, connection)
                    os._exit(0)
            _become(*job)
            return
        connection.close()


def _read(connection: socket.socket) -> tuple[list[str], str, dict[str, str], list[int]]:
    """What to run: arguments, folder, environment, and the files of input and output."""
    size, outputs, _, _ = socket.recv_fds(connection, 8, 3)
    left, parts = int.from_bytes(size, "big"), []
    while left:
        parts.append(connection.recv(left))
        left -= len(parts[-1])
    return (*json.loads(b"".join(parts)), outputs)


def _watch(child: int, connection: socket.socket) -> None:
    """Tells how a job ended; ends it where the one who asked is gone."""
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            with contextlib.suppress(OSError):
                connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
            return
        if select.select([connection], [], [], 0.01)[0] and not connection.recv(1):
            os.kill(child, signal.SIGTERM)
            return


def _become(command: list[str], folder: str, environment: dict[str, str], outputs: list[int]) -> None:
    """Runs a program in this process, as if Python had been started with it."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, output in enumerate(outputs):
        os.dup2(output, number)
        os.close(output)
    if path := environment.get("PYTHONPATH"):
        sys.path[1:1] = path.split(os.pathsep)
    if command[0] == "-m":
        sys.argv, sys.path[0] = command[1:], folder
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        return
    sys.argv, sys.path[0] = command, str(Path(command[0]).resolve().parent)
    runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    serve(*sys.argv[1:])
