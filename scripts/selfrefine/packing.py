"""Several texts in one row of tokens without padding; what they begin with in common passes through the model once.

TRL's trainers ask their model for the log-probabilities of padded texts. `pack` has it answer from a packed row: each text
attends to its own beginnings and to itself, at its own positions, so that the answers are those of the padded texts. The
language-model head works at the labelled positions alone.
"""

import inspect
import types
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from trl.trainer.utils import FusedCausalLMOutput

from selfrefine.linear import multiply

# Beginnings shorter than this are computed for each text anew: a piece of the row costs more than they do.
SHORTEST_SHARED = 16
# Tokens of a row that a CPU attends from together: fewer make more steps, more compute more that nobody sees.
BLOCK_TOKENS = 128
# Rows of logits at a time: enough for the matrix products to be fast, few enough to stay in the processor's cache.
LOGIT_ROWS = 256
# What an attention can be told, beside queries, keys and values, that changes nothing here.
HARMLESS = {
    "position_ids",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "is_causal",
}
NAME = "packed"
# What TRL's fused head says of each token.
PER_TOKEN = ("log_probs", "label_mask", "entropy", "mean_logits", "is_top1")
# How far what the first layers make of a text in a row may be from what they make of it alone, of its norm: bfloat16 rounds
# differently, and ever more so in later layers.
LIKE_ALONE = 0.05
FIRST_LAYERS = 2


class Row:
    """Texts laid out in one row, as a tree of pieces: a piece follows those that its texts begin with.

    `tokens`, `positions`: of the row; a text's first token is at position 0. `pieces`: (start, stop) in the row. `before`: for
    each piece, the numbers of those that come before it, first ones first. `places`: for each text, where its tokens are.
    """

    def __init__(self, texts: list[list[int]], share: bool = True):
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.pieces: list[tuple[int, int]] = []
        self.before: list[tuple[int, ...]] = []
        self.places: list[list[int]] = [[] for _ in texts]
        self._texts = texts
        for members in self._groups(range(len(texts)), 0) if share else [[i] for i in range(len(texts))]:
            self._add(members, 0, ())

    def _groups(self, members: Iterable[int], done: int) -> list[list[int]]:
        """Texts that go on alike after `done` tokens, in the order in which the first of them come."""
        groups: dict = {}
        for member in members:
            following = tuple(self._texts[member][done : done + SHORTEST_SHARED])
            groups.setdefault(following if len(following) == SHORTEST_SHARED else member, []).append(member)
        return list(groups.values())

    def _add(self, members: list[int], done: int, before: tuple[int, ...]) -> None:
        first = self._texts[members[0]]
        stop = min(len(self._texts[member]) for member in members)
        for member in members[1:]:
            text = self._texts[member]
            stop = next((i for i in range(done, stop) if text[i] != first[i]), stop)
        start = len(self.tokens)
        self.tokens += first[done:stop]
        self.positions += range(done, stop)
        for member in members:
            self.places[member] += range(start, len(self.tokens))
        self.before.append(before)
        self.pieces.append((start, len(self.tokens)))
        before = (*before, len(self.pieces) - 1)
        for group in self._groups([m for m in members if len(self._texts[m]) > stop], stop):
            self._add(group, stop, before)

    @cached_property
    def blocks(self) -> list["Block"]:
        """Pieces that follow each other in the row, few enough tokens at a time to be attended from together."""
        groups: list[list[int]] = []
        for number, (_, stop) in enumerate(self.pieces):
            if groups and stop - self.pieces[groups[-1][0]][0] <= BLOCK_TOKENS:
                groups[-1].append(number)
            else:
                groups.append([number])
        return [self._block(group) for group in groups]

    def _block(self, group: list[int]) -> "Block":
        earlier = sorted({piece for own in group for piece in self.before[own]} - set(group))
        seen = [*earlier, *group]
        follows = torch.tensor([[other == own or other in self.before[own] for other in seen] for own in group])
        sizes, all_sizes = ([self.pieces[i][1] - self.pieces[i][0] for i in numbers] for numbers in (group, seen))
        from_piece, to_piece = (torch.arange(len(n)).repeat_interleave(torch.tensor(n)) for n in (sizes, all_sizes))
        positions = torch.cat([torch.tensor(self.positions[slice(*self.pieces[i])]) for i in seen])
        own = positions[sum(all_sizes) - sum(sizes) :]
        allowed = follows[from_piece][:, to_piece] & (positions <= own[:, None])
        start, stop = self.pieces[group[0]][0], self.pieces[group[-1]][1]
        return Block(
            start,
            stop,
            [self.pieces[i] for i in earlier],
            torch.zeros(allowed.shape).masked_fill_(~allowed, float("-inf")),
        )


