"""Frozen layers under an adapter (LoRA), computed on a CPU in fewer and larger steps.

PEFT multiplies by each matrix and each adapter by itself, in float32 where the weights below are in bfloat16, and
transformers goes through the activations once for each operation. Here, all matrices with the same input are one
product, adapters are added in place, norms, rotation and gating take few passes, and backward passes compute only the
gradients that are needed.
"""

import types
from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import nn
from transformers import AttentionInterface

from selfrefine.training.frozen_kernels import Product, RootMeanSquare, Rotation, SiluGate
from selfrefine.training.packed_rows import Packed

# The largest difference between the outputs of a replacement and of the layer, relative to the norm of the layer's.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
# A module's forward pass, as a method.
Forward = Callable[..., Any]


def speed_up(model: nn.Module, packed: Packed) -> dict[str, int]:
    """Replaces the layers of a frozen model on a CPU that can be computed as here; the number of each kind.

    `packed` is a packed row to try the replacements with.
    """
    weight = model.get_input_embeddings().weight
    if weight.device.type != "cpu" or weight.dtype not in TOLERANCE or weight.requires_grad:
        return {}
    found: dict[str, int] = {}
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, len(packed.row.tokens), weight.size(1), generator=generator).to(weight.dtype)
    rotation = getattr(model.base_model, "rotary_emb", None)
    attention_inputs = {"attention_mask": None, "past_key_values": None, "packed": packed}
    if rotation is not None:
        attention_inputs["position_embeddings"] = rotation(hidden, packed.positions)
    replacements: tuple[tuple[str, Callable[[nn.Module], Forward | None], dict[str, Any]], ...] = (
        ("norm", _norm, {}),
        ("mlp", _mlp, {}),
        ("attention", _attention, attention_inputs),
    )
    replaced: set[nn.Module] = set()
    for module in list(model.modules()):
        for kind, build, inputs in replacements:
            forward = build(module)
            if forward and _agree(module, forward, hidden, inputs):
                module.forward = types.MethodType(forward, module)
                replaced |= set(module.modules())
                found[kind] = found.get(kind, 0) + 1
        if isinstance(module, LoraLinear) and module not in replaced and _is_simple(module):
            module.forward = types.MethodType(_alone(module), module)
            found["linear"] = found.get("linear", 0) + 1
    return found


def _agree(module: nn.Module, forward: Forward, hidden: torch.Tensor, inputs: dict[str, Any]) -> bool:
    """Whether a module and the replacement of its forward pass compute the same."""
    with torch.no_grad():
        try:
            expected = module(hidden, **inputs)
            found = forward(module, hidden, **inputs)
        except (TypeError, RuntimeError, KeyError):
            return False
    expected, found = (made[0] if isinstance(made, tuple) else made for made in (expected, found))
    return ((expected - found).norm() <= TOLERANCE[hidden.dtype] * expected.norm()).item()


def _norm(module: nn.Module) -> Forward | None:
    """The forward pass of a root-mean-square norm."""
    if not type(module).__name__.endswith("RMSNorm") or not hasattr(module, "variance_epsilon"):
        return None

    def forward(self: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
        return RootMeanSquare.apply(hidden_states, self.weight, self.variance_epsilon)

    return forward


def _mlp(module: nn.Module) -> Forward | None:
    """The forward pass of a gated layer: down(silu(gate) * up)."""
    linears: list[Any] = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if not all(map(_is_simple, linears)):
        return None
    into, out_of = MergedLinears(linears[:2]), MergedLinears(linears[2:])

    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return out_of(SiluGate.apply(into(x)))

    return forward


def _attention(module: nn.Module) -> Forward | None:
    """The forward pass of an attention with rotary positions whose scores transformers' interface computes."""
    linears: list[Any] = [getattr(module, name, None) for name in ("q_proj", "k_proj", "v_proj", "o_proj")]
    if not all(map(_is_simple, linears)) or not hasattr(module, "head_dim"):
        return None
    into, out_of, width = MergedLinears(linears[:3]), MergedLinears(linears[3:]), module.head_dim
    heads = [linear.out_features // width for linear in linears[:3]]

    def forward(
        self: nn.Module,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        **options: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        cosines, sines = position_embeddings
        query, key, value = Rotation.apply(into(hidden_states), cosines, sines, *heads)
        compute = AttentionInterface()[self.config._attn_implementation]
        mixed, weights = compute(self, query, key, value, attention_mask, scaling=self.scaling, **options)
        return out_of(mixed.reshape(*hidden_states.shape[:-1], -1)), weights

    return forward


def _alone(module: nn.Module) -> Forward:
    """The forward pass of a single matrix under an adapter."""
    linear = MergedLinears([module])

    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return linear(x)

    return forward


def _is_simple(module: Any) -> bool:
    """Whether a module is a frozen matrix, alone or under a plain adapter."""
    if type(module) is LoraLinear:
        base = module.get_base_layer()
        drops = any(isinstance(drop, nn.Dropout) and drop.p for drop in module.lora_dropout.values())
        special = drops or module.lora_variant or module.fan_in_fan_out or any(module.lora_bias.values())
        return not special and not module.merged and type(base) is nn.Linear and not base.weight.requires_grad
    return type(module) is nn.Linear and not module.weight.requires_grad


class MergedLinears:
    """Frozen matrices with the same input as one matrix: their outputs side by side.

    Their weights become parts of one block of memory.
    """

    def __init__(self, modules: list[Any]):
        self.modules = modules
        bases = [module.get_base_layer() if isinstance(module, LoraLinear) else module for module in modules]
        self.stops = [0]
        for base in bases:
            self.stops.append(self.stops[-1] + base.out_features)
        self.weight = bases[0].weight.data
        self.bias = None
        if len(bases) > 1:
            self.weight = torch.cat([base.weight.data for base in bases])
            for base, start, stop in zip(bases, self.stops, self.stops[1:], strict=False):
                base.weight.data = self.weight[start:stop]
        if any(base.bias is not None for base in bases):
            none = [base.weight.new_zeros(base.out_features) for base in bases]
            self.bias = torch.cat(
                [zeros if base.bias is None else base.bias.data for base, zeros in zip(bases, none, strict=True)]
            )

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., all outputs]."""
        places, adapters = [], []
        for module, start, stop in zip(self.modules, self.stops, self.stops[1:], strict=False):
            if not isinstance(module, LoraLinear) or module.disable_adapters:
                continue
            for name in module.active_adapters:
                if name in module.lora_A:
                    places.append((start, stop, module.scaling[name]))
                    adapters += [module.lora_A[name].weight, module.lora_B[name].weight]
        outputs = Product.apply(hidden.reshape(-1, hidden.size(-1)), self.weight, self.bias, places, *adapters)
        return outputs.view(*hidden.shape[:-1], -1)
