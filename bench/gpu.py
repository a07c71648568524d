"""Everything that needs a GPU, checked and measured by one program in a few minutes; without one, on a tiny model.

python bench/gpu.py                                      everything, at most 8 minutes
python bench/gpu.py --only sft,dpo --shape 7b --quantisation nf4 --minutes 5
python bench/gpu.py --only sft,dpo --shape 1b --method full

greedy   tokens of engine transformers on the GPU against the CPU's: equal in float32. In bfloat16, where they first
         differ, the two logits must be no further apart than the two processors' logits of one and the same prefix
seeds    a request's draw in two batches, with other neighbours, alone, and after a resumption
decode   tokens per second of engine transformers, beside `transformers.generate` on the same prompts
sft, dpo both training stages, beside plain TRL: tokens per second, MFU and peak memory, on plain and on 4-bit weights
online   GRPO, beside TRL's own with `generate`: sampled tokens per second of whole updates; ours starts at its reference
memory   the memory that study/resources.py estimates for training and generating, against what they took

Models are randomly initialised. Prompts and answers are synthetic and all of one length. "ours" is scripts/instruct.py
and scripts/refine.py as the workflow runs them; "TRL" its SFTTrainer and DPOTrainer with the same examples and
batches. Seconds are those between the ends of the first and of the last update, and those for the reference's
log-probabilities, which ours computes before the first update and TRL at each. MFU counts four floating-point
operations per parameter and token under LoRA and six in full (Kaplan et al. 2020, arXiv 2001.08361), two more for the
reference and none for recomputation, relative to the GPU's dense bfloat16 peak. What is not installed, or does not fit
in the time, is skipped by name. The last line is one JSON object; the exit status is 1 if a check failed.
"""

import argparse
import importlib.util
import itertools
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]
os.environ["HF_HUB_OFFLINE"] = "1"

from on_gpu.cases import REPORT  # noqa: E402
from on_gpu.random_models import SHAPES  # noqa: E402
from on_gpu.sheet import Sheet  # noqa: E402
from on_gpu.training_rates import write_data  # noqa: E402

PARTS = ("greedy", "seeds", "decode", "sft", "dpo", "online", "memory")
# Dense bfloat16 peaks in TFLOPS, by a part of the GPU's name; the first that fits counts.
PEAKS = {
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "H200": 989,
    "A100": 312,
    "L40S": 362,
    "A6000": 155,
    "4090": 165,
    "3090": 71,
    "L4": 121,
}


def names(text: str) -> list[str]:
    """An argument type: names divided by commas."""
    return [name for name in text.split(",") if name]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=names, default=list(PARTS), help=f"of {','.join(PARTS)} (default: all)")
    parser.add_argument("--minutes", type=float, default=8, help="after which it ends (default: 8)")
    parser.add_argument("--shape", type=names, help=f"of {','.join(SHAPES)} (default: 1b,7b; tiny without a GPU)")
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--quantisation", type=names, default=["none", "nf4"], help="of none,nf4 (default: both)")
    parser.add_argument("--prompt", type=int, default=120, help="tokens of a prompt, about (default: 120)")
    parser.add_argument("--words", type=int, default=60, help="of an answer; a word is about two tokens (default: 60)")
    parser.add_argument("--batch", type=int, default=16, help="examples per update (default: 16)")
    parser.add_argument("--micro-batch", type=int, default=8, help="examples per forward pass (default: 8)")
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument(
        "--runs", type=int, default=1, help="of each training, in turns; the median counts (default: 1)"
    )
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations")
    parser.add_argument("--peak-tflops", type=float, help="of the GPU, where its name does not say it")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    known = {"only": PARTS, "shape": SHAPES, "quantisation": ("none", "nf4")}
    for name, values in known.items():
        for value in getattr(args, name) or []:
            if value not in values:
                parser.error(f"--{name}: {value!r} is none of {', '.join(values)}")
    if args.updates < 2:
        parser.error("--updates: at least 2, since the first one is not timed")
    return args