class Block(NamedTuple):
    """A stretch of a row: what its tokens attend to beside each other (`earlier`), and what is added to their scores.

    `barred` is [tokens, earlier tokens and own], minus infinity where one does not see the other.
    """

    start: int
    stop: int
    earlier: list[tuple[int, int]]
    barred: torch.Tensor


class Packed:
    """Padded texts as a packed row, on the device that they came on.

    `targets` [1, answers] are the labels, `sources` [answers] the places in the row that foretell them, `cells` [answers] where
    TRL looks for what is said of each: in [texts, length - 1], flattened.
    """

    def __init__(self, input_ids, attention_mask, labels, share: bool):
        width = input_ids.size(1)
        columns = [[column for column, kept in enumerate(mask) if kept] for mask in attention_mask.tolist()]
        texts = [[ids[column] for column in kept] for ids, kept in zip(input_ids.tolist(), columns, strict=True)]
        self.row = Row(texts, share)
        targets, sources, cells = [], [], []
        for text, (wanted, kept) in enumerate(zip(labels.tolist(), columns, strict=True)):
            for source, column in zip(self.row.places[text], kept[1:], strict=False):
                if wanted[column] != -100:
                    targets.append(wanted[column])
                    sources.append(source)
                    cells.append(text * (width - 1) + column - 1)
        device = input_ids.device
        self.tokens, self.positions, self.targets = (
            torch.tensor([numbers], device=device) for numbers in (self.row.tokens, self.row.positions, targets)
        )
        self.sources, self.cells = (torch.tensor(numbers, device=device) for numbers in (sources, cells))
        self.shape = (len(texts), width - 1)
        self.layers = 0  # that have attended to it

    def spread(self, values):
        """What was found at each answer [1, answers], as TRL reads it [texts, length - 1]; zero elsewhere."""
        found = values.new_zeros(self.shape[0] * self.shape[1])
        return found.index_put((self.cells,), values.flatten()).view(self.shape)


class Unpackable(ValueError):
    """Why a model cannot be asked with packed rows."""


def pack(model, longest: int) -> str | None:
    """Has a causal language model that TRL's fused head was added to answer from packed rows; why not, where it cannot.

    `longest` is the length of the longest text that it will be asked about.
    """
    try:
        _check(model, longest)
    except Unpackable as reason:
        return str(reason)
    padded, backbone = model.forward, model.base_model
    # TRL's head takes all that the backbone leaves it.
    backbone.register_forward_hook(_leave_answers, with_kwargs=True)

    def forward(self, input_ids=None, attention_mask=None, labels=None, fused_lm_head=False, use_cache=None, **options):
        if not fused_lm_head:
            raise ValueError("a model that answers from packed rows is asked for log-probabilities alone")
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
            answers = padded(**inputs, shift_labels=packed.targets, fused_lm_head=True, **options)
            found = {name: values for name, values in answers.items() if name in PER_TOKEN}
            unknown = {}
        return FusedCausalLMOutput(**{name: packed.spread(values) for name, values in found.items()}, **unknown)

    model.forward = types.MethodType(forward, model)
    return None


