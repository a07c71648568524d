"""Log-likelihoods of given continuations under a loaded model, resumable like completions."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from selfrefine.engines.token_choice import check_finite
from selfrefine.store.hashing import digest
from selfrefine.store.journal import Journal

# Pairs that are journalled together.
GROUP = 512


class Likelihood(NamedTuple):
    """The log-probability of a continuation, and whether greedy decoding would have made it."""

    logprob: float
    is_greedy: bool


class Pair(NamedTuple):
    """Token ids: a context of one token or more, and what is to follow it."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


@torch.inference_mode()
def of_batch(model: Any, pairs: Sequence[Pair], pad: int, longest: int | None) -> list[Likelihood]:
    """The likelihoods of one batch; what exceeds the model's `longest` sequence is cut from the left, as lm-eval does."""
    rows = [(pair.context + pair.continuation)[-(longest + 1) if longest else None :][:-1] for pair in pairs]
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=model.device)
    logits = model(input_ids=ids, attention_mask=mask).logits
    found = []
    for row, pair, scores in zip(rows, pairs, logits, strict=True):
        wanted = torch.tensor(pair.continuation, device=model.device)
        mine = scores[len(row) - len(wanted) : len(row)].float().log_softmax(-1)
        check_finite(mine.max(-1).values)
        logprob = mine.gather(-1, wanted[:, None]).sum()
        found.append(Likelihood(float(logprob), bool((mine.argmax(-1) == wanted).all())))
    return found


def likelihoods(engine: Any, pairs: Sequence[Pair], output: Path) -> list[Likelihood]:
    """The likelihood of each pair, in their order; resumes from the journal beside `output`.

    `engine` offers `likelihoods_of_batch`, `batch_size` and `identity` (engines/transformers.py). Equal pairs are
    computed once.
    """
    journal, identity = Journal(output), {**engine.identity, "likelihoods": True}
    groups = journal.read()
    if not groups or groups[0] != [identity]:
        journal.remove()
        journal.append([identity])
        groups = []
    known = {row["key"]: Likelihood(row["logprob"], row["is_greedy"]) for group in groups[1:] for row in group}
    keys = {pair: digest([pair.context, pair.continuation]) for pair in pairs}
    # The longest first: where memory does not suffice, it shows at once.
    ordered = sorted(keys, key=lambda pair: (-len(pair.context) - len(pair.continuation), pair))
    with tqdm(total=len(ordered), desc="score", unit="pair", mininterval=5, ncols=110, file=sys.stderr) as bar:
        for start in range(0, len(ordered), GROUP):
            group = ordered[start : start + GROUP]
            if not all(keys[pair] in known for pair in group):
                made: list[Likelihood] = []
                for place in range(0, len(group), engine.batch_size):
                    made += engine.likelihoods_of_batch(group[place : place + engine.batch_size])
                rows = [{"key": keys[pair], **one._asdict()} for pair, one in zip(group, made, strict=True)]
                journal.append(rows)
                known |= {row["key"]: one for row, one in zip(rows, made, strict=True)}
            bar.update(len(group))
    return [known[keys[pair]] for pair in pairs]
