"""The prompts of an online refinement: which items are asked, as token ids, and in what order."""

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch.utils.data import Sampler

from selfrefine.data.items import subset
from selfrefine.data.prompts import messages
from selfrefine.errors import UserError
from selfrefine.schema.rows import Item
from selfrefine.schema.stages import RefineOnlineSettings
from selfrefine.training.batches import EpochOrder
from selfrefine.training.encoding import encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Asked(NamedTuple):
    """The items that a student is asked as it learns."""

    items: dict[str, Item]
    prompts: dict[str, list[int]]
    """By item, the token ids of its prompt, as the sample stage asks it."""
    counts: dict[str, int]
    """How many items are used, and how many dropped since prompt and completion could exceed max_length."""


def ask(
    items: dict[str, Item],
    settings: RefineOnlineSettings,
    tokenizer: "PreTrainedTokenizerBase",
    shots: Sequence[Item] = (),
) -> Asked:
    """The share of the items, each with its prompt; `UserError` if none is left, or a prompt has two BOS tokens."""
    share = subset(list(items), settings.share, settings.seed)
    longest = settings.training.max_length - settings.online.generation.max_tokens
    prompts = {}
    for name in sorted(share):
        chat = messages(items[name], settings.prompt, settings.style, system=settings.system, shots=shots)
        ids = encode_prompt(tokenizer, chat)
        if len(ids) > 1 and tokenizer.bos_token_id is not None and ids[:2] == [tokenizer.bos_token_id] * 2:
            raise UserError(
                f"{name}: its prompt begins with {tokenizer.bos_token!r} twice; the chat template and the tokenizer "
                "both add it"
            )
        if len(ids) <= longest:
            prompts[name] = ids
    counts = {"share": settings.share, "used": len(prompts), "too_long": len(share) - len(prompts)}
    if not prompts:
        raise UserError(
            f"no item is left to ask ({counts}): prompts and online.generation.max_tokens may take refine.max_length "
            f"{settings.training.max_length} together; raise it, or `study.shares`"
        )
    return Asked({name: items[name] for name in prompts}, prompts, counts)


class PromptOrder(Sampler[int]):
    """The items of all samplings, each as often as its group has completions, from the seed alone.

    Epochs follow each other without a gap, so that every sampling has equally many prompts. TRL reads each sampling's
    prompts again for each pass that learns from it (`passes`).
    """

    def __init__(self, items: int, prompts: int, group: int, samplings: int, passes: int, seed: int):
        self._items, self._prompts, self._group = items, prompts, group
        self._samplings, self._passes, self._seed = samplings, passes, seed

    def __len__(self) -> int:
        return self._samplings * self._passes * self._prompts * self._group

    def __iter__(self) -> Iterator[int]:
        stream = self._stream()
        for _ in range(self._samplings):
            chosen = list(itertools.islice(stream, self._prompts))
            for index in chosen * self._passes:
                yield from itertools.repeat(index, self._group)

    def _stream(self) -> Iterator[int]:
        order = EpochOrder(self._items, self._prompts, self._seed)
        for epoch in itertools.count():
            order.set_epoch(epoch)
            yield from order
