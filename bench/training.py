"""How fast both training stages run, beside plain TRL on the same machine: tokens per second, MFU and memory.

python bench/training.py                                     a tiny model, anywhere: shows that it works
python bench/training.py --shape 1b --peak-tflops 312        on a GPU; 312 is an A100's dense bfloat16 peak, 989 an H100's
python bench/training.py --shape 7b --quantisation nf4 --peak-tflops 312

Models are randomly initialised, texts synthetic and all of one length. "ours" is scripts/instruct.py and scripts/refine.py as the
workflow runs them; "TRL" its SFTTrainer and DPOTrainer with the same texts and batches, tokenising by themselves and computing
the reference anew at each update. Runs take turns, `--runs` of each; seconds are those of the trainer's loop, for DPO with the
reference's likelihoods, which ours computes before. MFU counts four floating-point operations per parameter and token under LoRA
and six in full (Kaplan et al. 2020, arXiv 2001.08361), none for what is computed again.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from conftest import build_tiny_model  # noqa: E402
from selfrefine.checkpoints import write_manifest  # noqa: E402
from selfrefine.files import read_json, write_json, write_jsonl  # noqa: E402
from selfrefine.provenance import describe_files  # noqa: E402

SHAPES = {
    "tiny": {},
    "1b": {
        "vocab_size": 32000,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
    "7b": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
}
INSTRUCTION = "Choose from {labels}."
CUE = "Answer: Let's think step by step"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--quantisation", choices=["none", "nf4"], default="none")
    parser.add_argument("--words", type=int, default=60, help="of an answer; a word is about two tokens (default: 60)")
    parser.add_argument("--batch", type=int, default=16, help="examples per update (default: 16)")
    parser.add_argument("--micro-batch", type=int, default=8, help="examples per forward pass (default: 8)")
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations")
    parser.add_argument("--peak-tflops", type=float, help="of the GPU; without it no MFU is given")
    parser.add_argument("--plain", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def make(folder: Path, args: argparse.Namespace) -> None:
    """The model as a checkpoint, items, demonstrations and pairs."""
    model = folder / "model"
    model.mkdir()
    build_tiny_model(model, **SHAPES[args.shape])
    names = [path.name for path in model.iterdir()]
    write_json(model / "manifest.json", {"artifact": "model", "source": {}, "files": describe_files(model, names)})
    write_manifest(folder / "base/manifest.json", "base", model, [])
    number = args.batch * args.updates
    items, demonstrations, pairs = [], [], []
    for i in range(number + args.batch):
        item = {
            "id": f"{i:016x}",
            "kind": "choice",
            "question": f"Box {i:06d}?",
            "choices": ["red", "blue"],
            "answer": "A",
        }
        good, bad = (
            {
                "id": side,
                "text": f"{colour} " * args.words + f"The answer is {letter}.",
                "finished": True,
                "correct": letter == "A",
            }
            for side, colour, letter in (("g", "red", "A"), ("b", "blue", "B"))
        )
        items.append(item)
        split = "train" if i < number else "validation"
        pairs.append(
            {"id": item["id"], "item": item["id"], "split": split, "prompt": "cot", "chosen": good, "rejected": bad}
        )
        if i < number:
            demonstrations.append({"id": item["id"], "item": item["id"], "text": good["text"]})
    for name, rows in (("items", items), ("demonstrations", demonstrations), ("pairs", pairs)):
        write_jsonl(folder / f"{name}.jsonl", rows)


def settings(args: argparse.Namespace, **others) -> dict:
    return {
        "epochs": 1,
        "batch_size": args.batch,
        "micro_batch_size": args.micro_batch,
        "method": args.method,
        "gradient_checkpointing": args.checkpointing,
        "max_length": 8192,
        **others,
    }


def ours(stage: str, folder: Path, args: argparse.Namespace) -> dict:
    """One run of a stage's program: {tokens, seconds, memory}."""
    recipe = {"prompt": {"instruction": INSTRUCTION}, "quantisation": args.quantisation}
    if stage == "instruct":
        recipe["training"] = settings(args, save_every=10**6)
        data = ["--demonstrations", folder / "demonstrations.jsonl"]
    else:
        recipe["training"] = settings(args, evaluate_every=10**6)
        data = ["--pairs", folder / "pairs.jsonl"]
    with tempfile.TemporaryDirectory(dir=folder) as made:
        command = [sys.executable, ROOT / f"scripts/{stage}.py", "--recipe", json.dumps(recipe)]
        command += ["--start", folder / "base/manifest.json", "--items", folder / "items.jsonl", *data]
        command += ["--threads", os.cpu_count(), "--manifest", f"{made}/manifest.json"]
        command += ["--log", f"{made}/training.jsonl", "--provenance", f"{made}/provenance.json"]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        figures = read_json(Path(made) / "provenance.json")["figures"]
    memory = figures.get("peak_gpu_memory_mib")
    seconds = figures["training_seconds"] + figures.get("reference_seconds", 0.0)
    return {"tokens": figures["tokens_seen"], "seconds": seconds, "memory": memory}


