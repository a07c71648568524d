"""Frozen layers under an adapter (LoRA), computed in fewer and larger steps on a CPU.

PEFT multiplies by each matrix and each adapter by itself, in float32 where the weights below are in bfloat16, and transformers
goes through the activations once for each operation. Here, what is multiplied by the same input is one product, adapters are
added in place, norms, rotation and gating take few passes, and backward passes give the gradients alone that are asked for.
"""

import types

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import nn
from torch.nn.functional import silu
from transformers import AttentionInterface

from selfrefine.linear import multiply

# How far what comes out of a replacement may be from what comes out of the layer, of its norm.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


def speed_up(model, packed) -> dict[str, int]:
    """Replaces those layers of a frozen model on a CPU that it can compute as they do; how many of each kind.

    `packed` is a packed row to try them with.
    """
    weight = model.get_input_embeddings().weight
    if weight.device.type != "cpu" or weight.dtype not in TOLERANCE or weight.requires_grad:
        return {}
    found: dict[str, int] = {}
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, len(packed.row.tokens), weight.size(1), generator=generator).to(weight.dtype)
    rotation = getattr(model.base_model, "rotary_emb", None)
    asked = {"attention_mask": None, "past_key_values": None, "packed": packed}
    if rotation is not None:
        asked["position_embeddings"] = rotation(hidden, packed.positions)
    taken: set[nn.Module] = set()
    for module in list(model.modules()):
        for kind, build, options in (("norm", _norm, {}), ("mlp", _mlp, {}), ("attention", _attention, asked)):
            forward = build(module)
            if forward and _agree(module, forward, hidden, options):
                module.forward = types.MethodType(forward, module)
                taken |= set(module.modules())
                found[kind] = found.get(kind, 0) + 1
        if isinstance(module, LoraLinear) and module not in taken and _is_simple(module):
            fan = Fan([module])
            module.forward = types.MethodType(lambda self, x, fan=fan: fan(x), module)
            found["linear"] = found.get("linear", 0) + 1
    return found


def _agree(module, forward, hidden, options: dict) -> bool:
    """Whether a module and what would replace its forward pass give the same."""
    with torch.no_grad():
        try:
            wanted = module(hidden, **options)
            found = forward(module, hidden, **options)
        except (TypeError, RuntimeError, KeyError):
            return False
    wanted, found = (made[0] if isinstance(made, tuple) else made for made in (wanted, found))
    return ((wanted - found).norm() <= TOLERANCE[hidden.dtype] * wanted.norm()).item()


def _norm(module):
    """The forward pass of a root-mean-square norm."""
    if not type(module).__name__.endswith("RMSNorm") or not hasattr(module, "variance_epsilon"):
        return None

    def forward(self, hidden_states):
        return RootMeanSquare.apply(hidden_states, self.weight, self.variance_epsilon)

    return forward


def _mlp(module):
    """The forward pass of a gated layer: down(silu(gate) * up)."""
    linears = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if not all(map(_is_simple, linears)):
        return None
    opening, closing = Fan(linears[:2]), Fan(linears[2:])

    def forward(self, x):
        return closing(SiluGate.apply(opening(x)))

    return forward


