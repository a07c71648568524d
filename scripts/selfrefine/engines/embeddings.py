"""A model's perplexity of questions, and its embeddings of them, resumable like completions.

A question is read after the token that begins a text (else the stop token), so that all of its tokens have a
likelihood. Its embedding is the mean of the last layer's hidden states over its own tokens, scaled to length 1. Neither
padding counts nor the first token: there, models put states that say nothing of the question (attention sinks, arXiv
2309.17453).
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from selfrefine.engines.token_choice import check_finite
from selfrefine.store.files import naming_write_errors
from selfrefine.store.journal import Journal
from selfrefine.store.locations import PARTIAL


class Embedded(NamedTuple):
    """What a model makes of questions, in their order."""

    nll: np.ndarray
    """Negative log-likelihood, the mean over a question's tokens: the logarithm of its perplexity."""
    tokens: list[int]
    vectors: np.ndarray
    """float32[questions, width]"""
    cut: int
    """Questions that are longer than the model reads, of which only the beginning counts."""


def rows_of(tokenizer: Any, questions: Sequence[str], longest: int | None) -> tuple[list[list[int]], int]:
    """Each question's token ids after the token that begins a text, and how many are cut to the `longest` sequence."""
    first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    rows = [[first, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in questions]
    cut = sum(longest is not None and len(row) > longest for row in rows)
    return [row[:longest] for row in rows], cut


@torch.inference_mode()
def of_batch(model: Any, rows: Sequence[Sequence[int]], pad: int) -> tuple[list[float], np.ndarray]:
    """The mean negative log-likelihood of each row's tokens but the first, and their embeddings."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=model.device)
    outputs = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
    nll: list[float] = []
    vectors: list[torch.Tensor] = []
    for row, tokens, scores, states in zip(rows, ids, outputs.logits, outputs.hidden_states[-1], strict=True):
        own = len(row)
        mine = scores[: own - 1].float().log_softmax(-1)
        check_finite(mine.max(-1).values)
        nll.append(-float(mine.gather(-1, tokens[1:own, None]).mean()))
        mean = states[1:own].float().mean(0)
        vectors.append((mean / mean.norm().clamp_min(1e-12)).cpu())
    return nll, torch.stack(vectors).numpy()


def embed(
    model: Any,
    tokenizer: Any,
    questions: Sequence[str],
    batch_size: int,
    identity: dict[str, Any],
    output: Path,
    vectors_file: Path,
) -> Embedded:
    """What a model makes of each question; resumes from what lies beside `output` and `vectors_file`.

    `identity` says what the weights are. Each batch is on the disk before the next one is read.
    """
    rows, cut = rows_of(tokenizer, questions, getattr(model.config, "max_position_embeddings", None))
    # The longest first: where memory does not suffice, it shows at once.
    order = sorted(range(len(rows)), key=lambda place: (-len(rows[place]), rows[place], place))
    width = model.config.get_text_config().hidden_size
    partial, size = Path(f"{vectors_file}{PARTIAL}"), len(rows) * width * 4
    journal, known = Journal(output), {**identity, "questions": len(rows), "width": width}
    groups = journal.read()
    if not groups or groups[0] != [known] or not partial.exists() or partial.stat().st_size != size:
        journal.remove()
        with naming_write_errors(partial):
            partial.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, "wb") as file:
                file.truncate(size)
        journal.append([known])
        groups = []
    vectors: Any = np.memmap(partial, dtype=np.float32, mode="r+", shape=(len(rows), width))
    nll = np.full(len(rows), np.nan)
    for group in groups[1:]:
        for made in group:
            nll[made["place"]] = made["nll"]
    with tqdm(total=len(rows), desc="read", unit="question", mininterval=5, ncols=110, file=sys.stderr) as bar:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            if np.isnan(nll[batch]).any():
                nll[batch], vectors[batch] = of_batch(model, [rows[place] for place in batch], tokenizer.pad_token_id)
                vectors.flush()
                journal.append([{"place": place, "nll": float(nll[place])} for place in batch])
            bar.update(len(batch))
    return Embedded(nll, [len(row) - 1 for row in rows], vectors, cut)
