"""The energy of a job's GPUs, by NVML's counters; unknown without pynvml or without a counter."""

import importlib
import sys
from typing import Any

# Millijoules, in which NVML counts since the driver was loaded, of a watt-hour.
OF_A_WATT_HOUR = 3_600_000


def counters() -> dict[str, int]:
    """What each GPU of the machine has used so far, in millijoules, by its uuid; nothing where none can be read."""
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # not installed, or without a driver, whose errors are a class of the package's own
        return {}
    found: dict[str, int] = {}
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            found[_bare(nvml.nvmlDeviceGetUUID(handle))] = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except nvml.NVMLError:
            continue  # a GPU older than Volta has no counter
    return found


def watt_hours(before: dict[str, int]) -> float | None:
    """What the process's GPUs have used since `counters` gave `before`; None if that is not known of all of them.

    A counter is of the whole GPU, whoever uses it. A part of one (MIG) has none.
    """
    torch = sys.modules.get("torch")
    if not before or torch is None or not torch.cuda.is_available():
        return None
    used = [_bare(torch.cuda.get_device_properties(gpu).uuid) for gpu in range(torch.cuda.device_count())]
    after = counters()
    if not used or any(uuid not in before or after.get(uuid, -1) < before[uuid] for uuid in used):
        return None
    return sum(after[uuid] - before[uuid] for uuid in used) / OF_A_WATT_HOUR


def _bare(uuid: object) -> str:
    """A uuid as text; NVML's begin with `GPU-`, and torch's do not."""
    text = uuid.decode() if isinstance(uuid, bytes) else str(uuid)
    return text.removeprefix("GPU-").lower()