def plain(stage: str, folder: Path, args: argparse.Namespace) -> None:
    """TRL by itself, in a process of its own; prints what `ours` returns."""
    import torch
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from selfrefine.files import read_jsonl
    from selfrefine.models import load_model, load_tokenizer
    from selfrefine.prompts import Prompt, messages
    from selfrefine.training import Lora, lora_config

    items = {item["id"]: item for item in read_jsonl(folder / "items.jsonl")}
    texts = [row for row in read_jsonl(folder / "pairs.jsonl") if row["split"] == "train"]
    wanted = {"completion": "chosen"} if stage == "instruct" else {"chosen": "chosen", "rejected": "rejected"}
    rows = [
        {
            "prompt": messages(items[row["item"]], Prompt(instruction=INSTRUCTION), "cot"),
            **{key: [{"role": "assistant", "content": row[side]["text"]}] for key, side in wanted.items()},
        }
        for row in texts
    ]
    with tempfile.TemporaryDirectory(dir=folder) as made:
        common = {
            "output_dir": made,
            "max_steps": args.updates,
            "per_device_train_batch_size": args.micro_batch,
            "gradient_accumulation_steps": args.batch // args.micro_batch,
            "gradient_checkpointing": args.checkpointing,
            "max_length": None,
            "bf16": args.method == "full",
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": not torch.cuda.is_available(),
        }
        trainer_class, config = (SFTTrainer, SFTConfig) if stage == "instruct" else (DPOTrainer, DPOConfig)
        dtype = "float32" if args.method == "full" else "bfloat16"
        trainer = trainer_class(
            model=load_model(folder / "model", dtype, args.quantisation, training=True),
            args=config(**common),
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(folder / "model"),
            peft_config=lora_config(Lora()) if args.method == "lora" else None,
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    tokens = max(entry["num_tokens"] for entry in trainer.state.log_history if "num_tokens" in entry)
    memory = torch.cuda.max_memory_reserved() >> 20 if torch.cuda.is_available() else None
    print(json.dumps({"tokens": tokens, "seconds": seconds, "memory": memory}))


def parameters(folder: Path) -> int:
    """The weights of a model's folder, counted in its files."""
    from safetensors import safe_open

    total = 0
    for path in (folder / "model").glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (no mapping)
    return total


def main() -> None:
    args = arguments()
    if args.plain:
        plain(args.plain, args.folder, args)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make(folder, args)
        weights = parameters(folder)
        operations = (6 if args.method == "full" else 4) * weights
        print(
            f"{weights / 1e9:.2f} billion weights, {args.method}, {args.quantisation}, {args.updates} updates of {args.batch}\n"
        )
        print("| stage | of | tokens/s | MFU | GPU memory, GiB |\n|---|---|---|---|---|")
        for stage in ("instruct", "refine"):
            found: dict[str, list[dict]] = {"ours": [], "TRL": []}
            for _ in range(args.runs):
                found["ours"].append(ours(stage, folder, args))
                command = [sys.executable, __file__, *sys.argv[1:], "--plain", stage, "--folder", str(folder)]
                outcome = subprocess.run(
                    command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
                )
                found["TRL"].append(json.loads(outcome.stdout.splitlines()[-1]))
            speeds = {}
            for name, runs in found.items():
                speeds[name] = statistics.median(run["tokens"] / run["seconds"] for run in runs)
                mfu = f"{speeds[name] * operations / (args.peak_tflops * 1e12):.1%}" if args.peak_tflops else ""
                memory = f"{runs[0]['memory'] / 1024:.1f}" if runs[0]["memory"] else ""
                print(f"| {stage} | {name} | {speeds[name]:,.0f} | {mfu} | {memory} |", flush=True)
            print(f"| {stage} | ratio | {speeds['ours'] / speeds['TRL']:.2f} | | |", flush=True)


if __name__ == "__main__":
    main()
