"""Phase 1: fine-tunes a student, or an adapter of it, on a teacher's demonstrations (TRL's SFTTrainer, PEFT LoRA).

The loss is on the answer's tokens and the stop token. An interrupted run goes on from its last trainer checkpoint.
"""

import argparse
from pathlib import Path

from selfrefine import cli
from selfrefine.benchmarks import known_item, read_items, subset
from selfrefine.computing import computed_in
from selfrefine.errors import UserError
from selfrefine.files import read_jsonl, write_jsonl
from selfrefine.models import load_tokenizer, open_checkpoint, settle_torch
from selfrefine.names import TRAINING
from selfrefine.processes import agreed, state
from selfrefine.prompts import messages
from selfrefine.provenance import TRAINER, Run
from selfrefine.training import (
    EpochOrder,
    InstructRecipe,
    check_example,
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
    training_seconds,
    updates,
)


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_recipe(parser, InstructRecipe)
    parser.add_argument("--start", required=True, type=Path, help="the record of the checkpoint to start from")
    parser.add_argument("--items", required=True, type=cli.file_of("prepare"), help="the training items")
    parser.add_argument(
        "--demonstrations", required=True, type=cli.file_of("demonstrate"), help="the teacher's demonstrations"
    )
    parser.add_argument("--threads", type=int, default=1)
    cli.add_compute(parser)
    cli.add_record(parser)
    return parser.parse_args()


def build_examples(
    rows: list[dict], items: dict[str, dict], recipe: InstructRecipe, tokenizer
) -> tuple[list[dict], dict]:
    """Tokenised demonstrations {input_ids, completion_mask}, and how many were used and dropped as too long."""
    chosen = subset([row["item"] for row in rows], recipe.share, recipe.seed)
    examples, too_long = [], 0
    for row in sorted(rows, key=lambda row: row["id"]):
        if row["item"] not in chosen:
            continue
        chat = messages(known_item(items, row), recipe.prompt, recipe.style, system=recipe.system)
        prompt, answer = encode_prompt(tokenizer, chat), encode_completion(tokenizer, chat, row["text"])
        if len(prompt) + len(answer) > recipe.training.max_length:
            too_long += 1
            continue
        examples.append({"input_ids": prompt + answer, "completion_mask": [0] * len(prompt) + [1] * len(answer)})
    return examples, {"share": recipe.share, "used": len(examples), "too_long": too_long}


def main() -> None:
    args = arguments()
    scratch = args.record.parent / TRAINER
    inputs = [args.items, args.demonstrations]
    leads = state().is_main_process
    with cli.begin(__file__, args, inputs, args.recipe.seed, leads=leads, checkpoint=args.start) as run:
        if not agreed(leads and run.made):
            instruct(args, scratch, run)


def instruct(args: argparse.Namespace, scratch: Path, run: Run) -> None:
    recipe, settings = args.recipe, args.recipe.training
    settle_torch(args.threads)
    computed = computed_in(recipe.dtype, args.compute)
    folder, adapter, _ = open_checkpoint(args.start)
    if adapter:
        raise UserError(f"{args.start}: has an adapter already; instruct starts from a base model")
    tokenizer = load_tokenizer(folder)
    items, rows = read_items(args.items), read_jsonl(args.demonstrations)
    examples, counts = build_examples(rows, items, recipe, tokenizer)
    if not examples:
        raise UserError(f"{args.demonstrations}: no demonstration is left ({counts}); raise `max_length` or `share`")

    from transformers import set_seed
    from trl import SFTConfig, SFTTrainer

    from selfrefine.updates import TextUpdates

    lengths = [len(example["input_ids"]) for example in examples]

    class DemonstrationTrainer(TextUpdates, SFTTrainer):
        def _get_train_sampler(self, dataset=None):
            return EpochOrder(len(examples), settings.batch_size, recipe.seed, lengths)

    open_scratch(scratch, run)
    steps = updates(len(examples), settings.batch_size, settings.epochs)
    config = SFTConfig(
        **common_arguments(settings, scratch, recipe.seed, steps, computed),
        warmup_steps=round(settings.warmup * steps),
        save_steps=settings.save_every,
        completion_only_loss=True,
    )
    set_seed(recipe.seed)
    trainer = DemonstrationTrainer(
        model=load_for_training(folder, None, recipe, args.compute),
        args=on_one_gpu(config),
        train_dataset=shared_dataset(examples, scratch / "train"),
        processing_class=tokenizer,
        peft_config=lora_config(settings.lora) if settings.method == "lora" else None,
        update=settings.batch_size,
        longest=max(lengths),
    )
    restore_precision(trainer.model, {})
    check_first_batch(trainer, examples, tokenizer)
    history = run_to_the_end(trainer, scratch, steps)
    weights = gathered(trainer)
    if not run.leads:
        return
    names = save_trained(trainer.model, tokenizer, run.folder, recipe.dtype, weights)
    log = [{"step": e["step"], "loss": e["loss"], "learning_rate": e["learning_rate"]} for e in history if "loss" in e]
    write_jsonl(run.folder / TRAINING, log)
    run.record(
        [run.folder / name for name in (TRAINING, *names)],
        computed,
        trained=True,
        demonstrations=counts,
        updates=steps,
        **tokens_passed(history),
        training_seconds=round(training_seconds(history), 1),
        final_loss=log[-1]["loss"],
    )


def check_first_batch(trainer, examples: list[dict], tokenizer) -> None:
    """Looks at what the trainer really batches: prompt masked, stop token learned, one beginning at most."""
    by_ids = {tuple(example["input_ids"]): example["completion_mask"].count(0) for example in examples}
    batch = trainer.data_collator(
        [trainer.train_dataset[i] for i in range(min(len(examples), trainer.args.per_device_train_batch_size))]
    )
    for ids, mask, labels in zip(
        batch["input_ids"].tolist(), batch["attention_mask"].tolist(), batch["labels"].tolist(), strict=True
    ):
        kept = [i for i, bit in enumerate(mask) if bit]
        sequence = [ids[i] for i in kept]
        check_example(sequence, [labels[i] for i in kept], by_ids[tuple(sequence)], tokenizer)


if __name__ == "__main__":
    cli.run(main)
