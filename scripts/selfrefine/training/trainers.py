"""What every trainer is made with, whatever the phase and the objective."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from selfrefine.models.processes import state
from selfrefine.schema.stages import InstructSettings, RefineSettings
from selfrefine.training.examples import Example, Examples, longest_sequence
from selfrefine.training.trainable_weights import lora_config
from selfrefine.training.trainer_mixins import PackedUpdates

# Makes a trainer of a model, settings, examples, the trainer's arguments and a tokenizer.
MakeTrainer = Callable[[Any, Any, Examples, dict[str, Any], PreTrainedTokenizerBase], PackedUpdates]


def trainer_options(
    model: Any,
    settings: InstructSettings | RefineSettings,
    examples: Examples,
    scratch: Path,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, Any]:
    """What every trainer gets, whatever the objective.

    A model without an adapter gets a new one, unless all its weights are trained.
    """
    training, is_adapted = settings.training, isinstance(model, PeftModel)
    return {
        "model": model,
        "train_dataset": shared_dataset(examples.train, scratch / "train"),
        "eval_dataset": shared_dataset(examples.validation, scratch / "validation") if examples.validation else None,
        "processing_class": tokenizer,
        "peft_config": lora_config(training.lora) if training.method == "lora" and not is_adapted else None,
        "update_size": training.batch_size,
        "longest": longest_sequence(examples),
    }


def shared_dataset(rows: Sequence[Example], folder: Path) -> Dataset:
    """Examples as a dataset in files, so that all processes see what a trainer caches beside them."""
    if state().is_main_process:
        shutil.rmtree(folder, ignore_errors=True)
        Dataset.from_list(list(rows)).save_to_disk(folder)
    state().wait_for_everyone()
    return load_from_disk(folder)
