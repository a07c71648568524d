"""The packages and the machine that a record names, and where two records differ."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from typing import Any

from selfrefine.schema.record import PACKAGES
from selfrefine.store.hashing import canonical_json

# Stands for a key that one of two settings does not have.
ABSENT = object()
# What verdicts follow from where extractor math-verify gave them.
OF_MATH_VERIFY = ("math-verify", "latex2sympy2-extended", "sympy")


def differences(recorded: object, wanted: object, key: str = "") -> list[str]:
    """Where two settings differ, each as `key: from → to`."""
    if isinstance(recorded, dict) and isinstance(wanted, dict):
        found = []
        for name in sorted({*recorded, *wanted}):
            inner = f"{key}.{name}" if key else name
            found += differences(recorded.get(name, ABSENT), wanted.get(name, ABSENT), inner)
        return found
    if recorded == wanted:
        return []
    old, new = ("not there" if value is ABSENT else _shortened(canonical_json(value)) for value in (recorded, wanted))
    return [f"{key}: {old} → {new}"]


def environment_differences(treated: Mapping[str, Any], control: Mapping[str, Any]) -> list[str]:
    """Package versions and hardware that differ between two records, each as `what: here against there`."""
    found = []
    for part in ("packages", "machine"):
        for name in sorted({*treated[part], *control[part]} - {"cores"}):
            here, there = treated[part].get(name, "none"), control[part].get(name, "none")
            if here != there:
                found.append(f"{name}: {_shortened(here)} against {_shortened(there)}")
    return found


def _shortened(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def package_versions() -> dict[str, str]:
    """The versions of Python and of the packages that results may depend on, as far as they are installed."""
    versions = {"python": platform.python_version()}
    for name in (*PACKAGES, *(OF_MATH_VERIFY if "math_verify" in sys.modules else ())):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def machine_facts() -> dict[str, Any]:
    """The processor, the GPUs and how this process uses them."""
    machine: dict[str, Any] = {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
    }
    try:
        with open("/proc/cpuinfo") as file:
            machine["cpu"] = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        machine["cpu"] = platform.processor()
    # A stage that has not loaded torch used no GPU.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        machine["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        machine["processes"] = torch.distributed.get_world_size()
    if "vllm" in sys.modules and os.environ.get("VLLM_BATCH_INVARIANT") == "1":
        machine["batch_invariant"] = True
    return machine
