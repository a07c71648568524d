"""Sequences in one row of tokens without padding; a prefix that several share is in it once."""

from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import torch

from selfrefine.training.encoding import IGNORED

# Shorter prefixes are computed for each sequence anew: a piece of the row costs more than they do.
SHORTEST_SHARED = 16
# Tokens of a row whose attention a CPU computes together: fewer make more steps, more compute more scores that are
# masked.
BLOCK_TOKENS = 128


class Row:
    """Sequences laid out in one row, as a tree of pieces: a piece follows those that its sequences begin with.

    `tokens`, `positions`: of the row; a sequence's first token is at position 0. `pieces`: (start, stop) in the row.
    `before`: for each piece, the numbers of those that precede it, first ones first. `places`: for each sequence,
    where its tokens are.
    """

    def __init__(self, sequences: Sequence[list[int]], share: bool = True):
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.pieces: list[tuple[int, int]] = []
        self.before: list[tuple[int, ...]] = []
        self.places: list[list[int]] = [[] for _ in sequences]
        self._sequences = sequences
        for members in self._groups(range(len(sequences)), 0) if share else [[i] for i in range(len(sequences))]:
            self._add(members, 0, ())

    def _groups(self, members: Iterable[int], done: int) -> list[list[int]]:
        """Sequences that continue equally after `done` tokens, in the order in which the first of them come."""
        groups: dict[Hashable, list[int]] = {}
        for member in members:
            following = tuple(self._sequences[member][done : done + SHORTEST_SHARED])
            groups.setdefault(following if len(following) == SHORTEST_SHARED else member, []).append(member)
        return list(groups.values())

    def _add(self, members: list[int], done: int, before: tuple[int, ...]) -> None:
        first = self._sequences[members[0]]
        stop = min(len(self._sequences[member]) for member in members)
        for member in members[1:]:
            sequence = self._sequences[member]
            stop = next((i for i in range(done, stop) if sequence[i] != first[i]), stop)
        start = len(self.tokens)
        self.tokens += first[done:stop]
        self.positions += range(done, stop)
        for member in members:
            self.places[member] += range(start, len(self.tokens))
        self.before.append(before)
        self.pieces.append((start, len(self.tokens)))
        before = (*before, len(self.pieces) - 1)
        for group in self._groups([m for m in members if len(self._sequences[m]) > stop], stop):
            self._add(group, stop, before)

    @cached_property
    def blocks(self) -> list["Block"]:
        """Pieces that follow each other in the row, few enough tokens at a time to compute their attention together."""
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
    """A stretch of a row, what else its tokens attend to (`earlier`), and what is added to their scores (`mask`).

    `mask` is [tokens, earlier tokens and own], minus infinity where one token does not attend to the other.
    """

    start: int
    stop: int
    earlier: list[tuple[int, int]]
    mask: torch.Tensor


class Packed:
    """Padded sequences as a packed row, on the device that they came on.

    `targets` [1, answers] are the labels. `sources` [answers] are the places in the row whose hidden states predict
    them. `cells` [answers] are where TRL expects the value of each: in [sequences, length - 1], flattened.
    """

    def __init__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor, share: bool):
        width = input_ids.size(1)
        columns = [[column for column, kept in enumerate(mask) if kept] for mask in attention_mask.tolist()]
        sequences = [[ids[column] for column in kept] for ids, kept in zip(input_ids.tolist(), columns, strict=True)]
        self.row = Row(sequences, share)
        targets, sources, cells = [], [], []
        for number, (row, kept) in enumerate(zip(labels.tolist(), columns, strict=True)):
            for source, column in zip(self.row.places[number], kept[1:], strict=False):
                if row[column] != IGNORED:
                    targets.append(row[column])
                    sources.append(source)
                    cells.append(number * (width - 1) + column - 1)
        device = input_ids.device
        self.tokens, self.positions, self.targets = (
            torch.tensor([numbers], device=device) for numbers in (self.row.tokens, self.row.positions, targets)
        )
        self.sources, self.cells = (torch.tensor(numbers, device=device) for numbers in (sources, cells))
        self.shape = (len(sequences), width - 1)
        self.layers = 0  # that have attended to it

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """The value of each answer token [1, answers] as TRL reads it [sequences, length - 1]; zero elsewhere."""
        found = values.new_zeros(self.shape[0] * self.shape[1])
        return found.index_put((self.cells,), values.flatten()).view(self.shape)
