"""Phase 1: its updates, its trainer and its log."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from selfrefine.schema.optimisation import InstructTraining
from selfrefine.schema.stages import InstructSettings
from selfrefine.store.files import write_jsonl
from selfrefine.training.batches import count_updates
from selfrefine.training.examples import Examples, SupervisedExample
from selfrefine.training.loop import Phase
from selfrefine.training.objectives.supervised import SupervisedTrainer, supervised_config
from selfrefine.training.trainer_arguments import on_one_gpu
from selfrefine.training.trainers import trainer_options
from selfrefine.training.training_log import Entry, instruct_rows


def planned_updates(training: InstructTraining, examples: int) -> int:
    """The number of updates of a full run."""
    return count_updates(examples, training.batch_size, training.epochs)


def own_arguments(training: InstructTraining, updates: int) -> dict[str, Any]:
    """The trainer's arguments of this phase alone."""
    return {"warmup_steps": round(training.warmup * updates), "save_steps": training.save_every}


def demonstration_trainer(
    model: Any,
    settings: InstructSettings,
    examples: Examples,
    arguments: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
) -> SupervisedTrainer:
    """The trainer of demonstrations."""
    options = trainer_options(model, settings, examples, Path(arguments["output_dir"]), tokenizer)
    lengths = [len(example["input_ids"]) for example in cast(Sequence[SupervisedExample], examples.train)]
    return SupervisedTrainer(args=on_one_gpu(supervised_config(arguments)), lengths=lengths, **options)


def write_log(path: Path, history: list[Entry]) -> dict[str, Any]:
    """Writes the log; the record gets the last loss."""
    rows = instruct_rows(history)
    write_jsonl(path, rows)
    return {"final_loss": rows[-1]["loss"]}


INSTRUCT = Phase(planned_updates, own_arguments, demonstration_trainer, write_log, has_reference=False)
