"""Phase 2: preference optimisation (TRL's trainers) from a checkpoint, against that checkpoint frozen.

Keeps the weights of lowest validation loss. An interrupted run goes on from its last trainer checkpoint.
"""

import argparse
import time
from pathlib import Path

from selfrefine import cli
from selfrefine.benchmarks import known_item, read_items
from selfrefine.checkpoints import write_manifest
from selfrefine.errors import UserError
from selfrefine.files import read_jsonl, write_jsonl
from selfrefine.models import load_tokenizer, open_checkpoint, settle_torch
from selfrefine.preferences import Objective
from selfrefine.processes import agreed, state
from selfrefine.prompts import messages
from selfrefine.provenance import TRAINER, Run
from selfrefine.training import (
    EpochOrder,
    RefineRecipe,
    ShardedAlike,
    common_arguments,
    encode_completion,
    encode_prompt,
    gathered,
    load_for_training,
    lora_config,
    on_one_gpu,
    open_scratch,
    restore_precision,
    run_to_the_end,
    save_trained,
    shared_dataset,
    tokens_seen,
    trainable,
    training_seconds,
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

    {prompt_ids, chosen_ids, rejected_ids}; where the chosen text alone is learned, {input_ids, completion_mask}; where each
    text is judged by itself, {prompt_ids, completion_ids, label}, the label True for chosen ones.
    """
    examples: dict[str, list[dict]] = {"train": [], "validation": []}
    too_long = 0
    for pair in sorted(pairs, key=lambda pair: pair["id"]):
        chat = messages(known_item(items, pair), recipe.prompt, pair["prompt"], system=recipe.system)
        prompt = encode_prompt(tokenizer, chat)
        sides = [side for side in ("chosen", "rejected") if pair[side]]
        texts = {s: encode_completion(tokenizer, chat, pair[s]["text"], pair[s]["finished"]) for s in sides}
        if len(prompt) + max(map(len, texts.values())) > recipe.training.max_length:
            too_long += 1
            continue
        if "chosen" in texts and texts["chosen"][-1] != tokenizer.eos_token_id:
            raise UserError(f"pair {pair['id']}: the chosen answer does not end with the stop token")
        if recipe.objective.loss == "sft":
            mask = [0] * len(prompt) + [1] * len(texts["chosen"])
            rows = [{"input_ids": prompt + texts["chosen"], "completion_mask": mask}]
        elif recipe.objective.loss == "kto":
            rows = [{"prompt_ids": prompt, "completion_ids": texts[s], "label": s == "chosen"} for s in sides]
        else:
            rows = [{"prompt_ids": prompt, "chosen_ids": texts["chosen"], "rejected_ids": texts["rejected"]}]
        examples[pair["split"]] += rows
    counts = {split: len(rows) for split, rows in examples.items()} | {"too_long": too_long}
    return examples, counts


def make_trainer(model, adapter: bool, arguments: dict, recipe: RefineRecipe, examples: dict, tokenizer):
    """TRL's trainer for the recipe's objective, over texts that are tokenised already, exactly as they were sampled.

    `adapter`: whether the model comes with one to train on; otherwise a new one is made, unless all weights are trained.
    """
    from trl import SFTConfig, SFTTrainer

    class TextTrainer(ShardedAlike, SFTTrainer):
        def _get_train_sampler(self, dataset=None):
            return order_of(self)

    objective, settings = recipe.objective, recipe.training
    scratch = Path(arguments["output_dir"])
    data = {
        "train_dataset": shared_dataset(examples["train"], scratch / "train"),
        "eval_dataset": shared_dataset(examples["validation"], scratch / "validation"),
        "processing_class": tokenizer,
        "peft_config": None if adapter or settings.method == "full" else lora_config(settings.lora),
    }
    if objective.loss == "sft":
        return TextTrainer(model=model, args=on_one_gpu(SFTConfig(**arguments, completion_only_loss=True)), **data)
    beta = objective.beta or settings.beta
    if objective.loss == "kto":
        return single_text_trainer(model, arguments, beta, data)
    return pair_trainer(model, arguments, beta, objective, data)


def order_of(trainer) -> EpochOrder:
    """The order in which a trainer sees its examples."""
    arguments, processes = trainer.args, state().num_processes
    size = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * processes
    return EpochOrder(len(trainer.train_dataset), size, arguments.seed)


def pair_trainer(model, arguments: dict, beta: float, objective: Objective, data: dict):
    """TRL's DPOTrainer for the losses that compare two texts."""
    import torch
    from torch.nn.functional import logsigmoid
    from trl import DPOConfig, DPOTrainer

    class PairTrainer(ShardedAlike, DPOTrainer):
        def _prepare_dataset(self, dataset, *_):
            return dataset

        def _get_train_sampler(self, dataset=None):
            return order_of(self)

        def _precompute_ref_logps(self, dataset, name, batch_size):
            if objective.reference == "start":
                return super()._precompute_ref_logps(dataset, name, batch_size)
            # Without a reference the log-likelihoods themselves count. Planted here, the margin is subtracted from the
            # length-normalised difference: log-sigmoid(beta * difference - margin), as SimPO has it (arXiv 2405.14734).
            planted = [objective.margin / beta * len(row["chosen_ids"]) for row in dataset]
            dataset = dataset.add_column("ref_chosen_logps", planted)
            return dataset.add_column("ref_rejected_logps", [0.0] * len(dataset))

    class OddsTrainer(PairTrainer):
        """Adds ORPO's term (arXiv 2403.07691, equations 4 and 7); TRL's own trainer for it would tokenise the texts anew."""

        def _compute_loss(self, model, inputs, return_outputs):
            outputs = []

            def watched(**kwargs):
                outputs.append(model(**kwargs))
                return outputs[-1]

            loss = super()._compute_loss(watched, inputs, return_outputs)
            mask = inputs["completion_mask"][:, 1:]
            mean = outputs[0].log_probs[:, -mask.size(1) :].float().sum(1) / mask.sum(1)
            log_odds = mean - torch.log(-torch.expm1(mean))
            chosen, rejected = log_odds.chunk(2)
            return loss - beta * logsigmoid(chosen - rejected).mean()

    odds = objective.loss == "odds_ratio"
    config = DPOConfig(
        **arguments,
        beta=beta,
        loss_type=[*([] if odds else [objective.loss]), *(["sft"] if objective.nll or odds else [])],
        loss_weights=[*([] if odds else [1.0]), objective.nll] if objective.nll or odds else None,
        precompute_ref_log_probs=True,
    )
    return (OddsTrainer if odds else PairTrainer)(model=model, args=on_one_gpu(config), **data)


def single_text_trainer(model, arguments: dict, beta: float, data: dict):
    """TRL's KTOTrainer. The rarer kind of text weighs as much in all as the other (KTO, arXiv 2402.01306, equation 8)."""
    from trl import KTOConfig, KTOTrainer

    class SingleTextTrainer(ShardedAlike, KTOTrainer):
        def _prepare_dataset(self, dataset, tokenizer, args, name):
            # Texts meet other questions within their batch to estimate how far the student has moved; batches keep the
            # order of the data, so it is shuffled here.
            size = args.per_device_train_batch_size
            dataset = dataset.shuffle(seed=args.seed)
            texts = dataset["completion_ids"]
            shifted = [texts[i - 1] if i % size else texts[min(i + size, len(texts)) - 1] for i in range(len(texts))]
            return dataset.add_column("KL_completion_ids", shifted)

    good = max(sum(data["train_dataset"]["label"]), 1)
    bad = max(len(data["train_dataset"]) - good, 1)
    config = KTOConfig(
        **arguments,
        beta=beta,
        desirable_weight=max(bad / good, 1.0),
        undesirable_weight=max(good / bad, 1.0),
        precompute_ref_log_probs=True,
    )
    return SingleTextTrainer(model=model, args=on_one_gpu(config), **data)


def main() -> None:
    args = arguments()
    scratch = args.manifest.parent / TRAINER
    inputs = [args.start, args.items, args.pairs]
    leads = state().is_main_process
    with Run(__file__, args.recipe.model_dump(), inputs, args.provenance, args.recipe.seed, leads) as run:
        if not agreed(leads and run.made):
            refine(args, scratch, run)


def refine(args: argparse.Namespace, scratch: Path, run: Run) -> None:
    recipe, settings = args.recipe, args.recipe.training
    settle_torch(args.threads)
    folder, adapter, _ = open_checkpoint(args.start)
    tokenizer = load_tokenizer(folder)
    examples, counts = build_examples(read_jsonl(args.pairs), read_items(args.items), recipe, tokenizer)
    if not (examples["train"] and examples["validation"]):
        if counts["too_long"]:
            raise UserError(f"{args.pairs}: too few pairs are left ({counts}); raise `max_length`")
        if run.leads:
            leave_unchanged(args, run, folder, adapter, tokenizer, counts)
        return

    from transformers import set_seed

    open_scratch(scratch, run)
    steps = min(settings.max_steps, updates(len(examples["train"]), settings.batch_size, settings.epochs))
    every = min(settings.evaluate_every, steps)
    arguments = common_arguments(settings, scratch, recipe.seed, steps, recipe.dtype) | {
        "per_device_eval_batch_size": settings.micro_batch_size,
        "warmup_steps": settings.warmup_steps,
        "eval_strategy": "steps",
        "eval_steps": every,
        "save_steps": every,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
    }
    set_seed(recipe.seed)
    model = load_for_training(folder, adapter, recipe)
    exact = trainable(model)
    began = time.perf_counter()
    trainer = make_trainer(model, bool(adapter), arguments, recipe, examples, tokenizer)
    reference_seconds = round(time.perf_counter() - began, 1)
    restore_precision(trainer.model, exact)
    history = run_to_the_end(trainer, scratch, steps)
    weights = gathered(trainer)
    if not run.leads:
        return
    names = save_trained(trainer.model, tokenizer, args.manifest.parent, recipe.dtype, weights)
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
        reference_seconds=reference_seconds,
        training_seconds=round(training_seconds(history), 1),
    )


def leave_unchanged(args: argparse.Namespace, run: Run, folder: Path, adapter: Path | None, tokenizer, counts) -> None:
    """The checkpoint of a student whose paths gave nothing to learn from: its start, without an update.

    So one barren cell does not stop a study; the summary names it.
    """
    from peft import get_peft_model
    from transformers import set_seed

    recipe = args.recipe
    print(f"{args.pairs}: too few pairs to learn from ({counts}): the student is left as it was", flush=True)
    set_seed(recipe.seed)
    model = load_for_training(folder, adapter, recipe)
    if not adapter and recipe.training.method == "lora":
        model = get_peft_model(model, lora_config(recipe.training.lora))
    args.manifest.parent.mkdir(parents=True, exist_ok=True)
    names = save_trained(model, tokenizer, args.manifest.parent, recipe.dtype)
    write_jsonl(args.log, [])
    write_manifest(args.manifest, "refine", folder, names)
    run.record([args.manifest, args.log, *(args.manifest.parent / name for name in names)], pairs=counts, updates=0)


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
