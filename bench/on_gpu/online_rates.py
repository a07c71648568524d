"""GRPO as the workflow runs it, beside TRL's own with `generate`: sampled tokens per second, and where it starts."""

import argparse
import tempfile
from pathlib import Path

from on_gpu.cases import Cases, report
from on_gpu.random_models import free, make_model, model_of, parameters, peak_gb
from on_gpu.training_rates import INSTRUCTION, Ticks, run_program

import refine_online
from selfrefine.data.items import read_items
from selfrefine.data.prompts import messages
from selfrefine.models.checkpoints import load_model, load_tokenizer
from selfrefine.schema.optimisation import Lora
from selfrefine.schema.prompt import Prompt
from selfrefine.store.files import read_jsonl

# Completions of an update and of a prompt, most tokens of a completion, and updates.
BATCH, GROUP, TOKENS, UPDATES = 64, 8, 128, 4
KL = 0.04


def ours(folder: Path, shape: str, args: argparse.Namespace) -> tuple[list[float], float | None]:
    """Of a run of the stage's program, the tokens sampled for each update, and the divergence at the first."""
    training = {
        "batch_size": BATCH,
        "micro_batch_size": args.micro_batch,
        "max_steps": UPDATES,
        "epochs": 1000,
        "schedule": "constant",
        "warmup_steps": 0,
        "save_every": 10**6,
        "method": args.method,
        "max_length": 4096,
    }
    generation = {"max_tokens": TOKENS, "temperature": 1.0}
    settings = {
        "prompt": {"instruction": INSTRUCTION},
        "batch_size": BATCH,
        "training": training,
        "online": {"group": GROUP, "kl": KL, "generation": generation, "learn_cut": True},
    }
    with tempfile.TemporaryDirectory(dir=folder) as made:
        run_program(refine_online, settings, folder, shape, Path(made))
        rows = read_jsonl(Path(made) / "training.jsonl")
        return [row["sampled_tokens"] for row in rows], rows[0]["kl"]


def plain(folder: Path, shape: str, args: argparse.Namespace) -> tuple[list[float], float | None]:
    """The same of TRL by itself, which samples with `generate`."""
    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from selfrefine.training.trainable_weights import lora_config

    model, items = model_of(folder, shape), read_items(folder / "items.jsonl")
    rows = [{"prompt": messages(item, Prompt(instruction=INSTRUCTION), "cot")} for item in items.values()]
    with tempfile.TemporaryDirectory(dir=folder) as made:
        settings = GRPOConfig(
            output_dir=made,
            max_steps=UPDATES,
            per_device_train_batch_size=args.micro_batch,
            gradient_accumulation_steps=BATCH // args.micro_batch,
            num_generations=GROUP,
            max_completion_length=TOKENS,
            beta=KL,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
            bf16=torch.cuda.is_available(),
        )
        trainer = GRPOTrainer(
            model=load_model(model, "float32" if args.method == "full" else "bfloat16", "none", training=True),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(model),
            peft_config=lora_config(Lora()) if args.method == "lora" else None,
        )
        trainer.train()
        lengths = [
            row["completions/mean_length"] for row in trainer.state.log_history if "completions/mean_length" in row
        ]
        return [BATCH * length for length in lengths], None


def measure_online(folder: Path, shape: str, cases: Cases, args: argparse.Namespace) -> None:
    """A few updates of both; ours has to start at its reference."""
    weights, ticks, of = parameters(make_model(folder, shape)), Ticks(), f"online {shape} {args.method}"
    for name, side in {"ours": ours, "TRL": plain}.items():
        with cases.case(f"{of}, {name}") as runs:
            if not runs:
                continue
            free()
            ticks.taken()
            sampled, kl = side(folder, shape, args)
            if kl is not None:
                report(
                    "check",
                    of,
                    ok=abs(kl) < 1e-6,
                    detail=f"divergence from the reference at the first update: {kl:.1e}",
                )
            # The first update loads what is needed later.
            ended = ticks.taken()
            speed = sum(sampled[1:]) / (ended[-1] - ended[0])
            report("training", of, side=name, speed=speed, memory=peak_gb(), weights=weights)
