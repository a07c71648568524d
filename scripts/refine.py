"""Phase 2: preference optimisation (TRL's DPOTrainer) from a checkpoint, against that checkpoint frozen.

Keeps the weights of lowest validation loss. An interrupted run goes on from its last trainer checkpoint.
"""

import argparse
from pathlib import Path

from selfrefine import cli
from selfrefine.benchmarks import known_item, read_items
from selfrefine.checkpoints import write_manifest
from selfrefine.errors import UserError
from selfrefine.files import read_jsonl, write_jsonl
from selfrefine.models import load_model, load_tokenizer, open_checkpoint, set_threads
from selfrefine.prompts import messages
from selfrefine.provenance import TRAINER, Run
from selfrefine.training import (
    RefineRecipe,
    common_arguments,
    encode_completion,
    encode_prompt,
    lora_config,
    open_scratch,
    run_to_the_end,
    save_adapter,
    tokens_seen,
    updates,
)


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_recipe(parser, RefineRecipe)
    parser.add_argument(
        "--start", required=True, type=Path, help="the manifest of the checkpoint to start from: also the reference"
    )
    parser.add_argument("--items", required=True, type=Path, help="the training items")
    parser.add_argument("--pairs", required=True, type=Path, help="the preference pairs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--manifest", required=True, type=Path, help="the new checkpoint's manifest, in its folder")
    parser.add_argument("--log", required=True, type=Path, help="losses and rewards by update, as JSON lines")
    cli.add_provenance(parser)
    return parser.parse_args()


def build_examples(
    pairs: list[dict], items: dict[str, dict], recipe: RefineRecipe, tokenizer
) -> tuple[dict[str, list[dict]], dict]:
    """Tokenised pairs by split, and how many were used and dropped as too long.

    {prompt_ids, chosen_ids, rejected_ids}; where the chosen text alone is learned, {input_ids, completion_mask}.
    """
    examples: dict[str, list[dict]] = {"train": [], "validation": []}
    too_long = 0
    for pair in sorted(pairs, key=lambda pair: pair["id"]):
        chat = messages(known_item(items, pair), recipe.prompt, pair["prompt"], system=recipe.system)
        prompt = encode_prompt(tokenizer, chat)
        sides = ("chosen",) if recipe.objective.loss == "sft" else ("chosen", "rejected")
        texts = {s: encode_completion(tokenizer, chat, pair[s]["text"], pair[s]["finished"]) for s in sides}
        if len(prompt) + max(map(len, texts.values())) > recipe.training.max_length:
            too_long += 1
            continue
        chosen = texts["chosen"]
        if chosen[-1] != tokenizer.eos_token_id:
            raise UserError(f"pair {pair['id']}: the chosen answer does not end with the stop token")
        if recipe.objective.loss == "sft":
            row = {"input_ids": prompt + chosen, "completion_mask": [0] * len(prompt) + [1] * len(chosen)}
        else:
            row = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": texts["rejected"]}
        examples[pair["split"]].append(row)
    counts = {split: len(rows) for split, rows in examples.items()} | {"too_long": too_long}
    return examples, counts