def _attention(module):
    """The forward pass of a rotated attention whose scores transformers' interface computes."""
    linears = [getattr(module, name, None) for name in ("q_proj", "k_proj", "v_proj", "o_proj")]
    if not all(map(_is_simple, linears)) or not hasattr(module, "head_dim"):
        return None
    opening, closing, width = Fan(linears[:3]), Fan(linears[3:]), module.head_dim
    heads = [linear.out_features // width for linear in linears[:3]]

    def forward(self, hidden_states, position_embeddings, attention_mask=None, past_key_values=None, **options):
        cosines, sines = position_embeddings
        query, key, value = Rotation.apply(opening(hidden_states), cosines, sines, *heads)
        compute = AttentionInterface()[self.config._attn_implementation]
        mixed, weights = compute(self, query, key, value, attention_mask, scaling=self.scaling, **options)
        return closing(mixed.reshape(*hidden_states.shape[:-1], -1)), weights

    return forward


def _is_simple(module) -> bool:
    """Whether a module is a frozen matrix, alone or under a plain adapter."""
    if type(module) is LoraLinear:
        base = module.get_base_layer()
        drops = any(isinstance(drop, nn.Dropout) and drop.p for drop in module.lora_dropout.values())
        special = drops or module.lora_variant or module.fan_in_fan_out or any(module.lora_bias.values())
        return not special and not module.merged and type(base) is nn.Linear and not base.weight.requires_grad
    return type(module) is nn.Linear and not module.weight.requires_grad


class Fan:
    """Frozen matrices with the same input, as one: what comes out of them side by side.

    Their weights become parts of one block of memory.
    """

    def __init__(self, modules: list[nn.Module]):
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
                [n if base.bias is None else base.bias.data for base, n in zip(bases, none, strict=True)]
            )

    def __call__(self, hidden):
        """[..., in] to [..., all outs]."""
        places, adapters = [], []
        for module, start, stop in zip(self.modules, self.stops, self.stops[1:], strict=False):
            if not isinstance(module, LoraLinear) or module.disable_adapters:
                continue
            for name in module.active_adapters:
                if name in module.lora_A:
                    places.append((start, stop, module.scaling[name]))
                    adapters += [module.lora_A[name].weight, module.lora_B[name].weight]
        made = Product.apply(hidden.reshape(-1, hidden.size(-1)), self.weight, self.bias, places, *adapters)
        return made.view(*hidden.shape[:-1], -1)


def _halves(weights: list) -> tuple[list, list]:
    """Float32 weights for products in bfloat16: what bfloat16 holds of each, and below it what that leaves out.

    Rounded to bfloat16 alone, an adapter would not move by the small steps of preference optimisation.
    """
    high = [weight.to(torch.bfloat16) for weight in weights]
    return high, [(weight - top).to(torch.bfloat16) for weight, top in zip(weights, high, strict=True)]


class Product(torch.autograd.Function):
    """Inputs [tokens, in] times a frozen matrix [out, in], with adapters (A [rank, in], B [out, rank]) on parts of what comes out.

    `places`: for each adapter the (start, stop, scale) of its part. In bfloat16 the adapters count in full on the way forward,
    and on the way back as bfloat16 holds them.
    """

    @staticmethod
    def forward(ctx, inputs, weight, bias, places, *adapters):
        made = multiply(inputs, weight, bias)
        if not places:
            ctx.save_for_backward(weight)
            return made
        downs, lifts = (
            list(adapters[::2]),
            [(up * scale).T for up, (*_, scale) in zip(adapters[1::2], places, strict=True)],
        )
        sizes = [len(down) for down in downs]
        rank = sum(sizes)
        down = torch.cat(downs) if len(downs) > 1 else downs[0]
        if inputs.dtype != torch.float32:
            (downs, low_downs), (lifts, low_lifts) = _halves([down]), _halves(lifts)
            inner, low = torch.mm(inputs, torch.cat(downs + low_downs).T).split(rank, 1)
            down = downs[0]
            for (start, stop, _), own, rest, lift, under in zip(
                places, inner.split(sizes, 1), low.split(sizes, 1), lifts, low_lifts, strict=True
            ):
                made[:, start:stop].addmm_(torch.cat([own, rest, own], 1), torch.cat([lift, lift, under]))
        else:
            inner = torch.mm(inputs, down.T)
            for (start, stop, _), own, lift in zip(places, inner.split(sizes, 1), lifts, strict=True):
                made[:, start:stop].addmm_(own, lift)
        ctx.save_for_backward(weight, inputs, down, inner, *lifts)
        ctx.places, ctx.sizes = places, sizes
        return made

    @staticmethod
    def backward(ctx, gradient):
        weight, *rest = ctx.saved_tensors
        by_inputs = multiply(gradient, weight.T) if ctx.needs_input_grad[0] else None
        if not rest:
            return by_inputs, None, None, None
        inputs, down, inner, *lifts = rest
        slopes, by_up = torch.empty_like(inner), []
        parts = zip(ctx.places, lifts, inner.split(ctx.sizes, 1), slopes.split(ctx.sizes, 1), strict=True)
        for (start, stop, scale), lift, part, slope in parts:
            own = gradient[:, start:stop]
            slope.copy_(torch.mm(own, lift.T))
            by_up.append(torch.mm(part.T, own).T.float() * scale)
        by_down = torch.mm(slopes.T, inputs).float().split(ctx.sizes)
        if by_inputs is not None:
            by_inputs.addmm_(slopes, down)
        return by_inputs, None, None, None, *(found for pair in zip(by_down, by_up, strict=True) for found in pair)


