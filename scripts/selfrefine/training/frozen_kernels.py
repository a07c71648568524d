"""Forward and backward passes of frozen layers and their adapters on a CPU."""

from typing import Any

import torch
from torch.nn.functional import silu

from selfrefine.models.onednn import multiply

# Rows of logits at a time: enough for fast matrix products, few enough to stay in the processor's cache.
LOGIT_ROWS = 256
# Of an adapter, the first and last output that it adds to, and the factor that it is scaled by.
Place = tuple[int, int, float]
# What autograd passes to a function's forward and backward: torch has no public name for its type.
Context = Any


def _halves(weights: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Float32 weights for products in bfloat16: each rounded to bfloat16, and the remainder, rounded likewise.

    Rounded to bfloat16 once, an adapter would not move by the small steps of preference optimisation.
    """
    high = [weight.to(torch.bfloat16) for weight in weights]
    return high, [(weight - top).to(torch.bfloat16) for weight, top in zip(weights, high, strict=True)]


class Product(torch.autograd.Function):
    """Inputs [tokens, in] times a frozen matrix [out, in], plus adapters (A [rank, in], B [out, rank]) on parts of it.

    `places`: for each adapter the (start, stop, scale) of its part. In bfloat16, the forward pass uses adapters in full
    precision, and the backward pass uses them rounded to bfloat16.
    """

    @staticmethod
    def forward(
        ctx: Context,
        inputs: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        places: list[Place],
        *adapters: torch.Tensor,
    ) -> torch.Tensor:
        outputs = multiply(inputs, weight, bias)
        if not places:
            ctx.save_for_backward(weight)
            return outputs
        downs, ups = (
            list(adapters[::2]),
            [(up * scale).T for up, (*_, scale) in zip(adapters[1::2], places, strict=True)],
        )
        sizes = [len(down) for down in downs]
        rank = sum(sizes)
        down = torch.cat(downs) if len(downs) > 1 else downs[0]
        if inputs.dtype != torch.float32:
            (downs, low_downs), (ups, low_ups) = _halves([down]), _halves(ups)
            inner, low = torch.mm(inputs, torch.cat(downs + low_downs).T).split(rank, 1)
            down = downs[0]
            for (start, stop, _), own, rest, up, under in zip(
                places, inner.split(sizes, 1), low.split(sizes, 1), ups, low_ups, strict=True
            ):
                outputs[:, start:stop].addmm_(torch.cat([own, rest, own], 1), torch.cat([up, up, under]))
        else:
            inner = torch.mm(inputs, down.T)
            for (start, stop, _), own, up in zip(places, inner.split(sizes, 1), ups, strict=True):
                outputs[:, start:stop].addmm_(own, up)
        ctx.save_for_backward(weight, inputs, down, inner, *ups)
        ctx.places, ctx.sizes = places, sizes
        return outputs

    @staticmethod
    def backward(ctx: Context, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight, *rest = ctx.saved_tensors
        by_inputs = multiply(gradient, weight.T) if ctx.needs_input_grad[0] else None
        if not rest:
            return by_inputs, None, None, None
        inputs, down, inner, *ups = rest
        slopes, by_up = torch.empty_like(inner), []
        parts = zip(ctx.places, ups, inner.split(ctx.sizes, 1), slopes.split(ctx.sizes, 1), strict=True)
        for (start, stop, scale), up, part, slope in parts:
            own = gradient[:, start:stop]
            slope.copy_(torch.mm(own, up.T))
            by_up.append(torch.mm(part.T, own).T.float() * scale)
        by_down = torch.mm(slopes.T, inputs).float().split(ctx.sizes)
        if by_inputs is not None:
            by_inputs.addmm_(slopes, down)
        return by_inputs, None, None, None, *(found for pair in zip(by_down, by_up, strict=True) for found in pair)


class RootMeanSquare(torch.autograd.Function):
    """Inputs over their root mean square, times a frozen weight."""

    @staticmethod
    def forward(ctx: Context, inputs: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        size = torch.linalg.vector_norm(inputs, dim=-1, keepdim=True, dtype=torch.float32)
        shrink = size.square_().div_(inputs.size(-1)).add_(epsilon).rsqrt_()
        ctx.save_for_backward(inputs, weight, shrink)
        return torch.mul(inputs, shrink).to(inputs.dtype).mul_(weight)

    @staticmethod
    def backward(ctx: Context, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, weight, shrink = ctx.saved_tensors
        slope = torch.mul(gradient, weight).float()
        along = (slope * inputs).sum(-1, keepdim=True).mul_(shrink.pow(3)).div_(-inputs.size(-1))
        return slope.mul_(shrink).addcmul_(inputs, along).to(gradient.dtype), None, None


class SiluGate(torch.autograd.Function):
    """silu(gate) * up, of gate and up side by side [..., 2 x width]."""

    @staticmethod
    def forward(ctx: Context, both: torch.Tensor) -> torch.Tensor:
        gate, up = both.chunk(2, -1)
        opened = silu(gate)
        ctx.save_for_backward(both, opened)
        return opened * up

    @staticmethod
    def backward(ctx: Context, gradient: torch.Tensor) -> torch.Tensor:
        both, opened = ctx.saved_tensors
        gate, up = both.chunk(2, -1)
        found = torch.empty_like(both)
        by_gate, by_up = found.chunk(2, -1)
        torch.mul(gradient, opened, out=by_up)
        torch.ops.aten.silu_backward.grad_input(gradient * up, gate, grad_input=by_gate)
        return found


class Rotation(torch.autograd.Function):
    """Queries, keys and values [1, heads, tokens, width] of a projection that holds them side by side [1, tokens, all].

    Queries and keys are rotated by their positions: cosines and sines are [1, tokens, width], both halves equal.
    """

    @staticmethod
    def forward(
        ctx: Context,
        together: torch.Tensor,
        cosines: torch.Tensor,
        sines: torch.Tensor,
        queries: int,
        keys: int,
        values: int,
    ) -> tuple[torch.Tensor, ...]:
        ctx.save_for_backward(cosines, sines)
        ctx.heads = queries, keys, values
        tokens, heads = together.size(1), queries + keys + values
        stacked = together.view(tokens, heads, -1)
        rotated = _rotated(stacked[:, : queries + keys], cosines, sines)
        parts = (rotated[:, :queries], rotated[:, queries:], stacked[:, queries + keys :])
        return tuple(part.transpose(0, 1)[None] for part in parts)

    @staticmethod
    def backward(
        ctx: Context, by_query: torch.Tensor, by_key: torch.Tensor, by_value: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        cosines, sines = ctx.saved_tensors
        queries, keys, values = ctx.heads
        tokens, width = by_query.shape[2:]
        found = by_query.new_empty(tokens, queries + keys + values, width)
        found[:, :queries] = by_query[0].transpose(0, 1)
        found[:, queries : queries + keys] = by_key[0].transpose(0, 1)
        found[:, queries + keys :] = by_value[0].transpose(0, 1)
        turned = found[:, : queries + keys]
        turned.copy_(_rotated(turned, cosines, -sines))
        return found.view(1, tokens, -1), None, None, None, None, None


def _rotated(heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """[tokens, heads, width], the pairs of its halves rotated."""
    half = heads.size(-1) // 2
    first, second = heads[..., :half].float(), heads[..., half:].float()
    cosine, sine = (angles[0, :, None, :half].float() for angles in (cosines, sines))
    turned = heads.new_empty(heads.shape)
    turned[..., :half] = torch.mul(first, cosine).addcmul_(second, sine, value=-1)
    turned[..., half:] = torch.mul(second, cosine).addcmul_(first, sine)
    return turned


class FrozenHead(torch.autograd.Function):
    """Log-probabilities of `targets` [answers] under a frozen head, in float32, from hidden states [answers, width].

    Logits are computed a few rows at a time, and once: the forward pass already finds each log-probability's gradient
    with respect to the hidden state, which the backward pass only scales.
    """

    @staticmethod
    def forward(ctx: Context, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        needs_gradient = ctx.needs_input_grad[0]
        found = torch.empty(len(targets), dtype=torch.float32)
        slopes = torch.empty_like(hidden) if needs_gradient else None
        rows = min(LOGIT_ROWS, len(targets))
        buffer = torch.empty(rows, len(weight), dtype=torch.float32)
        for start in range(0, len(targets), rows):
            part, aims = hidden[start : start + rows], targets[start : start + rows, None]
            logits, powers = multiply(part, weight), buffer[: len(part)]
            top = logits.amax(1, keepdim=True).float()
            torch.sub(logits, top, out=powers)
            aimed = powers.gather(1, aims)
            powers.exp_()
            total = powers.sum(1, keepdim=True)
            found[start : start + rows] = (aimed - total.log())[:, 0]
            if slopes is not None:
                mean = multiply(logits.copy_(powers), weight.T).float().div_(total)
                slopes[start : start + rows] = weight[aims[:, 0]].float().sub_(mean)
        ctx.save_for_backward(slopes)
        return found

    @staticmethod
    def backward(ctx: Context, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return (gradient[:, None] * slopes).to(slopes.dtype), None, None