def start(worker: str, folder: Path, until: float, log: Path, show) -> str | None:
    """Runs one worker until it ends or `until`, passing its reports to `show`; the error that ended it, or None."""
    command = [sys.executable, __file__, *sys.argv[1:], "--worker", worker, "--folder", str(folder)]
    command += ["--until", str(until - 5)]
    with open(log, "w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        lines: queue.Queue = queue.Queue()

        def read() -> None:
            for line in process.stdout:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        try:
            while (line := lines.get(timeout=max(until - time.time(), 0.1))) is not None:
                if line.startswith(REPORT):
                    show(json.loads(line.removeprefix(REPORT)))
        except queue.Empty:
            process.kill()
            process.wait()
            return "its time was up"
        if process.wait():
            return f"it ended with {process.returncode}: {' / '.join(log.read_text().splitlines()[-3:])[:400]}"
    return None


def scratch() -> Path | None:
    """Where models are kept: in memory if it has room for the largest twice over, else where temporary files go."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and shutil.disk_usage(shared).free > 32e9 else None


def workers(args: argparse.Namespace, gpu: bool) -> list[str]:
    """The workers to start, the most important first."""
    shapes = args.shape or (["1b", "7b"] if gpu else ["tiny"])
    wanted = set(args.only)
    found = [f"checks:{'135m' if gpu else 'tiny'}"] if wanted & {"greedy", "seeds"} else []
    if wanted & {"decode", "memory"}:
        found.append(f"decode:{shapes[0]}")
    if "online" in wanted:
        found.append(f"online:{shapes[0]}")
    if wanted & {"sft", "dpo", "memory"}:
        kinds = [q for q in args.quantisation if not (args.method == "full" and q == "nf4")]
        cases = itertools.product(enumerate(shapes), enumerate(kinds))
        # The first shape with the first quantisation, the second with the second: what differs least is skipped first.
        ordered = sorted(cases, key=lambda case: case[0][0] != case[1][0])
        found += [f"training:{shape}:{quantisation}" for (_, shape), (_, quantisation) in ordered]
    return found


def missing(worker: str) -> str | None:
    """The packages that a worker needs and that are not installed."""
    if not worker.startswith(("training", "online")):
        return None
    needed = ["trl", "peft", "datasets", *(["bitsandbytes"] if worker.endswith("nf4") else [])]
    absent = [name for name in needed if importlib.util.find_spec(name) is None]
    return f"{', '.join(absent)}: not installed" if absent else None


def main() -> None:
    args = arguments()
    if args.worker:
        from on_gpu.gpu_worker import work  # loads torch, which the program itself does not need

        work(args)
        return
    end = time.time() + 60 * args.minutes
    with tempfile.TemporaryDirectory(dir=scratch()) as made:
        folder = Path(made)
        if failure := start("machine", folder, end, folder / "machine.log", lambda row: None):
            sys.exit(f"error: this machine cannot run it: {failure}")
        machine = json.loads((folder / "machine.json").read_text())
        gpu = machine["gpu"]
        peak = args.peak_tflops or next((tflops for name, tflops in PEAKS.items() if gpu and name in gpu), None)
        sheet = Sheet(peak, args.method)
        memory = f" of {machine['memory']:.0f} GB, driver {machine['driver']}" if gpu else "no GPU"
        print(f"{gpu or ''}{memory}; peak {peak or 'unknown'} TFLOPS; {machine['cores']} cores")
        print(", ".join(f"{name} {version}" for name, version in machine["versions"].items()), end="\n\n")
        print("| | what | | |\n|---|---|---|---|", flush=True)
        write_data(folder, args)
        for worker in workers(args, bool(gpu)):
            left = end - time.time()
            if absent := missing(worker):
                sheet.take({"kind": "skipped", "name": worker, "why": absent})
            elif left < 20:
                sheet.take({"kind": "skipped", "name": worker, "why": f"{left:.0f} s are left"})
            elif failure := start(worker, folder, end, folder / "worker.log", sheet.take):
                sheet.take({"kind": "skipped", "name": f"the rest of {worker}", "why": failure})
    summary = {
        "machine": machine,
        "checks": sheet.checks,
        "rates": sheet.rates,
        "memory": sheet.memory,
        "skipped": sheet.skipped,
    }
    print(f"\n{time.time() - end + 60 * args.minutes:.0f} s\n{json.dumps(summary)}", flush=True)
    if not all(check["ok"] for check in sheet.checks.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
