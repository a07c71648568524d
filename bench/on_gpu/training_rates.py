"""Tokens per second and memory of both training stages, beside plain TRL."""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

from on_gpu.cases import Cases, report
from on_gpu.random_models import free, make_model, model_of, parameters, peak_gb, size_of

import instruct
import refine
from selfrefine.data.items import read_items
from selfrefine.data.prompts import messages
from selfrefine.models.checkpoints import load_model, load_tokenizer
from selfrefine.schema.optimisation import InstructTraining, Lora
from selfrefine.schema.prompt import Prompt
from selfrefine.store.files import read_json, read_jsonl, write_jsonl
from selfrefine.study import resources
from selfrefine.training.encoding import encode_completion, encode_prompt

STAGES = {"sft": "instruct", "dpo": "refine"}
INSTRUCTION = "Choose from {labels}."
# Pairs of one question in the data of the stage that learns from pairs.
PAIRS = 2


def write_data(folder: Path, args: argparse.Namespace) -> None:
    """Items, demonstrations and pairs, all of one length."""
    number = args.batch * args.updates
    items, demonstrations, pairs = [], [], []
    for i in range(number + args.batch):
        question = f"Box {i:06d}? " + "The box is red today. " * max((args.prompt - 60) // 6, 0)
        item = {"id": f"{i:016x}", "kind": "choice", "question": question, "choices": ["red", "blue"], "answer": "A"}
        items.append(item)
        good = {"id": "g", "text": "red " * args.words + "The answer is A.", "finished": True, "correct": True}
        if i < number:
            demonstrations.append({"id": item["id"], "item": item["id"], "text": good["text"]})
    # An item has one correct path and several incorrect ones, as in a study.
    for i in range(number + args.batch):
        item = items[i // PAIRS if i < number else i]
        bad = {"id": f"b{i}", "text": f"{'blue ' * args.words}The answer is B.", "finished": True, "correct": False}
        split = "train" if i < number else "validation"
        pair = {"id": f"{i:016x}", "item": item["id"], "split": split, "prompt": "cot", "chosen": good, "rejected": bad}
        pairs.append(pair)
    for name, rows in (("items", items), ("demonstrations", demonstrations), ("pairs", pairs)):
        write_jsonl(folder / f"{name}.jsonl", rows)


def tokens_of(model: Path, folder: Path) -> dict[str, int]:
    """Tokens of an example of each stage, as the stages encode it."""
    tokenizer, items = load_tokenizer(model), read_items(folder / "items.jsonl")
    pair = read_jsonl(folder / "pairs.jsonl")[0]
    chat = messages(items[pair["item"]], Prompt(instruction=INSTRUCTION), "cot")
    chosen, rejected = (
        len(encode_prompt(tokenizer, chat)) + len(encode_completion(tokenizer, chat, pair[side]["text"]))
        for side in ("chosen", "rejected")
    )
    return {"sft": chosen, "dpo": chosen + rejected}


class References:
    """The times that a reference's passes take, noted in every trainer that has one."""

    def __init__(self):
        from selfrefine.training.objectives.pairwise import PairTrainer

        self._took: list[float] = []
        passed, took = PairTrainer.compute_ref_log_probs, self._took

        def noted(trainer, *given, **more):
            import torch

            began = time.perf_counter()
            found = passed(trainer, *given, **more)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            took.append(time.perf_counter() - began)
            return found

        PairTrainer.compute_ref_log_probs = noted

    def taken(self) -> float:
        """The median of the passes since the last call: the first ones compile what they run."""
        passes = self._took.copy()
        self._took.clear()
        return statistics.median(passes) if passes else 0.0


class Ticks:
    """The times at which a trainer's updates end, noted by a callback that every trainer gets."""

    def __init__(self):
        import transformers.trainer as trainer
        from transformers import TrainerCallback

        self.ended = ended = []

        class Noting(TrainerCallback):
            def on_step_end(self, *given, **more):
                import torch

                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                ended.append(time.perf_counter())

        trainer.DEFAULT_CALLBACKS.append(Noting)

    def taken(self) -> list[float]:
        """The times since the last call."""
        times = self.ended.copy()
        self.ended.clear()
        return times


def run_program(program: ModuleType, settings: dict, folder: Path, shape: str, made: Path, *data: str | Path) -> None:
    """Runs a training stage's program on a model and the items, as a rule would; its record lies in `made`."""
    command = [program.__file__, "--settings", json.dumps(settings), *data, "--items", folder / "items.jsonl"]
    command += ["--start", model_of(folder, shape) / "record.json", "--threads", os.cpu_count()]
    command += ["--record", made / "record.json"]
    given, sys.argv = sys.argv, list(map(str, command))
    try:
        program.main()
    finally:
        sys.argv = given


def ours(part: str, folder: Path, shape: str, quantisation: str, args: argparse.Namespace) -> dict:
    """One run of a stage's program: its record's figures."""
    training = {
        "epochs": 1,
        "batch_size": args.batch,
        "micro_batch_size": args.micro_batch,
        "method": args.method,
        "gradient_checkpointing": args.checkpointing,
        "max_length": 4096,
    }
    settings = {"prompt": {"instruction": INSTRUCTION}, "quantisation": quantisation}
    if part == "sft":
        settings["training"] = training | {"save_every": 10**6}
        program, data = instruct, ["--demonstrations", folder / "demonstrations.jsonl"]
    else:
        settings["training"] = training | {"evaluate_every": 10**6}
        program, data = refine, ["--pairs", folder / "pairs.jsonl"]
    with tempfile.TemporaryDirectory(dir=folder) as made:
        run_program(program, settings, folder, shape, Path(made), *data)
        return read_json(Path(made) / "record.json")["figures"]


def plain(part: str, folder: Path, shape: str, quantisation: str, args: argparse.Namespace) -> dict:
    """TRL by itself."""
    import torch
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from selfrefine.training.trainable_weights import lora_config

    model, items = model_of(folder, shape), read_items(folder / "items.jsonl")

    def row(of: dict, **responses: str) -> dict:
        said = {name: [{"role": "assistant", "content": text}] for name, text in responses.items()}
        return {"prompt": messages(items[of["item"]], Prompt(instruction=INSTRUCTION), "cot"), **said}

    if part == "sft":
        rows = [row(d, completion=d["text"]) for d in read_jsonl(folder / "demonstrations.jsonl")]
    else:
        pairs = [pair for pair in read_jsonl(folder / "pairs.jsonl") if pair["split"] == "train"]
        rows = [row(p, chosen=p["chosen"]["text"], rejected=p["rejected"]["text"]) for p in pairs]
    trainer_class, config = (SFTTrainer, SFTConfig) if part == "sft" else (DPOTrainer, DPOConfig)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        settings = config(
            output_dir=made,
            max_steps=args.updates,
            per_device_train_batch_size=args.micro_batch,
            gradient_accumulation_steps=args.batch // args.micro_batch,
            gradient_checkpointing=args.checkpointing,
            max_length=None,
            # On a GPU as TRL has it, in mixed precision.
            bf16=None if torch.cuda.is_available() else args.method == "full",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
        )
        trainer = trainer_class(
            model=load_model(model, "float32" if args.method == "full" else "bfloat16", quantisation, training=True),
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(model),
            peft_config=lora_config(Lora()) if args.method == "lora" else None,
        )
        began = time.perf_counter()
        trainer.train()
        return {"training_seconds": time.perf_counter() - began}


def measure_training(folder: Path, shape: str, quantisation: str, cases: Cases, args: argparse.Namespace) -> None:
    """Both stages on one model, ours and TRL's alternating."""
    model = make_model(folder, shape)
    weights, lengths, ticks, references = parameters(model), tokens_of(model, folder), Ticks(), References()
    stages = [part for part in STAGES if part in args.only] or list(STAGES)
    sides = {"ours": ours, "TRL": plain} if set(STAGES).intersection(args.only) else {"ours": ours}
    for part in stages:
        of, found = f"{part} {shape} {quantisation} {args.method}", {name: [] for name in sides}
        for name, side in [*sides.items()] * args.runs:
            with cases.case(f"{of}, {name}") as runs:
                if not runs:
                    continue
                free()
                ticks.taken()
                figures = side(part, folder, shape, quantisation, args)
                once = args.batch / args.micro_batch * references.taken()
                found[name].append(speed(figures, ticks.taken(), lengths[part] * args.batch, args.updates, once))
        for name, timings in found.items():
            if timings:
                seen = statistics.median(run["speed"] for run in timings)
                report("training", of, side=name, speed=seen, memory=timings[0]["memory"], weights=weights)
        if "memory" in args.only and found["ours"]:
            used = found["ours"][0]["memory"]
            if used is None:
                report("skipped", f"memory of {of}", why="there is no GPU whose memory could be measured")
                continue
            size, lora = size_of(model, shape), InstructTraining().lora
            full = args.method == "full"
            estimated = resources.training(
                size,
                2,
                0.0 if full else resources.PACKED_BYTES if quantisation == "nf4" else 2,
                size.parameters if full else size.lora(lora.r),
                args.micro_batch * lengths[part],
                args.checkpointing,
                not full,
            ).total
            report("memory", of, estimated=estimated, used=used, ratio=estimated / used)


def speed(figures: dict, ticks: list[float], tokens: int, updates: int, reference: float) -> dict:
    """{speed, memory} of one training with `tokens` per update: from its ticks, or, without those, from all of it.

    `reference`: seconds that a reference takes for the examples of an update, where it runs before the first one.
    """
    if len(ticks) == updates:
        seconds = (ticks[-1] - ticks[0]) / (updates - 1)
    else:
        seconds = figures["training_seconds"] / updates
    return {"speed": tokens / (seconds + reference), "memory": peak_gb()}