def _check(model, longest: int) -> None:
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) or longest
    if not model._supports_attention_backend or model._is_stateful:
        raise Unpackable("its layers do not all take their attention from transformers' interface")
    if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        raise Unpackable("it cannot be told the tokens' positions")
    if others := kinds - {"full_attention", "sliding_attention"}:
        raise Unpackable(f"it has layers of another kind ({', '.join(sorted(others))})")
    if window < longest:
        raise Unpackable(f"its attention reaches {window} tokens back, and a text has {longest}")
    if getattr(config, "router_aux_loss_coef", 0.0):
        raise Unpackable("its router learns from all tokens, padding's included")
    if getattr(config, "attention_dropout", 0.0):
        raise Unpackable("its attention drops scores at random")
    before, training = config._attn_implementation, model.training
    packed = trial(model)
    model.eval()
    try:
        alone = [_first_layers(model, input_ids=packed.tokens[:, text]) for text in packed.row.places]
        AttentionInterface.register(NAME, attend)
        model.set_attn_implementation(NAME)
        inputs = {"input_ids": packed.tokens, "position_ids": packed.positions, "packed": packed}
        together = _first_layers(model, **inputs)
        if packed.layers != config.num_hidden_layers:
            raise Unpackable("its layers do not all take their attention from transformers' interface")
        for text, wanted in zip(packed.row.places, alone, strict=True):
            if (together[text] - wanted).norm() > LIKE_ALONE * wanted.norm():
                raise Unpackable("what it makes of a text depends on more than the text's tokens and their positions")
    except Unpackable:
        model.set_attn_implementation(before)
        raise
    finally:
        model.train(training)


def _first_layers(model, **inputs):
    """What the first layers of a model make of one row of tokens: [tokens, width]."""
    with torch.no_grad():
        outputs = model.base_model(**inputs, use_cache=False, output_hidden_states=True)
    return outputs.hidden_states[min(FIRST_LAYERS, len(outputs.hidden_states) - 1)][0].float()


def trial(model) -> Packed:
    """A row of two short texts to try a model's layers with."""
    tokens = model.get_input_embeddings().num_embeddings
    texts = torch.arange(SHORTEST_SHARED + 4, device=model.device).mul(7).add(100)[None].repeat(2, 1) % tokens
    texts[1, SHORTEST_SHARED:] = texts[1, :4]
    return Packed(texts, torch.ones_like(texts), texts, True)


def _leave_answers(backbone, positional, named, outputs):
    """A backbone's last hidden states where an answer is foretold; a forward hook."""
    if "packed" in named:
        outputs.last_hidden_state = nn.functional.embedding(named["packed"].sources, outputs.last_hidden_state[0])[None]
    return outputs


def _drops(model) -> bool:
    """Whether some of what passes through a model is dropped at random: two texts then see two beginnings."""
    return model.training and any(isinstance(module, nn.Dropout) and module.p for module in model.modules())


def _is_plain(model, head) -> bool:
    """Whether the logits are a frozen matrix's product with the hidden states, and nothing else."""
    config = model.config.get_text_config()
    scales = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
    if torch.is_autocast_enabled("cpu") or any(getattr(config, name, None) is not None for name in scales):
        return False
    return type(head) is nn.Linear and head.bias is None and not head.weight.requires_grad


class FrozenHead(torch.autograd.Function):
    """Log-probabilities of `targets` [answers] under a frozen head, in float32, from hidden states [answers, width].

    The logits are made a few rows at a time, once: a log-probability's gradient is that of the hidden state, times a number
    that the backward pass brings.
    """

    @staticmethod
    def forward(ctx, hidden, weight, targets):
        wanted = ctx.needs_input_grad[0]
        found = torch.empty(len(targets), dtype=torch.float32)
        slopes = torch.empty_like(hidden) if wanted else None
        rows = min(LOGIT_ROWS, len(targets))
        shares = torch.empty(rows, len(weight), dtype=torch.float32)
        for start in range(0, len(targets), rows):
            part, aims = hidden[start : start + rows], targets[start : start + rows, None]
            raw, powers = multiply(part, weight), shares[: len(part)]
            top = raw.amax(1, keepdim=True).float()
            torch.sub(raw, top, out=powers)
            aimed = powers.gather(1, aims)
            powers.exp_()
            total = powers.sum(1, keepdim=True)
            found[start : start + rows] = (aimed - total.log())[:, 0]
            if wanted:
                mean = multiply(raw.copy_(powers), weight.T).float().div_(total)
                slopes[start : start + rows] = weight[aims[:, 0]].float().sub_(mean)
        ctx.save_for_backward(slopes)
        return found

    @staticmethod
    def backward(ctx, gradient):
        (slopes,) = ctx.saved_tensors
        return (gradient[:, None] * slopes).to(slopes.dtype), None, None


