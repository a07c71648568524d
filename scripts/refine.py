"""Phase 2: preference optimisation (TRL's trainers) from a checkpoint, against that checkpoint frozen.

Keeps the weights of lowest validation loss. An interrupted run goes on from its last trainer checkpoint.
"""

import argparse
import time
from pathlib import Path

from selfrefine import cli
from selfrefine.benchmarks import known_item, read_items
from selfrefine.computing import computed_in
from selfrefine.errors import UserError
from selfrefine.files import read_jsonl, write_jsonl
from selfrefine.models import load_tokenizer, open_checkpoint, settle_torch
from selfrefine.names import TRAINING
from selfrefine.preferences import Objective
from selfrefine.processes import agreed, state
from selfrefine.prompts import messages
from selfrefine.provenance import TRAINER, Run
from selfrefine.training import (
    EpochOrder,
    RefineRecipe,
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
    tokens_passed,
    trainable,
    training_seconds,
    updates,
)


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_recipe(parser, RefineRecipe)
    parser.add_argument(
        "--start", required=True, type=Path, help="the record of the checkpoint to start from: also the reference"
    )
    parser.add_argument("--items", required=True, type=cli.file_of("prepare"), help="the training items")
    parser.add_argument("--pairs", required=True, type=cli.file_of("pair"), help="the preference pairs")
    parser.add_argument("--threads", type=int, default=1)
    cli.add_compute(parser)
    cli.add_record(parser)
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

    from selfrefine.updates import TextUpdates

    class TextTrainer(TextUpdates, SFTTrainer):
        def _get_train_sampler(self, dataset=None):
            return EpochOrder(len(self.train_dataset), settings.batch_size, self.args.seed)

    objective, settings = recipe.objective, recipe.training
    scratch = Path(arguments["output_dir"])
    options = {
        "model": model,
        "train_dataset": shared_dataset(examples["train"], scratch / "train"),
        "eval_dataset": shared_dataset(examples["validation"], scratch / "validation"),
        "processing_class": tokenizer,
        "peft_config": None if adapter or settings.method == "full" else lora_config(settings.lora),
        "update": settings.batch_size,
        "longest": longest([*examples["train"], *examples["validation"]]),
    }
    if objective.loss == "sft":
        return TextTrainer(args=on_one_gpu(SFTConfig(**arguments, completion_only_loss=True)), **options)
    beta = objective.beta or settings.beta
    if objective.loss == "kto":
        return single_text_trainer(arguments, beta, options)
    return pair_trainer(arguments, beta, objective, options)


def longest(examples: list[dict]) -> int:
    """Tokens of the longest text that can be put together from examples: any prompt, any answer to it."""
    parts: dict[str, int] = {}
    for example in examples:
        for name, ids in example.items():
            if name.endswith("_ids"):
                kind = "begun" if name == "prompt_ids" else "answered"
                parts[kind] = max(parts.get(kind, 0), len(ids))
    return sum(parts.values())


def pair_trainer(arguments: dict, beta: float, objective: Objective, options: dict):
    """TRL's DPOTrainer for the losses that compare two texts.

    What is learned of single tokens is added here: TRL would take its mean over each pass.
    """
    import torch
    from torch.nn.functional import logsigmoid
    from trl import DPOConfig, DPOTrainer

    from selfrefine.updates import WholeUpdates

    odds = objective.loss == "odds_ratio"

    class PairTrainer(WholeUpdates, DPOTrainer):
        def _prepare_dataset(self, dataset, *_):
            return dataset

        def _get_train_sampler(self, dataset=None):
            return EpochOrder(len(self.train_dataset), options["update"], self.args.seed)

        def _precompute_ref_logps(self, dataset, name, batch_size):
            if objective.reference == "start":
                return super()._precompute_ref_logps(dataset, name, batch_size)
            # Without a reference the log-likelihoods themselves count. Planted here, the margin is subtracted from the
            # length-normalised difference: log-sigmoid(beta * difference - margin), as SimPO has it (arXiv 2405.14734).
            planted = [objective.margin / beta * len(row["chosen_ids"]) for row in dataset]
            dataset = dataset.add_column("ref_chosen_logps", planted)
            return dataset.add_column("ref_rejected_logps", [0.0] * len(dataset))

        def length(self, example):
            return 2 * len(example["prompt_ids"]) + len(example["chosen_ids"]) + len(example["rejected_ids"])

        def answers(self, example):
            return len(example["chosen_ids"])

        def together(self, examples):
            # Pairs of one question share its prompt where they pass together.
            by_prompt: dict[tuple, list[dict]] = {}
            for example in examples:
                by_prompt.setdefault(tuple(example["prompt_ids"]), []).append(example)
            return [example for alike in by_prompt.values() for example in alike]

        def learned(self, model, share, update):
            heard = []

            def asked(**inputs):
                outputs = model(**inputs)
                heard.append(outputs.log_probs)
                return outputs

            loss = self.compute_loss(asked, share["batch"])
            (found,) = heard
            if odds:
                # ORPO's term (arXiv 2403.07691, equations 4 and 7); TRL's own trainer for it would tokenise the texts anew.
                mean = found.float().sum(1) / share["batch"]["completion_mask"][:, 1:].sum(1)
                log_odds = mean - torch.log(-torch.expm1(mean))
                chosen, rejected = log_odds.chunk(2)
                loss = -beta * logsigmoid(chosen - rejected).mean()
            loss = loss * share["part"]
            if objective.nll:
                counted = self.args.world_size / share["copies"] / update["answers"]
                loss = loss - objective.nll * found.chunk(2)[0].float().sum() * counted
            return loss

    config = DPOConfig(
        **arguments,
        beta=beta,
        # Of the odds TRL knows nothing; its loss is computed beside them, for the rewards that it logs.
        loss_type="sigmoid" if odds else objective.loss,
        precompute_ref_log_probs=True,
    )
    return PairTrainer(args=on_one_gpu(config), **options)


