"""One worker of bench/gpu.py: a process of its own for the checks and rates of one model."""

import argparse
import contextlib
import importlib.metadata
import itertools
import os
import subprocess
import sys

from on_gpu.cases import GUESSES, Cases
from on_gpu.decoding_checks import check_greedy, check_seeds
from on_gpu.decoding_rates import measure_decode
from on_gpu.online_rates import measure_online
from on_gpu.random_models import make_model
from on_gpu.training_rates import measure_training

PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "bitsandbytes",
    "datasets",
    "safetensors",
    "tokenizers",
)


def work(args: argparse.Namespace) -> None:
    """A worker's part, `--worker`."""
    import torch

    from selfrefine.store.files import write_json

    torch.set_num_threads(os.cpu_count())
    part, *of = args.worker.split(":")
    if part == "machine":
        write_json(args.folder / "machine.json", describe_machine())
    elif part == "checks":
        cases, (shape,) = Cases(args.until, GUESSES[of[0]]), of
        model = make_model(args.folder, shape)
        for name, dtype in itertools.product(("greedy", "seeds"), ("float32", "bfloat16")):
            if name in args.only:
                with cases.case(f"{name} {dtype}") as runs:
                    if runs and name == "greedy":
                        check_greedy(model, shape, dtype)
                    elif runs:
                        check_seeds(model, shape, dtype, args.folder)
    elif part == "decode":
        cases, (shape,) = Cases(args.until, GUESSES[of[0]]), of
        with cases.case(f"decode {shape}") as runs:
            if runs:
                measure_decode(make_model(args.folder, shape), shape, args.only)
    elif part == "online":
        (shape,) = of
        measure_online(args.folder, shape, Cases(args.until, GUESSES[shape]), args)
    else:
        shape, quantisation = of
        measure_training(args.folder, shape, quantisation, Cases(args.until, GUESSES[shape]), args)


def describe_machine() -> dict:
    """The machine: GPU, its memory in GB, driver, cores, versions."""
    import torch

    machine: dict = {"gpu": None, "memory": None, "driver": None, "capability": None, "cores": os.cpu_count()}
    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        machine |= {"gpu": facts.name, "memory": facts.total_memory / 1e9}
        machine["capability"] = f"{facts.major}.{facts.minor}"
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
            machine["driver"] = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()[0]
    versions = {"python": sys.version.split()[0], "cuda": torch.version.cuda}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return machine | {"versions": versions}
