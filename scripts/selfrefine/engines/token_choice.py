"""Chooses the next token: the likeliest, or one sampled with the request's own seed."""

import torch

from selfrefine.errors import UserError

# Entries of the vocabulary that are reduced at a time.
BLOCK = 256
# Top-p is first looked for among this many of the likeliest tokens; only then are all sorted.
LIKELIEST = 1024


class TokenChoice:
    """Chooses tokens for numbered sequences, each with a generator of its own that its request's seed initialises.

    So what is sampled depends on the seed and not on the other sequences in the batch.
    """

    def __init__(self, seeds: list[int], temperature: float, top_p: float):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds] if temperature else []
        self.temperature = temperature
        self.top_p = top_p

    def __call__(self, logits: torch.Tensor, sequences: list[int]) -> torch.Tensor:
        """The next token int[rows] from logits [rows, vocabulary]; `sequences`: the sequence of each row."""
        logits = logits.float()
        if not self.temperature:
            chosen = largest(logits)
            check_finite(logits.gather(-1, chosen[:, None]))
            return chosen
        uniform = torch.stack([torch.rand((), generator=self.generators[sequence]) for sequence in sequences])
        uniform = uniform.to(logits.device)
        # Not normalised: `invert` scales the uniform number by the sum.
        highest = logits.amax(-1, keepdim=True)
        check_finite(highest)
        weights = logits.sub_(highest).div_(self.temperature).exp_()
        return invert(weights, uniform) if self.top_p == 1 else self._among_the_likeliest(weights, uniform)

    def _among_the_likeliest(self, weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        wanted = weights.sum(-1, keepdim=True) * self.top_p
        ranked, order = weights.topk(min(LIKELIEST, weights.shape[-1]), dim=-1)
        if (ranked.sum(-1, keepdim=True) < wanted).any():
            ranked, order = weights.sort(dim=-1, descending=True)
        ranked = ranked.masked_fill(ranked.cumsum(-1) - ranked >= wanted, 0)
        return order.gather(-1, invert(ranked, uniform)[:, None])[:, 0]


def check_finite(highest: torch.Tensor) -> None:
    """`UserError` if the highest logit of a row is not finite: some logit then is not a number, or infinite."""
    if not torch.isfinite(highest).all():
        value = highest[~torch.isfinite(highest)][0].item()
        raise UserError(
            f"the model's logits are not finite ({value}): its weights are damaged, or training diverged, or float16 "
            "overflows; check the weights with `study.py verify`, lower `learning_rate`, or set `dtype: bfloat16`"
        )


def largest(logits: torch.Tensor) -> torch.Tensor:
    """The first largest entry int[rows] of logits [rows, entries].

    Found in two steps: torch's own argmax takes ten times as long on a CPU (torch 2.13).
    """
    blocks = in_blocks(logits, -torch.inf)
    block = blocks.amax(-1).argmax(-1)
    inside = blocks[torch.arange(len(logits), device=logits.device), block].argmax(-1)
    return block * BLOCK + inside


def invert(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The entry int[rows] at which the cumulative sum of weights [rows, entries] exceeds its share `uniform` [rows].

    It finds the block first and then the entry in it, so that no cumulative sum over all entries is needed.
    """
    blocks = in_blocks(weights, 0.0)
    sums = blocks.sum(-1).cumsum(-1)
    target = uniform[:, None] * sums[:, -1:]
    block = torch.searchsorted(sums, target, right=True).clamp_(max=sums.shape[-1] - 1)
    # Rounding may point at a block or an entry without weight; the last one before it that has some is then taken.
    before = torch.where(block > 0, sums.gather(-1, (block - 1).clamp_(min=0)), 0)
    rows = torch.arange(len(weights), device=weights.device)[:, None]
    inside = blocks[rows, block][:, 0].cumsum(-1)
    target = torch.minimum(target - before, inside[:, -1:] * (1 - torch.finfo(inside.dtype).eps))
    entry = torch.searchsorted(inside, target, right=True).clamp_(max=BLOCK - 1)
    return (block * BLOCK + entry)[:, 0]


def in_blocks(entries: torch.Tensor, filler: float) -> torch.Tensor:
    """[rows, entries] as [rows, blocks, BLOCK], padded with `filler`."""
    missing = -entries.shape[-1] % BLOCK
    if missing:
        entries = torch.nn.functional.pad(entries, (0, missing), value=filler)
    return entries.view(len(entries), -1, BLOCK)