class RootMeanSquare(torch.autograd.Function):
    """Inputs over their root mean square, times a frozen weight."""

    @staticmethod
    def forward(ctx, inputs, weight, epsilon):
        size = torch.linalg.vector_norm(inputs, dim=-1, keepdim=True, dtype=torch.float32)
        shrink = size.square_().div_(inputs.size(-1)).add_(epsilon).rsqrt_()
        ctx.save_for_backward(inputs, weight, shrink)
        return torch.mul(inputs, shrink).to(inputs.dtype).mul_(weight)

    @staticmethod
    def backward(ctx, gradient):
        inputs, weight, shrink = ctx.saved_tensors
        slope = torch.mul(gradient, weight).float()
        along = (slope * inputs).sum(-1, keepdim=True).mul_(shrink.pow(3)).div_(-inputs.size(-1))
        return slope.mul_(shrink).addcmul_(inputs, along).to(gradient.dtype), None, None


class SiluGate(torch.autograd.Function):
    """silu(gate) * up, of gate and up side by side [..., 2 x width]."""

    @staticmethod
    def forward(ctx, both):
        gate, up = both.chunk(2, -1)
        opened = silu(gate)
        ctx.save_for_backward(both, opened)
        return opened * up

    @staticmethod
    def backward(ctx, gradient):
        both, opened = ctx.saved_tensors
        gate, up = both.chunk(2, -1)
        found = torch.empty_like(both)
        by_gate, by_up = found.chunk(2, -1)
        torch.mul(gradient, opened, out=by_up)
        torch.ops.aten.silu_backward.grad_input(gradient * up, gate, grad_input=by_gate)
        return found


class Rotation(torch.autograd.Function):
    """Queries, keys and values [1, heads, tokens, width] of what stands side by side [1, tokens, (all heads) x width].

    Queries and keys are rotated by their positions: cosines and sines are [1, tokens, width], both halves alike.
    """

    @staticmethod
    def forward(ctx, together, cosines, sines, queries, keys, values):
        ctx.save_for_backward(cosines, sines)
        ctx.heads = queries, keys, values
        tokens, heads = together.size(1), queries + keys + values
        stacked = together.view(tokens, heads, -1)
        rotated = _turned(stacked[:, : queries + keys], cosines, sines)
        parts = (rotated[:, :queries], rotated[:, queries:], stacked[:, queries + keys :])
        return tuple(part.transpose(0, 1)[None] for part in parts)

    @staticmethod
    def backward(ctx, by_query, by_key, by_value):
        cosines, sines = ctx.saved_tensors
        queries, keys, values = ctx.heads
        tokens, width = by_query.shape[2:]
        found = by_query.new_empty(tokens, queries + keys + values, width)
        found[:, :queries] = by_query[0].transpose(0, 1)
        found[:, queries : queries + keys] = by_key[0].transpose(0, 1)
        found[:, queries + keys :] = by_value[0].transpose(0, 1)
        turned = found[:, : queries + keys]
        turned.copy_(_turned(turned, cosines, -sines))
        return found.view(1, tokens, -1), None, None, None, None, None


def _turned(heads, cosines, sines):
    """[tokens, heads, width], the pairs of its halves rotated."""
    half = heads.size(-1) // 2
    first, second = heads[..., :half].float(), heads[..., half:].float()
    cosine, sine = (angles[0, :, None, :half].float() for angles in (cosines, sines))
    turned = heads.new_empty(heads.shape)
    turned[..., :half] = torch.mul(first, cosine).addcmul_(second, sine, value=-1)
    turned[..., half:] = torch.mul(second, cosine).addcmul_(first, sine)
    return turned
