"""Stops a training at the first number that is not finite, before anything of it is saved."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from selfrefine.errors import UserError

ADVICE = "lower `learning_rate` or `max_grad_norm`, or train with `dtype: bfloat16` or `float32`"


def check_number(value: float, what: str, update: int) -> None:
    """`UserError` if a loss or a gradient norm of an update, counted from 1, is not finite."""
    if not math.isfinite(value):
        raise UserError(f"update {update}: the {what} is {value}: training diverged; nothing is kept of it; {ADVICE}")


def check_trained(model: nn.Module, update: int) -> None:
    """`UserError` if a weight that learns is not finite after an update."""
    trained = ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
    check_weights(trained, f"update {update}: ")


def check_weights(weights: Iterable[tuple[str, torch.Tensor]], where: str = "") -> None:
    """`UserError` that names the first weight that is not finite."""
    for name, weight in weights:
        if found := first_not_finite(weight.detach()):
            raise UserError(
                f"{where}the weights {name} hold {found}: training diverged; nothing is kept of it; {ADVICE}"
            )


def first_not_finite(weight: torch.Tensor) -> str | None:
    """The value that is not finite in a tensor, as text; None if all are finite. Takes one pass and no memory."""
    if hasattr(weight, "to_local"):  # one of several processes' parts
        weight = weight.to_local()
    if not weight.is_floating_point() or not weight.numel():
        return None
    low, high = torch.aminmax(weight.float() if weight.element_size() == 1 else weight)
    found = [value.item() for value in (low, high) if not torch.isfinite(value)]
    return str(found[0]) if found else None


def check_reference(columns: Mapping[str, Iterable[float]]) -> None:
    """`UserError` if the log-probabilities of the checkpoint that training starts from are not finite."""
    for name, values in columns.items():
        for value in values:
            if not math.isfinite(value):
                raise UserError(
                    f"the checkpoint that training starts from gives a log-probability of {value} ({name}): its weights "
                    "are damaged, or float16 overflows; check them with `study.py verify`, or set `dtype: bfloat16`"
                )