def attend(module, query, key, value, attention_mask, dropout=0.0, scaling=None, packed=None, **options):
    """A layer's attention over a packed row, as transformers' interface asks for it: [1, heads, tokens, width] each.

    The outputs are [1, tokens, heads, width].
    """
    others = {name for name, told in options.items() if told is not None} - HARMLESS - {"sliding_window"}
    if packed is None or others or dropout:
        raise Unpackable(f"its attention has terms of its own ({', '.join(sorted(others))})")
    packed.layers += 1
    scaling = query.size(-1) ** -0.5 if scaling is None else scaling
    if query.device.type == "cpu" and query.dtype == key.dtype == value.dtype and not torch.is_autocast_enabled("cpu"):
        return PackedAttention.apply(query, key, value, packed.row, scaling), None
    return _attend_by_piece(query, key, value, packed.row, scaling), None


def _attend_by_piece(query, key, value, row: Row, scaling: float):
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

    Query heads that share a key head are taken for more queries, so that keys are not copied. Scores and their softmax are in
    float32. In bfloat16, torch's own backward pass takes four times as long.
    """

    @staticmethod
    def forward(ctx, query, key, value, row, scaling):
        heads, tokens, width = query.shape[1:]
        groups = heads // key.size(1)
        exact = _by_key_head(query, groups, torch.float32)
        keys, values = _by_key_head(key, 1, torch.float32), _by_key_head(value, 1, value.dtype)
        outputs = query.new_empty(tokens, key.size(1), groups, value.size(-1))
        weights = []
        for start, stop, earlier, barred in row.blocks:
            own = exact[:, start * groups : stop * groups]
            seen = _gathered(keys, earlier, start, stop).transpose(1, 2)
            scores = torch.baddbmm(own.new_empty(1), own, seen, beta=0, alpha=scaling)
            scores.view(len(scores), -1, groups, seen.size(-1)).add_(barred[:, None])
            weight = torch.softmax(scores, -1).to(query.dtype)
            outputs[start:stop] = _by_token(torch.bmm(weight, _gathered(values, earlier, start, stop)), groups)
            weights.append(weight)
        ctx.save_for_backward(query, key, value, *weights)
        ctx.row, ctx.scaling = row, scaling
        return outputs.view(1, tokens, heads, -1)

    @staticmethod
    def backward(ctx, gradient):
        query, key, value, *weights = ctx.saved_tensors
        row, groups = ctx.row, query.size(1) // key.size(1)
        queries, outer = (_by_key_head(tensor, groups, query.dtype) for tensor in (query, gradient.transpose(1, 2)))
        keys, values = (_by_key_head(tensor, 1, key.dtype) for tensor in (key, value))
        by_query = query.new_empty(query.size(2), key.size(1), groups, query.size(-1))
        # What many texts begin with gets a part of its gradient from each of them: added up in float32.
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


def _by_key_head(tensor, groups: int, dtype):
    """[1, heads, tokens, width] as [key heads, tokens x query heads of each, width], in one block of memory."""
    heads, tokens, width = tensor.shape[1:]
    made = torch.empty(heads // groups, tokens, groups, width, dtype=dtype)
    made.copy_(tensor[0].unflatten(0, (-1, groups)).transpose(1, 2))
    return made.view(len(made), -1, width)


def _by_token(tensor, groups: int):
    """[key heads, tokens x query heads of each, width] as [tokens, key heads, query heads of each, width]."""
    return tensor.unflatten(1, (-1, groups)).transpose(0, 1)


def _gathered(tensor, earlier: list[tuple[int, int]], start: int, stop: int):
    """What a block sees of [heads, tokens, width]."""
    parts = [tensor[:, begin:end] for begin, end in (*earlier, (start, stop))]
    return torch.cat(parts, 1) if earlier else parts[0]


def _scatter(total, found, earlier: list[tuple[int, int]], start: int, stop: int) -> None:
    """Adds what was found for all that a block sees."""
    seen = (*earlier, (start, stop))
    for (begin, end), part in zip(seen, found.split([end - begin for begin, end in seen], 1), strict=True):
        total[:, begin:end] += part
