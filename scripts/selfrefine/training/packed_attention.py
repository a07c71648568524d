"""Attention over a packed row: every sequence attends to its own prefix and to itself."""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from selfrefine.training.packed_rows import Packed, Row

# Options of an attention, beside queries, keys and values, that change nothing here.
HARMLESS = {
    "position_ids",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "is_causal",
}
# What autograd passes to a function's forward and backward: torch has no public name for its type.
Context = Any


class Unpackable(ValueError):
    """Why a model cannot compute from packed rows."""


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed: Packed | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """A layer's attention over a packed row, as transformers' interface calls it: [1, heads, tokens, width] each.

    The outputs are [1, tokens, heads, width].
    """
    others = {name for name, value in options.items() if value is not None} - HARMLESS - {"sliding_window"}
    if packed is None or others or dropout:
        raise Unpackable(f"its attention has terms of its own ({', '.join(sorted(others))})")
    packed.layers += 1
    scaling = query.size(-1) ** -0.5 if scaling is None else scaling
    if query.device.type == "cpu" and query.dtype == key.dtype == value.dtype and not torch.is_autocast_enabled("cpu"):
        return PackedAttention.apply(query, key, value, packed.row, scaling), None
    return attend_by_piece(query, key, value, packed.row, scaling), None


def attend_by_piece(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, row: Row, scaling: float
) -> torch.Tensor:
    """Attention over a row piece by piece, by torch's own."""
    sizes = [stop - start for start, stop in row.pieces]
    queries, keys, values = (tensor.split(sizes, dim=2) for tensor in (query, key, value))
    outputs = []
    for own, before in enumerate(row.before):
        seen = (*before, own)
        causal = torch.ones(sizes[own], sum(sizes[i] for i in seen), dtype=torch.bool, device=query.device)
        outputs.append(
            scaled_dot_product_attention(
                queries[own],
                torch.cat([keys[i] for i in seen], 2) if before else keys[own],
                torch.cat([values[i] for i in seen], 2) if before else values[own],
                attn_mask=causal.tril(causal.size(1) - causal.size(0)) if before else None,
                is_causal=not before,
                scale=scaling,
                enable_gqa=query.size(1) != key.size(1),
            )
        )
    return torch.cat(outputs, 2).transpose(1, 2).contiguous()


class PackedAttention(torch.autograd.Function):
    """Attention over a packed row on a CPU, block by block, by matrix products.

    Query heads that share a key head are treated as more queries, so that keys are not copied. Scores and their
    softmax are in float32. In bfloat16, torch's own backward pass takes four times as long.
    """

    @staticmethod
    def forward(
        ctx: Context, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, row: Row, scaling: float
    ) -> torch.Tensor:
        heads, tokens, width = query.shape[1:]
        groups = heads // key.size(1)
        exact = _by_key_head(query, groups, torch.float32)
        keys, values = _by_key_head(key, 1, torch.float32), _by_key_head(value, 1, value.dtype)
        outputs = query.new_empty(tokens, key.size(1), groups, value.size(-1))
        weights = []
        for start, stop, earlier, mask in row.blocks:
            own = exact[:, start * groups : stop * groups]
            seen = _gathered(keys, earlier, start, stop).transpose(1, 2)
            scores = torch.baddbmm(own.new_empty(1), own, seen, beta=0, alpha=scaling)
            scores.view(len(scores), -1, groups, seen.size(-1)).add_(mask[:, None])
            weight = torch.softmax(scores, -1).to(query.dtype)
            outputs[start:stop] = _by_token(torch.bmm(weight, _gathered(values, earlier, start, stop)), groups)
            weights.append(weight)
        ctx.save_for_backward(query, key, value, *weights)
        ctx.row, ctx.scaling = row, scaling
        return outputs.view(1, tokens, heads, -1)

    @staticmethod
    def backward(ctx: Context, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, *weights = ctx.saved_tensors
        row, groups = ctx.row, query.size(1) // key.size(1)
        queries, outer = (_by_key_head(tensor, groups, query.dtype) for tensor in (query, gradient.transpose(1, 2)))
        keys, values = (_by_key_head(tensor, 1, key.dtype) for tensor in (key, value))
        by_query = query.new_empty(query.size(2), key.size(1), groups, query.size(-1))
        # A prefix of many sequences gets a part of its gradient from each of them: added up in float32.
        by_key, by_value = (torch.zeros(tensor.shape) for tensor in (keys, values))
        for (start, stop, earlier, _), weight in zip(row.blocks, weights, strict=True):
            own, given = (tensor[:, start * groups : stop * groups] for tensor in (queries, outer))
            slopes = torch.bmm(given, _gathered(values, earlier, start, stop).transpose(1, 2))
            slopes = torch._softmax_backward_data(slopes, weight, -1, weight.dtype)
            unused = slopes.new_empty(1)
            seen = _gathered(keys, earlier, start, stop)
            by_query[start:stop] = _by_token(torch.baddbmm(unused, slopes, seen, beta=0, alpha=ctx.scaling), groups)
            _scatter(by_value, torch.bmm(weight.transpose(1, 2), given), earlier, start, stop)
            found = torch.baddbmm(unused, slopes.transpose(1, 2), own, beta=0, alpha=ctx.scaling)
            _scatter(by_key, found, earlier, start, stop)
        by_query = by_query.view(1, query.size(2), -1, query.size(-1)).transpose(1, 2)
        return by_query, by_key.to(key.dtype)[None], by_value.to(value.dtype)[None], None, None


def _by_key_head(tensor: torch.Tensor, groups: int, dtype: torch.dtype) -> torch.Tensor:
    """[1, heads, tokens, width] as [key heads, tokens x query heads of each, width], in one block of memory."""
    heads, tokens, width = tensor.shape[1:]
    block = torch.empty(heads // groups, tokens, groups, width, dtype=dtype)
    block.copy_(tensor[0].unflatten(0, (-1, groups)).transpose(1, 2))
    return block.view(len(block), -1, width)


def _by_token(tensor: torch.Tensor, groups: int) -> torch.Tensor:
    """[key heads, tokens x query heads of each, width] as [tokens, key heads, query heads of each, width]."""
    return tensor.unflatten(1, (-1, groups)).transpose(0, 1)


def _gathered(tensor: torch.Tensor, earlier: list[tuple[int, int]], start: int, stop: int) -> torch.Tensor:
    """The tokens of [heads, tokens, width] that a block attends to."""
    parts = [tensor[:, begin:end] for begin, end in (*earlier, (start, stop))]
    return torch.cat(parts, 1) if earlier else parts[0]


def _scatter(total: torch.Tensor, found: torch.Tensor, earlier: list[tuple[int, int]], start: int, stop: int) -> None:
    """Adds the gradients of all tokens that a block attends to."""
    seen = (*earlier, (start, stop))
    for (begin, end), part in zip(seen, found.split([end - begin for begin, end in seen], 1), strict=True):
        total[:, begin:end] += part
