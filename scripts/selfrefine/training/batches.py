"""The examples of each update: their order in an epoch, and their micro-batches."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

import torch
from torch.utils.data import BatchSampler, DataLoader
from transformers.trainer_pt_utils import get_length_grouped_indices

from selfrefine.store.hashing import digest


def count_updates(examples: int, batch_size: int, epochs: float) -> int:
    """The number of optimizer updates of a full run: whole batches, a last partial batch included, in each epoch."""
    return math.ceil(epochs * math.ceil(examples / batch_size))


class EpochOrder:
    """The order of the examples in each epoch, from the seed and the epoch alone.

    So a resumed run, and one on another number of GPUs, learns from the same examples at each update. `lengths`, one
    per example, puts examples of similar length into the same update.
    """

    def __init__(self, examples: int, batch_size: int, seed: int, lengths: Sequence[int] | None = None):
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.lengths = lengths
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.examples

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(int(digest([self.seed, self.epoch]), 16))
        if self.lengths:
            return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=generator))
        return iter(torch.randperm(self.examples, generator=generator).tolist())


class UpdateSampler(BatchSampler):
    """The examples of each update, the last of an epoch with those that are left."""

    def __init__(self, order: EpochOrder, size: int):
        super().__init__(order, size, drop_last=False)

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)


class UpdateLoader(DataLoader):
    """Loads whole updates, all of each on every process."""

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.batch_sampler.set_epoch(epoch)


class MicroBatch(TypedDict):
    """What one process passes through the model at once."""

    examples: list[Any]
    fraction: float
    """Of the update's examples, the part that the micro-batches of this round hold on all processes together."""
    copies: int
    """The number of processes that pass these same examples."""


def micro_batches(examples: Sequence[Any], size: int, processes: int, process: int) -> list[MicroBatch]:
    """One process's micro-batches of an update.

    In each round every process takes equally many examples, at most `size`. Examples that are left over pass on every
    process and count once. So all processes make the same number of passes, and together they count every example of
    the update once.
    """
    found: list[MicroBatch] = []
    start = 0
    while len(examples) - start >= processes:
        each = min(size, (len(examples) - start) // processes)
        first = start + process * each
        own = list(examples[first : first + each])
        found.append({"examples": own, "fraction": each * processes / len(examples), "copies": 1})
        start += each * processes
    for first in range(start, len(examples), size):
        rest = list(examples[first : first + size])
        found.append({"examples": rest, "fraction": len(rest) / len(examples), "copies": processes})
    return found
