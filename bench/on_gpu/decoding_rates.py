"""Tokens per second of engine transformers, beside `transformers.generate` on the same prompts."""

import itertools
import time
from pathlib import Path

from on_gpu.cases import report
from on_gpu.decoding_checks import open_engine, requests_of
from on_gpu.random_models import device, free, peak_gb, size_of


def measure_decode(model: Path, shape: str, parts: list[str]) -> None:
    """Engine transformers beside `transformers.generate`: 64 prompts of 120 tokens, 64 new ones."""
    from selfrefine.study import resources

    rows, prompt, written = 64, 120, 64
    kinds = {"greedy": {}, "sampled": {"temperature": 0.7}}
    timings, prompts = ours_decoding(model, kinds, [prompt] * rows, written)
    held = peak_gb()
    free()
    if held is not None and "memory" in parts:
        estimated = resources.generating(size_of(model, shape), 2, rows, prompt, written).total
        report("memory", f"decode {shape}", estimated=estimated, used=held, ratio=estimated / held)
    if "decode" not in parts:
        return
    peers = plain_decoding(model, kinds, prompts, written)
    for kind, what in itertools.product(kinds, ("decode", "end to end")):
        mine, peer = timings[kind][what], peers[kind][what]
        report("rate", f"{what} {kind} {shape}", ours=mine, peer=peer, of="generate", ratio=mine / peer)


def ours_decoding(model: Path, kinds: dict[str, dict], lengths: list[int], written: int) -> tuple[dict, list]:
    """The rates of engine transformers by kind of generation, and the prompts' token ids."""
    engine = open_engine(model, "bfloat16", device(), len(lengths))

    def decode(settings: dict, tokens: int) -> tuple[int, float]:
        made, seconds = 0, 0.0
        for batch in engine.batches(requests_of(engine, lengths, max_tokens=tokens, **settings)):
            began = time.perf_counter()
            made += sum(completion.tokens for completion in engine.generate(batch))
            seconds += time.perf_counter() - began
        return made, seconds

    found = {kind: timed(decode, settings, written) for kind, settings in kinds.items()}
    return found, [engine.encode(request.messages) for request in requests_of(engine, lengths)]


def plain_decoding(model: Path, kinds: dict[str, dict], prompts: list[list[int]], written: int) -> dict:
    """The rates of `transformers.generate` on the same prompts, padded on the left."""
    import torch

    from selfrefine.models.checkpoints import load_model, load_tokenizer

    loaded, tokenizer = load_model(model, "bfloat16", device=device()).eval(), load_tokenizer(model)
    width, stop = max(map(len, prompts)), tokenizer.eos_token_id
    ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(p)) + p for p in prompts], device=device())
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device())

    def decode(settings: dict, tokens: int) -> tuple[int, float]:
        drawn = {"do_sample": True, "top_k": 0, **settings} if settings else {"do_sample": False}
        began = time.perf_counter()
        made = loaded.generate(input_ids=ids, attention_mask=mask, max_new_tokens=tokens, **drawn)[:, width:].tolist()
        seconds = time.perf_counter() - began
        return sum(row.index(stop) + 1 if stop in row else len(row) for row in made), seconds

    return {kind: timed(decode, settings, written) for kind, settings in kinds.items()}


def timed(decode, settings: dict, written: int) -> dict[str, float]:
    """Tokens per second of `decode(settings, tokens)`, which gives (tokens, seconds): all, and all but the first.

    The quickest of three counts.
    """
    decode(settings, 4)
    (first, prefill), (made, whole) = (
        min((decode(settings, tokens) for _ in range(3)), key=lambda taken: taken[1]) for tokens in (1, written)
    )
    return {"end to end": made / whole, "decode": (made - first) / (whole - prefill)}
