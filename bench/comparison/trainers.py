"""`bench/peers.py training` and `preference`: both training stages as the workflow runs them, beside TRL as it comes.

Tokens are those of the examples, counted equally for all sides: prompt and answer, of pairs the prompt with each
response, the stop token included, times the epochs. Whether a side computes a token once or twice does not change the
count. Seconds are those of the trainer's loop with its validations, and, for ours, of the reference's
log-probabilities, which it computes before.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

from before import flags, readable
from products import Shape, decode_limit, described, training_limit
from quickstart import ROOT, Quickstart, write
from report import last_line, table

from selfrefine.store.files import read_json

# Rows of the timed products: more do not raise the rate.
ROWS = 1024
# Examples of the only update of a side whose products this machine computes slowly.
FEW = 4


def training(args: argparse.Namespace, study: Quickstart) -> None:
    """Phase 1. The limit: `products.training_limit`."""
    settings = dict(study.settings["instruct"])
    if args.quick:
        settings["epochs"] = 1
    rows = study.demonstrations()
    whole, answers = study.lengths(rows, ("completion",))
    tokens = whole / len(rows)
    torch_threads(args.threads)
    shape = Shape.read(study.config)
    limits = {
        dtype: training_limit(shape, min(ROWS, round(tokens * settings["batch_size"])), answers / whole, dtype)
        for dtype in ("float32", "bfloat16")
    }
    machine = described(args.threads)
    machine["gemm_gflops"] = {
        dtype: {way: rate["gflops"] for way, rate in ways.items()} for dtype, ways in limits.items()
    }
    best = {dtype: max(rate["gflops"] for rate in ways.values()) for dtype, ways in limits.items()}
    steps = math.ceil(len(rows) / settings["batch_size"]) * settings["epochs"]
    print(f"{len(rows)} demonstrations, {tokens:.0f} tokens each, {steps} updates of {settings['batch_size']}\n")
    sides = Sides(args, study, "instruct", settings, study.base, None, narrow=best["bfloat16"] > best["float32"])
    sides.files = ["--demonstrations", study.demonstrations_file]
    sides.data = {"train": rows, "validation": []}
    sides.tokens, sides.examples = tokens, len(rows) * settings["epochs"]
    found = sides.measure()
    for dtype, ways in limits.items():
        shown = ", ".join(
            f"{rate['tokens_per_second']:.0f} by {way} ({rate['gflops']} GFLOP/s)" for way, rate in ways.items()
        )
        shares = ", ".join(f"{found['ours']['rate'] / rate['tokens_per_second']:.0%}" for rate in ways.values())
        print(f"limit in {dtype}, tokens/s: {shown}; ours is {shares} of it")
    limit = {
        dtype: {
            "tokens_per_second": {way: rate["tokens_per_second"] for way, rate in ways.items()},
            "share": {way: found["ours"]["rate"] / rate["tokens_per_second"] for way, rate in ways.items()},
        }
        for dtype, ways in limits.items()
    }
    finish("training", machine, found, limit)


def preference(args: argparse.Namespace, study: Quickstart) -> None:
    """Phase 2, from the instructed student where there is one."""
    settings = dict(study.settings["refine"]) | {"lora": study.settings["instruct"]["lora"]}
    if args.quick:
        settings["epochs"] = 1
    path, origin = study.pairs_file()
    pairs = study.pairs(path)
    start = study.checkpoints().get("instruct", study.base)
    adapter = start.parent if start != study.base else None
    whole, _ = study.lengths(pairs["train"], ("chosen", "rejected"))
    steps = math.ceil(len(pairs["train"]) / settings["batch_size"]) * settings["epochs"]
    questions = len({row["prompt"][-1]["content"] for row in pairs["train"]})
    print(
        f"{len(pairs['train'])} pairs of {questions} questions, {origin}; "
        f"{whole / max(1, len(pairs['train'])):.0f} tokens a pair, "
        f"{steps} updates of {settings['batch_size']}, {len(pairs['validation'])} validation pairs\n"
    )
    torch_threads(args.threads)
    rates = product_rates(study)
    machine = described(args.threads) | {"gemm_gflops": rates}
    sides = Sides(args, study, "refine", settings, start, adapter, narrow=rates["bfloat16"] > rates["float32"])
    sides.files, sides.data = ["--pairs", path], pairs
    sides.tokens, sides.examples = whole / max(1, len(pairs["train"])), len(pairs["train"]) * settings["epochs"]
    finish("preference", machine, sides.measure(), None)


def product_rates(study: Quickstart) -> dict[str, int]:
    """GFLOP/s by dtype of the fastest way, at a batch of decoded tokens."""
    shape = Shape.read(study.config)
    return {
        dtype: max(rate["gflops"] for rate in decode_limit(shape, 64, dtype).values())
        for dtype in ("float32", "bfloat16")
    }


def torch_threads(threads: int) -> None:
    """Bounds this process's threads, before anything is timed."""
    import torch

    torch.set_num_threads(threads)


