"""Saves what was trained: an adapter, or whole weights with their tokenizer."""

import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, Trainer

from selfrefine.errors import UserError
from selfrefine.schema.generation import Dtype
from selfrefine.store.files import naming_write_errors, read_json, write_json
from selfrefine.training.agreement import check_agreement
from selfrefine.training.finite import check_weights
from selfrefine.training.trainable_weights import check_adapter

Weights = dict[str, torch.Tensor]


def gathered(trainer: Trainer) -> Weights | None:
    """Sharded weights, gathered in the leading process; None where each process has whole ones. All must call it."""
    return trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None


def save_trained(
    model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: Dtype, weights: Weights | None = None
) -> list[str]:
    """Saves an adapter, or whole weights with their tokenizer, into a checkpoint's folder; the names of the files.

    `weights`: those of the model where the processes share it. `UserError`, and nothing saved, if a weight is not
    finite, or if an adapter merged into the weights, as evaluation has it, is another model. The model cannot be used
    any more.
    """
    scratch = folder / ".trained"
    shutil.rmtree(scratch, ignore_errors=True)
    if isinstance(model, PeftModel):
        check_adapter(model)
        check_weights((name, weight) for name, weight in model.named_parameters() if ".lora_" in name)
        with naming_write_errors(folder / "adapter_model.safetensors"):
            model.save_pretrained(scratch, selected_adapters=["default"], safe_serialization=True)
        (scratch / "README.md").unlink(missing_ok=True)
        # PEFT saves the set of target modules in an order that changes from run to run; sorted, equal adapters are
        # equal bytes.
        config = read_json(scratch / "adapter_config.json")
        if isinstance(config["target_modules"], list):
            config["target_modules"].sort()
        write_json(scratch / "adapter_config.json", config)
        try:
            check_agreement(model, tokenizer, dtype)
        except UserError:
            shutil.rmtree(scratch)
            raise
    else:
        rounded = getattr(torch, dtype)
        whole = {name: weight.to(rounded) for name, weight in weights.items()} if weights else None
        model = model.to(rounded)
        check_weights((whole or dict(model.named_parameters())).items())
        with naming_write_errors(folder / "model.safetensors"):
            model.save_pretrained(scratch, state_dict=whole)
            tokenizer.save_pretrained(scratch)
    names = sorted(path.name for path in scratch.iterdir())
    # An adapter that another method left here would be taken for this model's own, and weights would take space for
    # nothing.
    for stale in (*folder.glob("adapter_*"), *folder.glob("model*.safetensors*")):
        stale.unlink()
    for name in names:
        (scratch / name).replace(folder / name)
    scratch.rmdir()
    return names
