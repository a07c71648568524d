"""The `transformers` engine: generates with a checkpoint on this machine, on CPU or GPU.

Requests are cut into groups, the same for the same requests. Within a group, a sequence that ends makes room for the
next one (decoding.py). A group is journalled once all of it is done, so an interrupted stage repeats that group and
ends with the same bytes. Models that cannot use the slots (kv_cache.py) generate with transformers' own `generate`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from selfrefine.engines.decoding import Decoder
from selfrefine.engines.interface import Completion, Request
from selfrefine.engines.kv_cache import NAME, refusal
from selfrefine.engines.likelihoods import Likelihood, Pair, of_batch
from selfrefine.engines.stop_strings import StopStrings
from selfrefine.engines.token_choice import TokenChoice
from selfrefine.engines.token_engine import TokenEngine
from selfrefine.models.onednn import pack
from selfrefine.schema.generation import Generation
from selfrefine.store.fingerprint import fingerprint

# The most completion tokens of a group that exceeds one batch: about a minute of a small model on two cores.
GROUP = 32768


class OnlyChosen(LogitsProcessor):
    """Leaves only the chosen token in each row, so that a greedy search takes it."""

    def __init__(self, choose: TokenChoice, sequences: list[int]):
        self.choose = choose
        self.sequences = sequences

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Logits [rows, vocabulary] with one finite entry a row."""
        chosen = self.choose(scores, self.sequences)
        return torch.full_like(scores, -torch.inf).scatter_(-1, chosen[:, None], 0)


class AtStopString(StoppingCriteria):
    """Ends each row at a stop string; its prompt has `width` columns."""

    def __init__(self, strings: StopStrings, width: int):
        self.strings = strings
        self.width = width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        """Which rows have come upon one."""
        made = input_ids[:, self.width :].tolist()
        return torch.tensor([self.strings.reached(tokens) for tokens in made], device=input_ids.device)


class TransformersEngine(TokenEngine):
    """Generates with a loaded causal language model, which it changes for its use, and the model's tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, identity: dict[str, Any], batch_size: int):
        identity = {"engine": "transformers", "code": fingerprint(Path(__file__)), **identity}
        computed = str(model.dtype).removeprefix("torch.")
        super().__init__(tokenizer, model.config, model.generation_config, identity, computed)
        self.model = model.eval()
        self.batch_size = batch_size
        self.own_attention = model.config._attn_implementation

    def batches(self, requests: list[Request]) -> list[list[Request]]:
        """Groups of requests with equal settings, sorted by the length of their prompts, equal prompts together."""
        self.read(requests)
        by_settings: dict[tuple[Generation, tuple[str, ...]], list[Request]] = {}
        for request in requests:
            by_settings.setdefault((request.generation, request.stop), []).append(request)
        groups = []
        for key in sorted(by_settings, key=lambda k: (k[0].max_tokens, k[0].temperature or 0.0, k[0].top_p, k[1])):
            generation, mine = key[0], sorted(by_settings[key], key=self._order)
            size = max(1, GROUP // (self.batch_size * generation.max_tokens)) * self.batch_size
            groups += [mine[start : start + size] for start in range(0, len(mine), size)]
        return groups

    def _order(self, request: Request) -> tuple[int, list[int], str]:
        prompt = self._prompts[request.id]
        return len(prompt), prompt, request.key

    def generate(self, batch: list[Request]) -> list[Completion]:
        """The completions of one group."""
        prompts = [tuple(self._prompts[request.id]) for request in batch]
        seeds, settings = [request.seed for request in batch], batch[0].generation
        strings = StopStrings(self.tokenizer, batch[0].stop)
        reason = refusal(self.model, max(map(len, prompts)) + settings.max_tokens)
        if reason is None:
            self._attend_with(NAME)
            pack(self.model, self.batch_size)
            decoder = Decoder(self.model, self.batch_size, self.stop_ids, self.tokenizer.pad_token_id, strings)
            made = decoder.run(prompts, seeds, settings)
        else:
            print(f"generating with transformers' own loop, which is slower: {reason}", file=sys.stderr)
            self._attend_with(self.own_attention)
            made = self._with_generate(prompts, seeds, settings, strings)
        return [
            self.finish(tokens, list(prompt), request.stop, request.raw)
            for tokens, prompt, request in zip(made, prompts, batch, strict=True)
        ]

    def likelihoods_of_batch(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        """The log-likelihoods of one batch of continuations."""
        self._attend_with(self.own_attention)
        return of_batch(self.model, pairs, self.tokenizer.pad_token_id, self.limit)

    def _attend_with(self, implementation: str) -> None:
        if self.model.config._attn_implementation != implementation:
            self.model.set_attn_implementation(implementation)

    @torch.inference_mode()
    def _with_generate(
        self, prompts: list[tuple[int, ...]], seeds: list[int], settings: Generation, strings: StopStrings
    ) -> list[list[int]]:
        """The token ids that follow each prompt, batch by batch."""
        made: list[list[int]] = []
        choose = TokenChoice(seeds, settings.temperature or 0.0, settings.top_p)
        pad = self.tokenizer.pad_token_id
        for start in range(0, len(prompts), self.batch_size):
            piece = prompts[start : start + self.batch_size]
            width = max(map(len, piece))
            ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in piece])
            mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in piece])
            only_chosen = OnlyChosen(choose, list(range(start, start + len(piece))))
            found = self.model.generate(
                input_ids=ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                max_new_tokens=settings.max_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                repetition_penalty=None,
                logits_processor=LogitsProcessorList([only_chosen]),
                stopping_criteria=StoppingCriteriaList([AtStopString(strings, width)] if strings.stop else []),
                pad_token_id=pad,
                eos_token_id=sorted(self.stop_ids),
            )
            made += [strings.until(self._to_the_end(tokens)) for tokens in found[:, width:].tolist()]
        return made

    def _to_the_end(self, tokens: list[int]) -> list[int]:
        end = next((i + 1 for i, token in enumerate(tokens) if token in self.stop_ids), None)
        return tokens[:end]
