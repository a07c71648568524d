"""Checks of engine transformers on the GPU: greedy tokens against the CPU's, and draws in different batches."""

import contextlib
import unittest.mock
from pathlib import Path

from on_gpu.cases import report
from on_gpu.random_models import device

# Logits of one prefix on two processors, in standard deviations of the logits: a larger difference is not rounding.
ROUNDING = 0.1


def open_engine(model: Path, dtype: str, place: str, batch_size: int):
    """Engine transformers, the model on `place`."""
    from selfrefine.engines.transformers import TransformersEngine
    from selfrefine.models.checkpoints import load_model, load_tokenizer

    loaded = load_model(model, dtype, device=place)
    return TransformersEngine(loaded, load_tokenizer(model), {"model": str(model), "dtype": dtype}, batch_size)


def text_of(engine, number: int, tokens: int) -> str:
    """A question whose prompt has `tokens` tokens, or two fewer at most."""
    text = f"Box {number:04d}"
    while len(engine.encode([{"role": "user", "content": text}])) < tokens:
        text += " red is a box"
    while len(engine.encode([{"role": "user", "content": text}])) > tokens:
        text = text[:-1]
    return text


def requests_of(engine, lengths: list[int], **generation) -> list:
    """One request for each length of a prompt, each with a seed of its own."""
    from selfrefine.engines.interface import Request
    from selfrefine.schema.generation import Generation

    return [
        Request(
            f"r{i}", [{"role": "user", "content": text_of(engine, i, length)}], Generation(**generation), seed=1000 + i
        )
        for i, length in enumerate(lengths)
    ]


def answered(engine, requests: list) -> dict[str, list[int]]:
    """The token ids that an engine makes, by request; the random model's are no text."""
    made, finish = {}, engine.finish

    def noted(tokens, *more):
        completion = finish(tokens, *more)
        made[id(completion)] = (completion, list(tokens))
        return completion

    engine.finish = noted
    try:
        found = {}
        for batch in engine.batches(requests):
            for request, completion in zip(batch, engine.generate(batch), strict=True):
                found[request.id] = made[id(completion)][1]
        return found
    finally:
        engine.finish = finish


def check_greedy(model: Path, shape: str, dtype: str) -> None:
    """Greedy tokens on this machine's GPU and on its CPU."""
    here, there = (open_engine(model, dtype, place, 8) for place in (device(), "cpu"))
    requests = requests_of(here, [20 + 5 * i for i in range(8)], max_tokens=32)
    mine, theirs = answered(here, requests), answered(there, requests)
    prompts = {request.id: here.encode(request.messages) for request in requests}
    differing = [name for name in mine if mine[name] != theirs[name]]
    equal = len(mine) - len(differing)
    detail, found = f"{equal} of {len(mine)} answers equal the CPU's token for token", []
    if dtype != "float32" and differing:
        found = partings(model, dtype, [(prompts[name], mine[name], theirs[name]) for name in differing])
        detail += (
            f"; the first to differ do so at token {min(row['token'] for row in found)}. The logits of the two tokens "
            f"are at most {max(row['gap'] for row in found):.4f} apart, where one prefix's differ by up to "
            f"{max(row['noise'] for row in found):.4f} between the processors "
            f"({max(row['noise'] / row['deviation'] for row in found):.1%} of their standard deviation)"
        )
    fine = all(row["gap"] <= 2 * row["noise"] and row["noise"] <= ROUNDING * row["deviation"] for row in found)
    ok = fine if dtype != "float32" else not differing
    report("check", f"greedy {dtype} {shape}", ok=ok, detail=detail, equal=equal, of=len(mine), partings=found)


def partings(model: Path, dtype: str, rows: list[tuple[list[int], list[int], list[int]]]) -> list[dict]:
    """Where two answers to a prompt part, for rows of (prompt, the GPU's answer, the CPU's).

    Each is {token, gap, noise, deviation}: the place, how far the two tokens' logits are apart on the GPU, how far any
    logit of that prefix differs between the processors, and the logits' standard deviation. They come from one plain
    forward pass of the model each, with no engine.
    """
    import torch

    from selfrefine.models.checkpoints import load_model

    places = [
        next(i for i, pair in enumerate(zip(*answers, strict=False)) if len(set(pair)) > 1) for _, *answers in rows
    ]
    logits = []
    for where in (device(), "cpu"):
        loaded = load_model(model, dtype, device=where).eval()
        with torch.inference_mode():
            prefixes = [prompt + mine[:place] for (prompt, mine, _), place in zip(rows, places, strict=True)]
            found = [loaded(input_ids=torch.tensor([ids], device=where)).logits[0, -1] for ids in prefixes]
            logits.append([row.float().cpu() for row in found])
    return [
        {
            "token": place,
            "gap": float((here[mine[place]] - here[theirs[place]]).abs()),
            "noise": float((here - there).abs().max()),
            "deviation": float(there.std()),
        }
        for (_, mine, theirs), place, here, there in zip(rows, places, *logits, strict=True)
    ]


def check_seeds(model: Path, shape: str, dtype: str, folder: Path) -> None:
    """Draws beside other requests, and after a resumption."""
    from selfrefine.engines import transformers as local
    from selfrefine.engines.completions import complete

    engine = open_engine(model, dtype, device(), 8)
    # At a low temperature few tokens are likely, as with a trained model. Random weights alone make thousands of
    # tokens about equally likely, and rounding would change many draws.
    requests = requests_of(engine, [20 + 3 * (i % 8) for i in range(24)], max_tokens=24, temperature=0.1, top_p=0.9)
    whole = answered(engine, requests)
    alone = [answered(engine, [request])[request.id] == whole[request.id] for request in requests[:8]]
    engine.batch_size = 5
    others = answered(engine, requests[::-1])
    beside = [others[name] == whole[name] for name in whole]
    engine.batch_size = 8
    same = sum(alone) + sum(beside)
    detail = f"{sum(alone)} of 8 drawn alone, {sum(beside)} of 24 drawn in other batches are the same draws"
    # A batch of another shape is rounded differently, and in bfloat16 many draws are so near the border between two
    # tokens that they become the other.
    report("check", f"seeds {dtype} {shape}", ok=same == 32 or dtype == "bfloat16", detail=detail, equal=same, of=32)

    class Killed(Exception):
        pass

    class Torn:
        """The engine, dying after two groups."""

        identity, batches, left = engine.identity, engine.batches, 2

        def generate(self, batch):
            self.left -= 1
            if self.left < 0:
                raise Killed
            return engine.generate(batch)

    # Small enough for three of them.
    with unittest.mock.patch.object(local, "GROUP", 1):
        assert len(engine.batches(requests)) == 3
        through = complete(engine, requests, folder / f"whole-{dtype}.jsonl", "whole")
        with contextlib.suppress(Killed):
            complete(Torn(), requests, folder / f"torn-{dtype}.jsonl", "killed")
        resumed = complete(engine, requests, folder / f"torn-{dtype}.jsonl", "resumed")
    same = sum(resumed[name] == through[name] for name in through)
    detail = f"{same} of 24 answers of a run killed after 2 of 3 groups and resumed are those of a run in one piece"
    report("check", f"resumption {dtype} {shape}", ok=same == 24, detail=detail, equal=same, of=24)
