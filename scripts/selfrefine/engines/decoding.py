"""Decodes many sequences at once: a sequence that ends gives its slot to the next request.

Prompts are prefilled together. The prefix that all prompts share (a benchmark's instruction) is read once, and so is
each prompt, however many completions it gets.
"""

import dataclasses
import itertools
from typing import Any

import torch

from selfrefine.engines.kv_cache import SlotCache
from selfrefine.engines.stop_strings import StopStrings
from selfrefine.engines.token_choice import TokenChoice
from selfrefine.schema.generation import Generation

# Tokens of prompts prefilled in one pass: enough for the device's best rate.
READ_ON_CPU, READ_ON_GPU = 1024, 16384
# Shorter shared prefixes are not worth a pass of their own.
LEAST_SHARED = 8


@dataclasses.dataclass
class Sequence:
    """An active sequence: the number of its request, its last token and that token's position."""

    number: int
    position: int
    last: int


class Decoder:
    """Continues prompts with a model that can use the slots (kv_cache.py), at most `batch_size` at a time."""

    def __init__(self, model: Any, batch_size: int, stop_ids: set[int], pad: int, strings: StopStrings):
        self.model = model
        # A pass's inputs are copied there once: a layer that had to fetch them would wait for the GPU each time.
        self.device = model.device
        self.batch_size = batch_size
        self.stop_ids = stop_ids
        self.pad = pad
        self.strings = strings
        # Slots are refilled a few at a time: a single prompt does not use the device fully.
        self.refill = max(1, batch_size // 8)
        self.read = READ_ON_GPU if self.device.type == "cuda" else READ_ON_CPU

    @torch.inference_mode()
    def run(self, prompts: list[tuple[int, ...]], seeds: list[int], generation: Generation) -> list[list[int]]:
        """The token ids that follow each prompt, with the stop token where there was one."""
        self.prompts, self.most = prompts, generation.max_tokens
        self.choose = TokenChoice(seeds, generation.temperature or 0.0, generation.top_p)
        self.made: list[list[int]] = [[] for _ in prompts]
        longest = max(map(len, prompts)) + self.most
        self.slots = SlotCache(min(self.batch_size, len(prompts)), longest, transposed=self.device.type == "cpu")
        waiting = list(range(len(prompts)))[::-1]
        active: list[Sequence] = []
        self._read_shared()
        while waiting or active:
            free = self.slots.slots - len(active)
            if waiting and (not active or free >= self.refill):
                chosen = [waiting.pop() for _ in range(min(free, len(waiting)))]
                active = self._without_ended(active + self._read_prompts(chosen, len(active)))
            if active:
                self._step(active)
                active = self._without_ended(active)
        return self.made

    def _on_device(self, numbers: list[Any]) -> torch.Tensor:
        return torch.tensor(numbers, device=self.device)

    def _forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Logits [sequences, vocabulary] after the last column of int[sequences, columns]."""
        return self.model(
            input_ids=tokens,
            position_ids=positions,
            past_key_values=self.slots,
            use_cache=True,
            logits_to_keep=1,
            slots=self.slots,
        ).logits[:, -1]

    def _read_shared(self) -> None:
        distinct = set(self.prompts)
        shortest, longest = min(distinct), max(distinct)
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(shortest, longest, strict=False))
        # Each prompt keeps a token of its own, after which its completion begins.
        shared = min(len(list(same)), min(map(len, distinct)) - 1)
        if len(distinct) > 1 and shared >= LEAST_SHARED:
            self.slots.prefix(shared)
            self._forward(self._on_device([self.prompts[0][:shared]]), self._on_device([list(range(shared))]))

    def _read_prompts(self, chosen: list[int], first: int) -> list[Sequence]:
        """Reads the prompts of requests into the slots from `first` on, and chooses each completion's first token."""
        by_prompt: dict[tuple[int, ...], list[int]] = {}
        for number in chosen:
            by_prompt.setdefault(self.prompts[number], []).append(number)
        begun: list[Sequence] = []
        for piece in self._pieces(sorted(by_prompt, key=len)):
            rests = [prompt[self.slots.shared :] for prompt in piece]
            width = max(map(len, rests))
            padded = [[self.pad] * (width - len(rest)) + list(rest) for rest in rests]
            positions = [
                [self.slots.shared] * (width - len(rest)) + list(range(self.slots.shared, len(prompt)))
                for rest, prompt in zip(rests, piece, strict=True)
            ]
            numbers = [by_prompt[prompt] for prompt in piece]
            rows = self._on_device([row for row, mine in enumerate(numbers) for _ in mine])
            flat = [number for mine in numbers for number in mine]
            filled = self._on_device([first + len(begun) + place for place in range(len(flat))])
            self.slots.prefill(self._on_device([len(rest) for rest in rests]), width, filled, rows)
            logits = self._forward(self._on_device(padded), self._on_device(positions))
            chosen_tokens = self.choose(logits[rows.to(logits.device)], flat).tolist()
            for number, token in zip(flat, chosen_tokens, strict=True):
                self.made[number].append(token)
                begun.append(Sequence(number, len(self.prompts[number]), token))
        return begun

    def _pieces(self, prompts: list[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
        """Prompts, sorted by length so that little is padded, in passes of about `read` tokens."""
        pieces: list[list[tuple[int, ...]]] = [[]]
        for prompt in prompts:
            if pieces[-1] and (len(pieces[-1]) + 1) * (len(prompt) - self.slots.shared) > self.read:
                pieces.append([])
            pieces[-1].append(prompt)
        return pieces

    def _step(self, active: list[Sequence]) -> None:
        """Chooses each sequence's next token."""
        positions = self._on_device([sequence.position for sequence in active])
        self.slots.decode(positions, max(sequence.position for sequence in active) + 1, self.model.dtype)
        logits = self._forward(self._on_device([[sequence.last] for sequence in active]), positions[:, None])
        chosen = self.choose(logits, [sequence.number for sequence in active]).tolist()
        for sequence, token in zip(active, chosen, strict=True):
            self.made[sequence.number].append(token)
            sequence.position += 1
            sequence.last = token

    def _without_ended(self, active: list[Sequence]) -> list[Sequence]:
        """The sequences that have not ended, moved so that they fill the first slots."""
        left = list(active)
        for place in reversed(range(len(active))):
            if self._has_ended(left[place]):
                last = left.pop()
                if place < len(left):
                    self.slots.move(len(left), place)
                    left[place] = last
        return left

    def _has_ended(self, sequence: Sequence) -> bool:
        made = self.made[sequence.number]
        return sequence.last in self.stop_ids or len(made) == self.most or self.strings.reached(made)