def make_trainer(model, adapter: bool, arguments: dict, recipe: RefineRecipe, examples: dict, tokenizer):
    """TRL's trainer for the recipe's objective, over texts that are tokenised already, exactly as they were sampled.

    `adapter`: whether the model comes with one to train on; otherwise a new one is made.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    objective, settings = recipe.objective, recipe.training
    data = {
        "train_dataset": Dataset.from_list(examples["train"]),
        "eval_dataset": Dataset.from_list(examples["validation"]),
        "processing_class": tokenizer,
        "peft_config": None if adapter else lora_config(settings.lora),
    }
    if objective.loss == "sft":
        return SFTTrainer(model=model, args=SFTConfig(**arguments, completion_only_loss=True), **data)
    beta = objective.beta or settings.beta

    class PairTrainer(DPOTrainer):
        def _prepare_dataset(self, dataset, *_):
            return dataset

        def _precompute_ref_logps(self, dataset, name, batch_size):
            if objective.reference == "start":
                return super()._precompute_ref_logps(dataset, name, batch_size)
            # Without a reference the log-likelihoods themselves count. Planted here, the margin is subtracted from the
            # length-normalised difference: log-sigmoid(beta * difference - margin), as SimPO has it (arXiv 2405.14734).
            planted = [objective.margin / beta * len(row["chosen_ids"]) for row in dataset]
            dataset = dataset.add_column("ref_chosen_logps", planted)
            return dataset.add_column("ref_rejected_logps", [0.0] * len(dataset))

    config = DPOConfig(
        **arguments,
        beta=beta,
        loss_type=[objective.loss, *(["sft"] if objective.nll else [])],
        loss_weights=[1.0, objective.nll] if objective.nll else None,
        precompute_ref_log_probs=True,
    )
    return PairTrainer(model=model, args=config, **data)


def main() -> None:
    args = arguments()
    scratch = args.manifest.parent / TRAINER
    inputs = [args.start, args.items, args.pairs]
    with Run(__file__, args.recipe.model_dump(), inputs, args.provenance, args.recipe.seed) as run:
        if not run.made:
            refine(args, scratch, run)


def refine(args: argparse.Namespace, scratch: Path, run: Run) -> None:
    recipe, settings = args.recipe, args.recipe.training
    set_threads(args.threads)
    folder, adapter, _ = open_checkpoint(args.start)
    tokenizer = load_tokenizer(folder)
    examples, counts = build_examples(read_jsonl(args.pairs), read_items(args.items), recipe, tokenizer)
    if not examples["train"] or not examples["validation"]:
        raise UserError(f"{args.pairs}: too few pairs are left ({counts}); raise `max_length` or sample more")

    from peft import PeftModel

    open_scratch(scratch, run)
    steps = min(settings.max_steps, updates(len(examples["train"]), settings.batch_size, settings.epochs))
    every = min(settings.evaluate_every, steps)
    arguments = common_arguments(settings, scratch, recipe.seed, steps) | {
        "per_device_eval_batch_size": settings.micro_batch_size,
        "warmup_steps": settings.warmup_steps,
        "eval_strategy": "steps",
        "eval_steps": every,
        "save_steps": every,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
    }
    model = load_model(folder, recipe.dtype)
    if adapter:
        # A PeftModel without a peft_config makes the trainer keep a frozen copy of the adapter as the reference; with a
        # peft_config the reference would be the base model.
        model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    trainer = make_trainer(model, bool(adapter), arguments, recipe, examples, tokenizer)
    history = run_to_the_end(trainer, scratch, steps)
    names = save_adapter(trainer.model, args.manifest.parent)
    log = [training_row(entry) for entry in history if "loss" in entry or "eval_loss" in entry]
    write_jsonl(args.log, log)
    write_manifest(args.manifest, "refine", folder, names)
    losses = {row["step"]: row["loss"] for row in log if row["split"] == "validation"}
    run.record(
        [args.manifest, args.log, *(args.manifest.parent / name for name in names)],
        pairs=counts,
        updates=steps,
        validation_loss=losses,
        kept_update=min(losses, key=losses.get),
        tokens_seen=tokens_seen(history),
    )


def training_row(entry: dict) -> dict:
    """One line of the training log: loss and, of pairs, reward margin (chosen - rejected, in nats times beta) and accuracy."""
    prefix, split = ("eval_", "validation") if "eval_loss" in entry else ("", "train")
    return {
        "step": entry["step"],
        "split": split,
        "loss": entry[f"{prefix}loss"],
        "margin": entry.get(f"{prefix}rewards/margins"),
        "accuracy": entry.get(f"{prefix}rewards/accuracies"),
    }


if __name__ == "__main__":
    cli.run(main)
