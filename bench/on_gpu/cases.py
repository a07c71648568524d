"""Cases that a worker runs while time is left, and what it reports to the program that started it."""

import contextlib
import json
import time
import traceback
from collections.abc import Iterator
from typing import Any

from on_gpu.random_models import free

# Marks the lines that a worker reports in.
REPORT = "@report "
# Seconds that a case takes at most, by shape, where none was seen yet.
GUESSES = {"tiny": 10, "135m": 15, "1b": 25, "7b": 45}


def report(kind: str, name: str, **facts: Any) -> None:
    """Reports a `check`, `rate`, `training`, `memory` or what was `skipped` to the program that started this worker."""
    print(REPORT + json.dumps({"kind": kind, "name": name, **facts}), flush=True)


class Cases:
    """Runs cases one after another while time is left.

    A case that lacks a package or memory is skipped by name; another error fails it.
    """

    def __init__(self, until: float, guess: float):
        self.until = until
        self.guess = guess

    @contextlib.contextmanager
    def case(self, name: str) -> Iterator[bool]:
        """One case: yields whether it is to run, estimated from the longest one so far."""
        began = time.time()
        runs = began + self.guess <= self.until
        if not runs:
            report("skipped", name, why=f"{self.until - began:.0f} s are left, it may take {self.guess:.0f}")
        try:
            yield runs
        except Exception as error:
            why = f"{type(error).__name__}: {str(error)[:300]}"
            import torch

            if isinstance(error, ImportError | torch.OutOfMemoryError):
                report("skipped", name, why=why)
            else:
                report("check", name, ok=False, detail=why)
                traceback.print_exc()
        free()
        if runs:
            self.guess = max(self.guess, time.time() - began)