def finish(bench: str, machine: dict, found: dict[str, dict], limit: dict | None) -> None:
    """Prints the last line."""
    ratio = {name: found["ours"]["rate"] / row["rate"] for name, row in found.items() if name != "ours"}
    facts = {"bench": bench, "machine": machine, "rates": found, "ratio": ratio}
    last_line(facts | ({"limit": limit} if limit else {}))


class Sides:
    """The sides of one stage, alternating: ours, another checkout's, TRL as it comes and TRL in float32.

    Where bfloat16 is slow (not `narrow`), TRL as it comes gets one update of a few examples. `tokens` are those of one
    example on average, `examples` those of all epochs.
    """

    def __init__(self, args, study: Quickstart, stage: str, settings: dict, start: Path, adapter, narrow: bool):
        self.args, self.study, self.stage, self.settings = args, study, stage, settings
        self.start, self.adapter, self.narrow = start, adapter, narrow
        self.files: list = []
        self.data: dict[str, list[dict]] = {}
        self.tokens, self.examples = 0.0, 0
        self._runs = 0

    def measure(self) -> dict[str, dict]:
        """{side: {rate (tokens/s of the loop), loop_seconds, whole_seconds (of the process)}}; prints the table."""
        sides = {"ours": lambda: self.ours(ROOT)}
        if self.args.before:
            sides["before"] = lambda: self.ours(self.args.before)
        sides["trl"] = lambda: self.plain("default", few=not self.narrow)
        sides["trl-float32"] = lambda: self.plain("float32")
        found: dict[str, dict] = {}
        for _ in range(1 if self.args.quick else 2):
            for name, side in sides.items():
                row = side()
                # Records hold tenths of a second.
                row["rate"] = self.tokens * row["examples"] / max(row["loop_seconds"], 0.1)
                if name not in found or row["rate"] > found[name]["rate"]:
                    found[name] = row
        rows = [
            [
                name,
                row["examples"],
                row["loop_seconds"],
                row["rate"],
                row["whole_seconds"],
                found["ours"]["rate"] / row["rate"],
            ]
            for name, row in found.items()
        ]
        table(["", "examples", "loop, s", "tokens/s", "whole process, s", "ours over it"], rows)
        return found

    def folder(self) -> Path:
        """A new one."""
        self._runs += 1
        path = self.study.scratch / f"run-{self._runs}"
        path.mkdir()
        return path

    def ours(self, checkout: Path) -> dict:
        """One run of the stage's program."""
        made = self.folder()
        written, record = flags(checkout, made)
        settings = {"prompt": self.study.prompt, "system": self.study.system, "training": self.settings}
        command = [sys.executable, checkout / f"scripts/{self.stage}.py", "--settings", json.dumps(settings)]
        command += [
            "--start",
            readable(self.start, checkout, self.study),
            "--items",
            self.study.train_items,
            *self.files,
            "--threads",
            self.args.threads,
        ]
        seconds = run([*command, *written], made, cwd=self.study.folder)
        record = read_json(record)
        figures = record["figures"]
        loop = figures["training_seconds"] + figures.get("reference_seconds", 0.0)
        made = {"loop_seconds": loop, "whole_seconds": seconds, "examples": self.examples}
        # An older checkout's record does not name it.
        return made | {"compute": record["machine"].get("computed_in")}

    def plain(self, compute: str, few: bool = False) -> dict:
        """One run of TRL, of all examples or of `FEW`."""
        made = self.folder()
        data, settings = self.data, self.settings
        if few:
            share = FEW / len(data["train"])
            data = {
                "train": data["train"][:FEW],
                "validation": data["validation"][: round(len(data["validation"]) * share)],
            }
            settings = settings | {"epochs": 1, "batch_size": FEW, "micro_batch_size": 2}
        task = {
            "stage": "dpo" if self.stage == "refine" else "sft",
            "model": str(self.study.model),
            "adapter": str(self.adapter) if self.adapter else None,
            "data": data,
            "settings": settings,
            "compute": compute,
            "threads": self.args.threads,
            "output": str(made),
        }
        script = ROOT / "bench/comparison/plain_trl.py"
        seconds = run([sys.executable, script, write(made / "task.json", task)], made)
        made = read_json(made / "plain.json")
        examples = FEW if few else self.examples
        return {"loop_seconds": made["seconds"], "whole_seconds": seconds, "examples": examples}


def run(command: list, folder: Path, cwd: Path | None = None, **settings: str) -> float:
    """The seconds that a program takes; its output is shown if it fails."""
    log = folder / "output.log"
    began = time.perf_counter()
    with log.open("a") as file:
        done = subprocess.run(
            list(map(str, command)), stdout=file, stderr=subprocess.STDOUT, cwd=cwd, env=os.environ | settings
        )
    if done.returncode:
        sys.exit(f"{log.read_text()[-4000:]}\n{command[1]}: ended with {done.returncode}")
    return time.perf_counter() - began
