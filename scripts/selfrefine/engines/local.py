"""The `transformers` engine: generates with a checkpoint on this machine, on CPU or GPU.

Sampling draws from each row with a generator of its own, seeded by the request, by inverting the cumulative
distribution: a request's seed, not its neighbours in the batch, says what is drawn. Requests that differ only by seed
share one pass over their prompt, and rows that have ended leave the batch every few tokens.
"""

from pathlib import Path

import torch
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList

from selfrefine.engines import Completion, Request
from selfrefine.engines.tokens import TokenEngine
from selfrefine.fingerprint import fingerprint

# Tokens generated between two looks at which rows have ended.
PIECE = 16


class SeededSampler(LogitsProcessor):
    """Leaves, in each row, only the token drawn for it, so that a greedy search takes it.

    One generator per row; scores are float[rows, vocabulary].
    """

    def __init__(self, seeds: list[int], temperature: float, top_p: float):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature = temperature
        self.top_p = top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Draws one token for each row."""
        uniform = torch.stack([torch.rand((), generator=generator) for generator in self.generators]).to(scores.device)
        probabilities = torch.softmax(scores.float() / self.temperature, dim=-1)
        if self.top_p < 1:
            ranked, order = probabilities.sort(dim=-1, descending=True)
            ranked[ranked.cumsum(dim=-1) - ranked >= self.top_p] = 0
            drawn = order.gather(-1, self._invert(ranked, uniform))
        else:
            drawn = self._invert(probabilities, uniform)
        return torch.full_like(scores, -torch.inf).scatter_(-1, drawn, 0)

    @staticmethod
    def _invert(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        cumulative = weights.cumsum(dim=-1)
        target = uniform[:, None] * cumulative[:, -1:]
        index = torch.searchsorted(cumulative, target, right=True)
        return index.clamp_(max=weights.shape[-1] - 1)


class TransformersEngine(TokenEngine):
    """Generates with a loaded causal language model and its tokenizer."""

    def __init__(self, model, tokenizer, identity: dict, batch_size: int):
        identity = {"engine": "transformers", "code": fingerprint(Path(__file__)), **identity}
        super().__init__(tokenizer, model.config, model.generation_config, identity)
        self.model = model.eval()
        self.batch_size = batch_size

    def batches(self, requests: list[Request]) -> list[list[Request]]:
        """Requests of like settings and prompt length together; those with one prompt side by side."""
        self.read(requests)
        order = sorted(
            requests,
            key=lambda r: (
                r.generation.max_tokens,
                r.generation.temperature,
                r.generation.top_p,
                len(self._prompts[r.id]),
                r.key,
            ),
        )
        by_prompt: dict[tuple, list[Request]] = {}
        for request in order:
            by_prompt.setdefault((request.generation, tuple(self._prompts[request.id])), []).append(request)
        batches: list[list[Request]] = []
        for (generation, _), group in by_prompt.items():
            for start in range(0, len(group), self.batch_size):
                piece = group[start : start + self.batch_size]
                if (
                    not batches
                    or batches[-1][0].generation != generation
                    or len(batches[-1]) + len(piece) > self.batch_size
                ):
                    batches.append([])
                batches[-1].extend(piece)
        return batches

    @torch.inference_mode()
    def generate(self, batch: list[Request]) -> list[Completion]:
        """The completions of one batch: one pass over each distinct prompt, then token by token."""
        settings = batch[0].generation
        prompts = [self._prompts[request.id] for request in batch]
        distinct = sorted(set(map(tuple, prompts)))
        width = max(map(len, distinct))
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in distinct])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in distinct])
        rows = torch.tensor([distinct.index(tuple(prompt)) for prompt in prompts])
        device = self.model.device
        ids, mask, rows = ids.to(device), mask.to(device), rows.to(device)
        cache = DynamicCache(config=self.model.config)
        if width > 1:
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            self.model(
                input_ids=ids[:, :-1],
                attention_mask=mask[:, :-1],
                position_ids=positions[:, :-1],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            # On the processor, so that they select on whichever GPU a layer's keys lie.
            cache.batch_select_indices(rows.cpu())
        made = self._continue(ids[rows], mask[rows], cache, settings, [request.seed for request in batch])
        return [self.finish(tokens, prompt) for tokens, prompt in zip(made, prompts, strict=True)]

    def _continue(self, ids, mask, cache, settings, seeds: list[int]) -> list[list[int]]:
        """The token ids that follow each row of int[rows, width], the stop token included where one was drawn.

        `cache` holds all but the last column. Generates piece by piece and drops the rows that have ended in between.
        """
        width = ids.shape[1]
        sampler = SeededSampler(seeds, settings.temperature, settings.top_p) if settings.temperature else None
        left = list(range(len(seeds)))
        made: list[list[int]] = [[] for _ in seeds]
        while left and ids.shape[1] < width + settings.max_tokens:
            before = ids.shape[1]
            ids = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                max_new_tokens=min(PIECE, width + settings.max_tokens - before),
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                repetition_penalty=None,
                logits_processor=LogitsProcessorList([sampler] if sampler else []),
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=sorted(self.stop_ids),
            )
            going = []
            for place, (row, tokens) in enumerate(zip(left, ids[:, before:].tolist(), strict=True)):
                end = next((i + 1 for i, token in enumerate(tokens) if token in self.stop_ids), None)
                made[row] += tokens[:end]
                if end is None:
                    going.append(place)
            if len(going) < len(left):
                kept = torch.tensor(going, dtype=torch.long, device=ids.device)
                cache.batch_select_indices(kept.cpu())
                ids, mask = ids[kept], mask[kept]
                left = [left[place] for place in going]
                if sampler:
                    sampler.generators = [sampler.generators[place] for place in going]
            mask = torch.cat([mask, mask.new_ones(len(left), ids.shape[1] - mask.shape[1])], dim=1)
        return made
