"""A KV cache in slots, and attention over it, for decoding many sequences at once.

Each active sequence has a slot in tensors that are allocated once. The slot of a finished sequence is given to the next
request, or filled with the content of the last slot, so that the occupied slots always come first and every operation
works on plain slices.

The query heads that share a key head are rows of one matrix, so nothing is copied or repeated. On a CPU keys are stored
transposed, as they are multiplied: decoding is about twice as fast as `scaled_dot_product_attention` over a cache that
grows. On a GPU, where launching several kernels would cost more, that function does it all in one.
"""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

NAME = "selfrefine_slots"
# A decoding pass reads a multiple of so many columns: a GPU's kernel would copy a mask of another width.
ALIGNED = 16


Tensors = tuple[torch.Tensor, torch.Tensor]


class SlotCache(Cache):
    """The keys and values of a model's layers for sequences of at most `length` tokens.

    Before each forward pass, call `prefix`, `prefill` or `decode` to say what it reads.
    """

    def __init__(self, slots: int, length: int, transposed: bool):
        super().__init__(layer_class_to_replicate=DynamicLayer)
        self.slots, self.length = slots, -(-length // ALIGNED) * ALIGNED
        self.transposed = transposed
        # By layer: values [slots, key heads, length, width]; keys the same, or transposed [slots, key heads, width,
        # length].
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}
        # By layer, of the prefix that all sequences share: [1, key heads, shared, width].
        self.shared_keys: dict[int, torch.Tensor] = {}
        self.shared_values: dict[int, torch.Tensor] = {}
        self.shared = 0
        # Decoding: what is added to the scores. Prefill: which columns each query attends to; None: all before it.
        self.mask: torch.Tensor | None = None
        self.decoding = False
        self._update = self._keep_shared

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """0: the model is always given the positions."""
        return 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> Tensors:
        """Stores a layer's new keys and values [sequences, key heads, tokens, width]; returns those to attend to."""
        return self._update(key_states, value_states, layer_idx)

    def prefix(self, tokens: int) -> None:
        """The next pass reads the prefix of so many tokens that all sequences share."""
        self.shared = tokens
        self.mask = None
        self._update = self._keep_shared

    def prefill(self, lengths: torch.Tensor, width: int, slots: torch.Tensor, rows: torch.Tensor) -> None:
        """The next pass reads prompts of `lengths` int[prompts] tokens, padded on the left to `width` columns.

        `slots` and `rows` int[sequences]: which slots to fill, and with which prompt's keys and values.
        """
        columns = torch.arange(width, device=lengths.device)
        start = width - lengths[:, None]
        visible = (columns[None, None] >= start[..., None]) & (columns[None] <= columns[:, None])
        # Padding attends to itself: the softmax of a row without any visible column would be NaN.
        visible |= columns[None] == columns[:, None]
        before = visible.new_ones(len(lengths), width, self.shared)
        self.mask = torch.cat([before, visible], dim=-1)[:, None]
        self.decoding = False
        # For each column of the slot, the column of the padded prompt that goes there; the columns behind are
        # overwritten.
        self._columns = (columns[None] + start).clamp_(max=width - 1)[rows]
        self._filled, self._rows, self._width = slots, rows, width
        self._update = self._fill

    def decode(self, positions: torch.Tensor, longest: int, dtype: torch.dtype) -> None:
        """The next pass, computed in `dtype`, reads one token of each of the first sequences.

        `positions` int[sequences] are the tokens' positions, all below `longest`.
        """
        self._positions = positions
        self._longest = longest if self.transposed else -(-longest // ALIGNED) * ALIGNED
        self._sequences = torch.arange(len(positions), device=positions.device)
        columns = torch.arange(self._longest, device=positions.device)
        hidden = (columns[None] > positions[:, None])[:, None, None]
        self.mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
        self.decoding = True
        self._update = self._extend

    def move(self, source: int, target: int) -> None:
        """Copies a slot's content into another one."""
        for tensor in (*self.keys.values(), *self.values.values()):
            tensor[target] = tensor[source]

    def _keep_shared(self, keys: torch.Tensor, values: torch.Tensor, layer: int) -> Tensors:
        self.shared_keys[layer], self.shared_values[layer] = keys, values
        return keys, values

    def _fill(self, keys: torch.Tensor, values: torch.Tensor, layer: int) -> Tensors:
        if layer not in self.keys:
            (_, heads, _, wide), deep = keys.shape, values.shape[-1]
            shape = (wide, self.length) if self.transposed else (self.length, wide)
            self.keys[layer] = keys.new_zeros(self.slots, heads, *shape)
            self.values[layer] = values.new_zeros(self.slots, heads, self.length, deep)
        own, seen = self._columns_of(self.keys[layer]), self.values[layer]
        start, end = self.shared, self.shared + self._width
        filled, rows, index = (part.to(keys.device) for part in (self._filled, self._rows, self._columns))
        index = index[:, None, :, None]
        own[filled, :, start:end] = _pick(keys[rows], index)
        seen[filled, :, start:end] = _pick(values[rows], index)
        if not self.shared:
            return keys, values
        before, behind = self.shared_keys[layer], self.shared_values[layer]
        own[filled, :, :start] = before
        seen[filled, :, :start] = behind
        number = len(keys)
        return (
            torch.cat([before.expand(number, -1, -1, -1), keys], dim=2),
            torch.cat([behind.expand(number, -1, -1, -1), values], dim=2),
        )

    def _extend(self, keys: torch.Tensor, values: torch.Tensor, layer: int) -> Tensors:
        number = len(keys)
        own, seen = self.keys[layer][:number], self.values[layer][:number]
        sequences, positions = self._sequences.to(keys.device), self._positions.to(keys.device)
        self._columns_of(own)[sequences, :, positions] = keys[:, :, 0]
        seen[sequences, :, positions] = values[:, :, 0]
        return own[..., : self._longest] if self.transposed else own[:, :, : self._longest], seen[:, :, : self._longest]

    def _columns_of(self, keys: torch.Tensor) -> torch.Tensor:
        """A view of a layer's keys as [slots, key heads, length, width]."""
        return keys.transpose(2, 3) if self.transposed else keys


def _pick(states: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    number, heads, _, width = states.shape
    return states.gather(2, index.expand(number, heads, -1, width))


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    slots: SlotCache,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it.

    `query` is [sequences, heads, tokens, width]; the result is [sequences, tokens, heads, width].
    """
    number, heads, tokens, width = query.shape
    shared = heads // key.shape[1]
    if scaling is None:
        scaling = width**-0.5
    if slots.decoding:
        made = _decode(query.reshape(number, key.shape[1], shared, width), key, value, slots, scaling)
        made = made.reshape(number, heads, 1, value.shape[-1])
    else:
        made = scaled_dot_product_attention(
            query,
            key.repeat_interleave(shared, 1) if shared > 1 else key,
            value.repeat_interleave(shared, 1) if shared > 1 else value,
            attn_mask=None if slots.mask is None else slots.mask.to(query.device),
            is_causal=slots.mask is None and tokens > 1,
            scale=scaling,
        )
    return made.transpose(1, 2).contiguous(), None


def _decode(
    grouped: torch.Tensor, key: torch.Tensor, value: torch.Tensor, slots: SlotCache, scaling: float
) -> torch.Tensor:
    """Attention of one token per sequence: [sequences, key heads, heads per key head, width], in and out."""
    assert slots.mask is not None, "`decode` sets a mask"
    mask = slots.mask.to(grouped)
    if slots.transposed:
        scores = torch.matmul(grouped * scaling, key).add_(mask)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
        return torch.matmul(weights, value)
    mask = mask.expand(-1, grouped.shape[1], grouped.shape[2], -1)
    return scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scaling)


AttentionInterface.register(NAME, attend)


def refusal(model: PreTrainedModel, length: int) -> str | None:
    """Why a model cannot use the slots for sequences of up to `length` tokens; None where it can."""
    settings = model.config.get_text_config(decoder=True)
    kinds = set(getattr(settings, "layer_types", None) or ["full_attention"])
    window = getattr(settings, "sliding_window", None)
    if getattr(settings, "use_sliding_window", True) is False:
        window = None
    if not model._supports_attention_backend:
        return "its attention cannot be replaced"
    if model.config.is_encoder_decoder or model._is_stateful or kinds - {"full_attention", "sliding_attention"}:
        return "it keeps other state than a KV cache"
    if window is not None and length > window:
        return f"its attention slides over {window} tokens, and a sequence may have {length}"
    if getattr(settings, "attn_logit_softcapping", None) is not None:
        return "its attention scores are capped"
    if any(hasattr(layer, "sinks") for layer in model.modules()):
        return "its attention has sinks"
    return None
