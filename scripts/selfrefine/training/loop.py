"""The training loop of both phases, from the starting checkpoint to the record of the trained one."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerBase, set_seed

from selfrefine.models.checkpoints import load_tokenizer, open_checkpoint
from selfrefine.models.compute import computed_in
from selfrefine.schema.generation import Compute
from selfrefine.schema.stages import InstructSettings, RefineSettings
from selfrefine.store.locations import TRAINER, TRAINING
from selfrefine.store.run import Run
from selfrefine.training.examples import Examples, SupervisedExample
from selfrefine.training.objectives.supervised import SupervisedTrainer, check_first_batch
from selfrefine.training.resumption import open_scratch, run_to_the_end
from selfrefine.training.saving import gathered, save_trained
from selfrefine.training.trainable_weights import (
    adapter_weights,
    check_adapter,
    check_targets,
    load_for_training,
    restore_precision,
)
from selfrefine.training.trainer_arguments import common_arguments
from selfrefine.training.trainers import MakeTrainer
from selfrefine.training.training_log import Entry, tokens_passed, training_seconds


@dataclass
class Start:
    """The checkpoint that training starts from. In phase 2 it is also the reference."""

    folder: Path
    adapter: Path | None
    tokenizer: PreTrainedTokenizerBase
    compute: Compute

    @classmethod
    def open(cls, record: Path, compute: Compute, chat_template: str | None = None) -> "Start":
        """The checkpoint with this record; `chat_template` as for `load_tokenizer`."""
        folder, adapter, _ = open_checkpoint(record)
        return cls(folder, adapter, load_tokenizer(folder, chat_template), compute)


@dataclass(frozen=True)
class Phase:
    """What tells one phase's training from the other's.

    A program passes its own, so that the loop reaches no other: an edit of phase 2 leaves phase 1's keys as they are.
    """

    count_updates: Callable[[Any, int], int]
    """The number of updates of a full run, from the hyper-parameters and the number of examples."""
    arguments: Callable[[Any, int], dict[str, Any]]
    """The trainer's arguments that the phases do not share, from the hyper-parameters and the number of updates."""
    make_trainer: MakeTrainer
    log: Callable[[Path, list[Entry]], dict[str, Any]]
    """Writes the log from the trainer's history; gives figures for the record."""
    has_reference: bool
    """Whether a reference's log-probabilities are computed while the trainer is made."""


def train(
    run: Run,
    start: Start,
    settings: InstructSettings | RefineSettings,
    examples: Examples,
    phase: Phase,
    counts: dict[str, Any],
) -> None:
    """Trains the checkpoint and records it; `counts` of the examples go into the record.

    An interrupted training goes on from its last trainer checkpoint.
    """
    training, scratch = settings.training, run.folder / TRAINER
    open_scratch(scratch, run)
    updates = phase.count_updates(training, len(examples.train))
    computed = computed_in(settings.dtype, start.compute)
    arguments = common_arguments(training, scratch, settings.seed, updates, computed)
    arguments |= phase.arguments(training, updates)
    set_seed(settings.seed)
    model = load_for_training(start.folder, start.adapter, settings, start.compute)
    if training.method == "lora" and not start.adapter:
        check_targets(model, training.lora)
    exact = adapter_weights(model)
    began = time.perf_counter()
    trainer = phase.make_trainer(model, settings, examples, arguments, start.tokenizer)
    made_in = round(time.perf_counter() - began, 1)
    restore_precision(trainer.model, exact)
    check_adapter(trainer.model)
    if isinstance(trainer, SupervisedTrainer):
        check_first_batch(trainer, cast(Sequence[SupervisedExample], examples.train), start.tokenizer)
    history = run_to_the_end(trainer, scratch, updates)
    weights = gathered(trainer)
    if not run.leads:
        return
    names = save_trained(trainer.model, start.tokenizer, run.folder, settings.dtype, weights)
    figures = {
        "updates": updates,
        **tokens_passed(history),
        "training_seconds": training_seconds(history),
        **phase.log(run.folder / TRAINING, history),
    }
    figures |= {"reference_seconds": made_in} if phase.has_reference else {}
    outputs = [run.folder / name for name in (TRAINING, *names)]
    run.record(outputs, computed, trained=True, **counts, **figures)
