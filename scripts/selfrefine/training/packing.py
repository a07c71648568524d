"""Log-probabilities from packed rows: without padding, and each shared prefix once.

TRL's trainers ask their model for the log-probabilities of padded sequences. After `pack`, the model computes them
from a packed row (packed_rows.py): each sequence attends to its own prefix and to itself, at its own positions, so
that the results are those of the padded sequences. The language-model head runs at the labelled positions only.
"""

import inspect
import types
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from trl.trainer.utils import FusedCausalLMOutput

from selfrefine.training.frozen_kernels import FrozenHead
from selfrefine.training.packed_attention import Unpackable, attend
from selfrefine.training.packed_rows import SHORTEST_SHARED, Packed

NAME = "packed"
# The fields of TRL's fused head with one value per token.
PER_TOKEN = ("log_probs", "label_mask", "entropy", "mean_logits", "is_top1")
# How far the first layers' hidden states of a sequence in a row may differ from those of the sequence alone, relative
# to their norm: bfloat16 rounds differently, and ever more so in later layers.
LIKE_ALONE = 0.05
FIRST_LAYERS = 2


def pack(model: nn.Module, longest: int) -> str | None:
    """Has a causal language model with TRL's fused head compute from packed rows; the reason if it cannot.

    `longest` is the number of tokens of the longest sequence that it will get.
    """
    try:
        _check(model, longest)
    except Unpackable as reason:
        return str(reason)
    padded, backbone = model.forward, model.base_model
    # TRL's head takes all hidden states that the backbone returns.
    backbone.register_forward_hook(_keep_answers, with_kwargs=True)

    def forward(
        self: nn.Module,
        input_ids: Any = None,
        attention_mask: Any = None,
        labels: Any = None,
        fused_lm_head: bool = False,
        use_cache: bool | None = None,
        **options: Any,
    ) -> FusedCausalLMOutput:
        if not fused_lm_head:
            raise ValueError("a model that computes from packed rows gives log-probabilities only")
        packed = Packed(input_ids, attention_mask, labels, share=not _drops(self))
        inputs = {"input_ids": packed.tokens, "position_ids": packed.positions, "packed": packed}
        head = self.get_output_embeddings()
        if input_ids.device.type == "cpu" and _is_plain(self, head):
            answers = self.base_model(**inputs, use_cache=False).last_hidden_state[0]
            log_probs = FrozenHead.apply(answers, head.weight, packed.targets[0])
            nothing = log_probs.new_zeros(packed.shape)
            found = {"log_probs": log_probs, "label_mask": torch.ones_like(packed.targets, dtype=torch.bool)}
            unknown = {"entropy": nothing, "mean_logits": nothing, "is_top1": nothing.bool()}
        else:
            outputs = padded(**inputs, shift_labels=packed.targets, fused_lm_head=True, **options)
            found = {name: values for name, values in outputs.items() if name in PER_TOKEN}
            unknown = {}
        return FusedCausalLMOutput(**{name: packed.spread(values) for name, values in found.items()}, **unknown)

    model.forward = types.MethodType(forward, model)
    return None


def _check(model: nn.Module, longest: int) -> None:
    """Raises `Unpackable` if a model's configuration, or a trial, shows that packed rows would change its results."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) or longest
    if not model._supports_attention_backend or model._is_stateful:
        raise Unpackable("its layers do not all take their attention from transformers' interface")
    if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        raise Unpackable("it does not take the tokens' positions")
    if others := kinds - {"full_attention", "sliding_attention"}:
        raise Unpackable(f"it has layers of another kind ({', '.join(sorted(others))})")
    if window < longest:
        raise Unpackable(f"its attention reaches {window} tokens back, and a sequence has {longest}")
    if getattr(config, "router_aux_loss_coef", 0.0):
        raise Unpackable("its router learns from all tokens, padding's included")
    if getattr(config, "attention_dropout", 0.0):
        raise Unpackable("its attention drops scores at random")
    _try_out(model, config)


def _try_out(model: nn.Module, config: Any) -> None:
    """Has a model attend over packed rows, if a trial row gives the same hidden states as each sequence alone."""
    before, training = config._attn_implementation, model.training
    packed = trial(model)
    model.eval()
    try:
        alone = [_first_layers(model, input_ids=packed.tokens[:, sequence]) for sequence in packed.row.places]
        AttentionInterface.register(NAME, attend)
        model.set_attn_implementation(NAME)
        inputs = {"input_ids": packed.tokens, "position_ids": packed.positions, "packed": packed}
        together = _first_layers(model, **inputs)
        if packed.layers != config.num_hidden_layers:
            raise Unpackable("its layers do not all take their attention from transformers' interface")
        for sequence, expected in zip(packed.row.places, alone, strict=True):
            if (together[sequence] - expected).norm() > LIKE_ALONE * expected.norm():
                raise Unpackable("its hidden states depend on more than a sequence's tokens and their positions")
    except Unpackable:
        model.set_attn_implementation(before)
        raise
    finally:
        model.train(training)


def _first_layers(model: nn.Module, **inputs: Any) -> torch.Tensor:
    """The hidden states of one row of tokens after a model's first layers: [tokens, width]."""
    with torch.no_grad():
        outputs = model.base_model(**inputs, use_cache=False, output_hidden_states=True)
    return outputs.hidden_states[min(FIRST_LAYERS, len(outputs.hidden_states) - 1)][0].float()


def trial(model: nn.Module) -> Packed:
    """A row of two short sequences to try a model's layers with."""
    tokens = model.get_input_embeddings().weight.size(0)
    sequences = torch.arange(SHORTEST_SHARED + 4, device=model.device).mul(7).add(100)[None].repeat(2, 1) % tokens
    sequences[1, SHORTEST_SHARED:] = sequences[1, :4]
    return Packed(sequences, torch.ones_like(sequences), sequences, True)


def _keep_answers(backbone: nn.Module, positional: Any, named: Mapping[str, Any], outputs: Any) -> Any:
    """A forward hook: keeps a backbone's last hidden states only where an answer's token is predicted."""
    if "packed" in named:
        outputs.last_hidden_state = nn.functional.embedding(named["packed"].sources, outputs.last_hidden_state[0])[None]
    return outputs


def _drops(model: nn.Module) -> bool:
    """Whether a model drops activations at random, so that two sequences see different versions of their prefix."""
    return model.training and any(isinstance(module, nn.Dropout) and module.p for module in model.modules())


def _is_plain(model: nn.Module, head: nn.Module) -> bool:
    """Whether the logits are a frozen matrix's product with the hidden states, and nothing else."""
    config = model.config.get_text_config()
    scales = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
    if torch.is_autocast_enabled("cpu") or any(getattr(config, name, None) is not None for name in scales):
        return False
    return type(head) is nn.Linear and head.bias is None and not head.weight.requires_grad
