"""An online refinement from the starting checkpoint to the record of the refined one."""

from typing import Any

from datasets import Dataset
from transformers import set_seed

from selfrefine.errors import UserError
from selfrefine.models.compute import computed_in
from selfrefine.schema.optimisation import RefineTraining
from selfrefine.schema.stages import RefineOnlineSettings
from selfrefine.store.files import write_jsonl
from selfrefine.store.locations import TRAINER, TRAINING
from selfrefine.store.run import Run
from selfrefine.training.batches import count_updates
from selfrefine.training.loop import Start
from selfrefine.training.online.log import figures, online_rows, spent
from selfrefine.training.online.prompts import Asked
from selfrefine.training.online.trainer import Budget, OnlineTrainer, Verdict, online_config
from selfrefine.training.resumption import open_scratch, run_to_the_end
from selfrefine.training.saving import save_trained
from selfrefine.training.trainable_weights import (
    adapter_weights,
    check_adapter,
    check_targets,
    load_for_training,
    lora_config,
    restore_precision,
)
from selfrefine.training.trainer_arguments import common_arguments, is_sharded, on_one_gpu
from selfrefine.training.training_log import training_seconds


def planned_updates(training: RefineTraining, items: int, group: int) -> int:
    """The number of updates: each epoch asks every item once. With a budget of tokens, the most that there may be."""
    if training.tokens:
        return training.max_steps
    return min(training.max_steps, count_updates(items, training.batch_size // group, training.epochs))


def make_trainer(
    model: Any, settings: RefineOnlineSettings, asked: Asked, verdict: Verdict, start: Start, **arguments: Any
) -> OnlineTrainer:
    """The trainer; `arguments` are `online_config`'s."""
    training = settings.training
    return OnlineTrainer(
        settings=settings,
        asked=asked,
        verdict=verdict,
        model=model,
        args=on_one_gpu(online_config(settings=settings, **arguments)),
        train_dataset=Dataset.from_dict({"prompt": [*asked.prompts]}),
        processing_class=start.tokenizer,
        peft_config=lora_config(training.lora) if training.method == "lora" and not start.adapter else None,
        callbacks=[Budget(training.tokens)] if training.tokens else None,
    )


def train_online(
    run: Run, start: Start, settings: RefineOnlineSettings, asked: Asked, verdict: Verdict, memory: float
) -> None:
    """Trains the checkpoint and records it; an interrupted training goes on from its last trainer checkpoint."""
    training, scratch = settings.training, run.folder / TRAINER
    if is_sharded(training):
        raise UserError("online sampling with `method: full` needs one GPU; set `cluster.gpus_to_train: 1`")
    open_scratch(scratch, run)
    updates = planned_updates(training, len(asked.prompts), settings.online.group)
    computed = computed_in(settings.dtype, start.compute)
    arguments = common_arguments(training, scratch, settings.seed, updates, computed)
    set_seed(settings.seed)
    model = load_for_training(start.folder, start.adapter, settings, start.compute)
    if training.method == "lora" and not start.adapter:
        check_targets(model, training.lora)
    exact = adapter_weights(model)
    trainer = make_trainer(model, settings, asked, verdict, start, arguments=arguments, updates=updates, memory=memory)
    restore_precision(trainer.model, exact)
    check_adapter(trainer.model)

    def is_done() -> bool:
        budget = training.tokens
        return bool(budget) and sum(spent(trainer.state.log_history).values()) >= (budget or 0)

    history = run_to_the_end(trainer, scratch, updates, is_done)
    if not run.leads:
        return
    names = save_trained(trainer.model, start.tokenizer, run.folder, settings.dtype)
    write_jsonl(run.folder / TRAINING, online_rows(history))
    made = {"updates": trainer.state.global_step, **figures(history), "training_seconds": training_seconds(history)}
    outputs = [run.folder / name for name in (TRAINING, *names)]
    run.record(outputs, computed, trained=True, items=asked.counts, **made)
