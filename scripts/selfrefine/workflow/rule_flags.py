"""Flags of the stages' programs that are no settings: use of the machine, a teacher's server."""

import re
import shlex
from collections.abc import Iterable
from typing import Any

from selfrefine.study.design import Study

# glibc otherwise hands large blocks back to the kernel after each use, which slows training on a CPU
# (bench/allocator.py); generation gains nothing by it and would hold several times the memory.
KEEP_MEMORY = f"MALLOC_MMAP_THRESHOLD_={4 << 30} MALLOC_TRIM_THRESHOLD_={16 << 30} MALLOC_TOP_PAD_={256 << 20}"


class RuleFlags:
    """The flags that a study gives to the stages' programs beside their settings."""

    def __init__(self, study: Study):
        self._study = study

    def compute(self) -> str:
        """What weights are multiplied in, where the study overrides the machine's choice."""
        return "" if self._study.compute == "auto" else f"--compute {self._study.compute}"

    def vllm(self, engine: str) -> str:
        """How vLLM uses the GPUs; nothing for other engines."""
        if engine != "vllm":
            return ""
        return f"--memory {self._study.vllm.memory:g}" + " --batch-invariant" * self._study.vllm.batch_invariant

    def vllm_beside_training(self) -> str:
        """The share of the GPUs' memory that vLLM takes beside a training that samples; nothing for other engines."""
        return f"--memory {self._study.vllm.beside_training:g}" if self._study.engine == "vllm" else ""

    def teacher_vllm(self, wildcards: Any) -> str:
        """How vLLM uses the GPUs for a teacher."""
        return self.vllm(str(self._study.teachers[wildcards.teacher].engine))

    def include(self) -> str:
        """The folder with further tasks of lm-eval, where there is one."""
        folder = self._study.lm_eval.include
        return f"--include {shlex.quote(folder)}" if folder else ""

    def server_or_recording(self, wildcards: Any) -> str:
        """Where and how a served teacher is asked, or where a recording lies."""
        teacher = self._study.teachers[wildcards.teacher]
        if teacher.engine == "openai":
            return f"--server {shlex.quote(teacher.server.model_dump_json())}"
        return f"--recording {shlex.quote(str(teacher.recording))}"


def teachers_among(names: Iterable[str]) -> str:
    """A pattern that only these teachers match; none, if there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def teachers_but(names: Iterable[str]) -> str:
    """A pattern that all teachers but these match."""
    return f"(?!(?:{teachers_among(names)})/)[A-Za-z0-9][A-Za-z0-9._-]*"
