"""Many sequences decoded at once: prompts are read together, and a sequence that ends gives its slot to the next.

What all prompts begin with (a benchmark's instruction) is read once, as is each prompt, however many answers it gets.
"""

import dataclasses
import itertools

import torch

from selfrefine.engines import Generation
from selfrefine.engines.drawing import Drawing
from selfrefine.engines.slots import Slots

# Tokens of prompts read in one pass: enough for the machine's best rate.
READ_ON_CPU, READ_ON_GPU = 1024, 16384
# Shorter common beginnings are not worth a pass of their own.
LEAST_SHARED = 8


@dataclasses.dataclass
class Sequence:
    """A prompt's continuation in hand: which of the requests it answers, where its last token stands, and that token."""

    number: int
    position: int
    last: int


class Decoder:
    """Continues prompts with a model whose attention works on slots, `batch_size` at a time at most."""

    def __init__(self, model, batch_size: int, stop_ids: set[int], pad: int):
        self.model = model
        # Where what a pass is about is laid down once: a layer that had to fetch it would wait for the GPU each time.
        self.device = model.device
        self.batch_size = batch_size
        self.stop_ids = stop_ids
        self.pad = pad
        # Slots are refilled a few at a time: one prompt alone does not make full use of the machine.
        self.refill = max(1, batch_size // 8)
        self.read = READ_ON_GPU if self.device.type == "cuda" else READ_ON_CPU

    @torch.inference_mode()
    def run(self, prompts: list[tuple[int, ...]], seeds: list[int], generation: Generation) -> list[list[int]]:
        """The token ids that follow each prompt, the stop token included where one was drawn."""
        self.prompts, self.most = prompts, generation.max_tokens
        self.draw = Drawing(seeds, generation.temperature, generation.top_p)
        self.made: list[list[int]] = [[] for _ in prompts]
        longest = max(map(len, prompts)) + self.most
        self.slots = Slots(min(self.batch_size, len(prompts)), longest, transposed=self.device.type == "cpu")
        waiting, active = list(range(len(prompts)))[::-1], []
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

    def _on_device(self, numbers: list) -> torch.Tensor:
        return torch.tensor(numbers, device=self.device)

    def _forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Scores [sequences, vocabulary] after the last column of int[sequences, columns]."""
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
        # Each prompt keeps a token of its own, after which its answer is drawn.
        shared = min(len(list(same)), min(map(len, distinct)) - 1)
        if len(distinct) > 1 and shared >= LEAST_SHARED:
            self.slots.prefix(shared)
            self._forward(self._on_device([self.prompts[0][:shared]]), self._on_device([list(range(shared))]))

    def _read_prompts(self, chosen: list[int], first: int) -> list[Sequence]:
        """Reads the prompts of requests into the slots from `first` on, and draws the first token of each answer."""
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
            scores = self._forward(self._on_device(padded), self._on_device(positions))
            drawn = self.draw(scores[rows.to(scores.device)], flat).tolist()
            for number, token in zip(flat, drawn, strict=True):
                self.made[number].append(token)
                begun.append(Sequence(number, len(self.prompts[number]), token))
        return begun

    def _pieces(self, prompts: list[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
        """Prompts in passes of about `read` tokens; they come sorted by length, so that little is padded."""
        pieces: list[list[tuple[int, ...]]] = [[]]
        for prompt in prompts:
            if pieces[-1] and (len(pieces[-1]) + 1) * (len(prompt) - self.slots.shared) > self.read:
                pieces.append([])
            pieces[-1].append(prompt)
        return pieces

    def _step(self, active: list[Sequence]) -> None:
        """Draws each sequence's next token."""
        positions = self._on_device([sequence.position for sequence in active])
        self.slots.decode(positions, max(sequence.position for sequence in active) + 1, self.model.dtype)
        scores = self._forward(self._on_device([[sequence.last] for sequence in active]), positions[:, None])
        drawn = self.draw(scores, [sequence.number for sequence in active]).tolist()
        for sequence, token in zip(active, drawn, strict=True):
            self.made[sequence.number].append(token)
            sequence.position += 1
            sequence.last = token

    def _without_ended(self, active: list[Sequence]) -> list[Sequence]:
        """The sequences that go on, moved together so that they fill the first slots."""
        left = list(active)
        for place in reversed(range(len(active))):
            sequence = left[place]
            if sequence.last in self.stop_ids or len(self.made[sequence.number]) == self.most:
                last = left.pop()
                if place < len(left):
                    self.slots.move(len(left), place)
                    left[place] = last
        return left
