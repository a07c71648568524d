"""How an artifact came to be, written beside it: inputs and outputs by sha256, recipe, code, versions, machine, cost."""

import datetime
import importlib.metadata
import os
import platform
import resource
import time
from pathlib import Path

from selfrefine.files import sha256_of, write_json
from selfrefine.fingerprint import fingerprint

PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "lm-eval", "tokenizers", "numpy", "scipy", "snakemake")


class Run:
    """One run of a stage; create it when the stage begins."""

    def __init__(self, script: str, recipe: dict, seed: int | None = None):
        self.script = Path(script)
        self.recipe = recipe
        self.seed = seed
        self.started = time.time()

    def record(self, path: Path, inputs: dict[str, Path], outputs: list[Path], **figures) -> None:
        """Writes the provenance of `outputs` to `path`; `figures` are what the stage counted (items, tokens, losses)."""
        seconds = time.time() - self.started
        tokens = figures.get("tokens_made") or figures.get("tokens_seen")
        if tokens:
            figures["tokens_per_second"] = round(tokens / seconds, 1)
        write_json(
            path,
            {
                "stage": self.script.stem,
                "inputs": {
                    name: {"path": str(file), "sha256": sha256_of(file)} for name, file in sorted(inputs.items())
                },
                "outputs": {str(file): sha256_of(file) for file in outputs},
                "recipe": self.recipe,
                "seed": self.seed,
                "code": fingerprint(self.script),
                "figures": figures,
                "packages": _versions(),
                "machine": _machine(),
                "started": datetime.datetime.fromtimestamp(self.started, datetime.UTC).isoformat(timespec="seconds"),
                "wall_seconds": round(seconds, 1),
                "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            },
        )


def describe_files(folder: Path, names: list[str]) -> dict[str, dict]:
    """The size and sha256 of files in a folder, by name."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in sorted(names)
    }


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _machine() -> dict:
    machine = {"system": platform.system(), "architecture": platform.machine(), "cores": os.cpu_count()}
    try:
        with open("/proc/cpuinfo") as file:
            machine["cpu"] = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        machine["cpu"] = platform.processor()
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        machine["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return machine
