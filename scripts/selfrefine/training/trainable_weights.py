"""The model to train: with an adapter or all weights trainable, in the precision that they learn in."""

from pathlib import Path
from typing import Any, Protocol

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from selfrefine.errors import UserError
from selfrefine.models.checkpoints import load_model
from selfrefine.schema.generation import Compute, Dtype, Quantisation
from selfrefine.schema.optimisation import Lora, Optimisation


class Trainable(Protocol):
    """What the settings of all stages that train have."""

    @property
    def training(self) -> Optimisation:
        """The hyper-parameters."""

    @property
    def dtype(self) -> Dtype:
        """What the weights are rounded to."""

    @property
    def quantisation(self) -> Quantisation:
        """How frozen weights are packed."""


def lora_config(lora: Lora) -> LoraConfig:
    """PEFT's configuration of an adapter."""
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets if isinstance(lora.targets, str) else sorted(lora.targets),
        task_type="CAUSAL_LM",
    )


def check_targets(model: Any, lora: Lora) -> None:
    """`UserError` for targets that a model, still without an adapter, lacks or that training cannot adapt."""
    if isinstance(lora.targets, str):
        return
    modules = {name: module for name, module in model.named_modules() if name}
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    for target in lora.targets:
        named = {name: module for name, module in modules.items() if name == target or name.endswith(f".{target}")}
        if not named:
            last = sorted(
                {name.rpartition(".")[2] for name, module in modules.items() if isinstance(module, nn.Linear)}
            )
            raise UserError(f"lora.targets: the model has no module {target!r}; it has {', '.join(last)}")
        if any(module is head for module in named.values()):
            raise UserError(
                f"lora.targets: {target!r} is the model's head, whose weights training reads without an adapter's, so it "
                f"would not learn; leave {target} out"
            )
        is_tied = head is not None and embeddings.weight is head.weight
        if is_tied and any(module is embeddings for module in named.values()):
            raise UserError(
                f"lora.targets: {target!r} shares its weights with the model's head (tied embeddings), so what is "
                f"evaluated would not be what was trained; leave {target} out"
            )


def check_adapter(model: nn.Module) -> None:
    """Refuses an adapter on a matrix that another layer shares: merged into it, it would change that layer too.

    A model that ties its head to its embeddings has one.
    """
    users: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for weight in module.parameters(recurse=False):
            users.setdefault(id(weight), []).append(name)
    for name, module in model.named_modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        weight = getattr(module.get_base_layer(), "weight", None)
        others = [user for user in users.get(id(weight), []) if user not in (name, f"{name}.base_layer")]
        if others:
            raise UserError(
                f"lora.targets: {_plain(name)} shares its weights with {_plain(others[0])} (tied embeddings), so what is "
                f"evaluated would not be what was trained; leave {_plain(name).rpartition('.')[2]} out of `lora.targets`"
            )


def _plain(name: str) -> str:
    return name.removeprefix("base_model.model.").removesuffix(".base_layer")


def load_for_training(
    folder: Path,
    adapter: Path | None,
    settings: Trainable,
    compute: Compute = "auto",
) -> Any:
    """The model to train: a base model, one with the adapter to continue from, or, in full, its weights in float32.

    Frozen weights are multiplied in what `compute` says (compute.py).
    """
    if settings.training.method == "full":
        model = load_model(folder, "float32", training=True)
        # An adapter freezes the weights below it.
        return PeftModel.from_pretrained(model, adapter).merge_and_unload().requires_grad_() if adapter else model
    model = load_model(folder, settings.dtype, settings.quantisation, training=True, compute=compute)
    # A PeftModel without a peft_config makes TRL's trainers keep a frozen copy of the adapter as the reference; with a
    # peft_config the reference would be the base model.
    return PeftModel.from_pretrained(model, adapter, is_trainable=True) if adapter else model


def adapter_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of an adapter's weights, by name."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if ".lora_" in name}


def restore_precision(model: nn.Module, adapter: dict[str, torch.Tensor]) -> None:
    """Undoes TRL's rounding of an adapter to bfloat16 where the weights below are packed.

    At the learning rates of preference optimisation an update of bfloat16 weights rounds to nothing, and the student
    would not start at its reference. TRL rounds since PEFT offers no choice there:
    https://github.com/huggingface/peft/issues/2889
    """
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            weight.data = adapter.get(name, weight.data).float()