def single_text_trainer(arguments: dict, beta: float, options: dict):
    """TRL's KTOTrainer. The rarer kind of text weighs as much in all as the other (KTO, arXiv 2402.01306, equation 8)."""
    from trl import KTOConfig, KTOTrainer

    from selfrefine.updates import WholeUpdates

    class SingleTextTrainer(WholeUpdates, KTOTrainer):
        def _prepare_dataset(self, dataset, tokenizer, args, name):
            # Texts meet other questions within their batch to estimate how far the student has moved; batches keep the
            # order of the data, so it is shuffled here.
            size = args.per_device_train_batch_size
            dataset = dataset.shuffle(seed=args.seed)
            texts = dataset["completion_ids"]
            shifted = [texts[i - 1] if i % size else texts[min(i + size, len(texts)) - 1] for i in range(len(texts))]
            return dataset.add_column("KL_completion_ids", shifted)

        def length(self, example):
            return len(example["prompt_ids"]) + len(example["completion_ids"])

        def answers(self, example):
            return len(example["completion_ids"])

        def learned(self, model, share, update):
            return self.compute_loss(model, share["batch"]) * share["part"]

    good = max(sum(options["train_dataset"]["label"]), 1)
    bad = max(len(options["train_dataset"]) - good, 1)
    config = KTOConfig(
        **arguments,
        beta=beta,
        desirable_weight=max(bad / good, 1.0),
        undesirable_weight=max(good / bad, 1.0),
        precompute_ref_log_probs=True,
    )
    return SingleTextTrainer(args=on_one_gpu(config), **options)


def main() -> None:
    args = arguments()
    scratch = args.record.parent / TRAINER
    inputs = [args.items, args.pairs]
    leads = state().is_main_process
    with cli.begin(__file__, args, inputs, args.recipe.seed, leads=leads, checkpoint=args.start) as run:
        if not agreed(leads and run.made):
            refine(args, scratch, run)


def refine(args: argparse.Namespace, scratch: Path, run: Run) -> None:
    recipe, settings = args.recipe, args.recipe.training
    settle_torch(args.threads)
    computed = computed_in(recipe.dtype, args.compute)
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
    arguments = common_arguments(settings, scratch, recipe.seed, steps, computed) | {
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
    model = load_for_training(folder, adapter, recipe, args.compute)
    exact = trainable(model)
    began = time.perf_counter()
    trainer = make_trainer(model, bool(adapter), arguments, recipe, examples, tokenizer)
    reference_seconds = round(time.perf_counter() - began, 1)
    restore_precision(trainer.model, exact)
    history = run_to_the_end(trainer, scratch, steps)
    weights = gathered(trainer)
    if not run.leads:
        return
    names = save_trained(trainer.model, tokenizer, run.folder, recipe.dtype, weights)
    log = [training_row(entry) for entry in history if "loss" in entry or "eval_loss" in entry]
    write_jsonl(run.folder / TRAINING, log)
    losses = {row["step"]: row["loss"] for row in log if row["split"] == "validation"}
    run.record(
        [run.folder / name for name in (TRAINING, *names)],
        computed,
        trained=True,
        pairs=counts,
        updates=steps,
        validation_loss=losses,
        kept_update=min(losses, key=losses.get),
        **tokens_passed(history),
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
    model = load_for_training(folder, adapter, recipe, args.compute)
    if not adapter and recipe.training.method == "lora":
        model = get_peft_model(model, lora_config(recipe.training.lora))
    names = save_trained(model, tokenizer, run.folder, recipe.dtype)
    write_jsonl(run.folder / TRAINING, [])
    run.record([run.folder / name for name in (TRAINING, *names)], trained=True, pairs=counts, updates=0)


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
