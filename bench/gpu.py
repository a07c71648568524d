"""What needs a GPU, checked and measured by one program in a few minutes. Without a GPU it runs on a tiny model.

python bench/gpu.py                                      everything, at most 8 minutes
python bench/gpu.py --only sft,dpo --shape 7b --quantisation nf4 --minutes 5
python bench/gpu.py --only sft,dpo --shape 1b --method full

greedy   tokens of engine transformers on the GPU against the CPU's: equal in float32; in bfloat16, where they first differ, the
         two logits must lie no further apart than the processors' logits of one and the same prefix do
seeds    a request's draw beside others, among other neighbours, alone, and after a resumption
decode   tokens per second of engine transformers, beside `transformers.generate` on the same prompts
sft, dpo both training stages, beside plain TRL: tokens per second, MFU and peak memory, on plain and on 4-bit weights
memory   what resources.py says that training and generating take, against what they took

Models are randomly initialised, texts synthetic and all of one length. "ours" is scripts/instruct.py and scripts/refine.py as
the workflow runs them; "TRL" its SFTTrainer and DPOTrainer with the same texts and batches. Seconds are those between the ends
of the first and of the last update; the reference's likelihoods count, which ours computes before and TRL at each update. MFU
counts four floating-point operations per parameter and token under LoRA and six in full (Kaplan et al. 2020, arXiv
2001.08361), two more for the reference and none for what is computed again, of the card's dense bfloat16 peak. What is not installed, or does not fit in the
time, is skipped by name. The last line is one JSON object; the exit status is 1 where a check failed.
"""

import argparse
import contextlib
import gc
import importlib.metadata
import importlib.util
import itertools
import json
import math
import os
import queue
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import unittest.mock
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]
os.environ["HF_HUB_OFFLINE"] = "1"

PARTS = ("greedy", "seeds", "decode", "sft", "dpo", "memory")
STAGES = {"sft": "instruct", "dpo": "refine"}
SHAPES = {
    "tiny": {},
    "135m": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "1b": {
        "vocab_size": 32000,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
    "7b": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
}
# Dense bfloat16 peaks in TFLOPS, by a part of the card's name; the first that fits counts.
PEAKS = {
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "H200": 989,
    "A100": 312,
    "L40S": 362,
    "A6000": 155,
    "4090": 165,
    "3090": 71,
    "L4": 121,
}
PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "bitsandbytes",
    "datasets",
    "safetensors",
    "tokenizers",
)
INSTRUCTION = "Choose from {labels}."
# Pairs of one question in the data of the stage that learns from pairs.
PAIRS = 2
# Marks the lines that a worker reports in.
REPORT = "@report "
# Seconds that a case takes at most where none was seen yet, by shape.
GUESSES = {"tiny": 10, "135m": 15, "1b": 25, "7b": 45}
# Logits of one prefix on two processors, in standard deviations of the logits: more than that is no rounding.
ROUNDING = 0.1


def names(text: str) -> list[str]:
    """An argument type: names divided by commas."""
    return [name for name in text.split(",") if name]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=names, default=list(PARTS), help=f"of {','.join(PARTS)} (default: all)")
    parser.add_argument("--minutes", type=float, default=8, help="after which it ends (default: 8)")
    parser.add_argument("--shape", type=names, help=f"of {','.join(SHAPES)} (default: 1b,7b; tiny without a GPU)")
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--quantisation", type=names, default=["none", "nf4"], help="of none,nf4 (default: both)")
    parser.add_argument("--prompt", type=int, default=120, help="tokens of a prompt, about (default: 120)")
    parser.add_argument("--words", type=int, default=60, help="of an answer; a word is about two tokens (default: 60)")
    parser.add_argument("--batch", type=int, default=16, help="examples per update (default: 16)")
    parser.add_argument("--micro-batch", type=int, default=8, help="examples per forward pass (default: 8)")
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument(
        "--runs", type=int, default=1, help="of each training, in turns; the median counts (default: 1)"
    )
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations")
    parser.add_argument("--peak-tflops", type=float, help="of the GPU, where its name does not say it")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    known = {"only": PARTS, "shape": SHAPES, "quantisation": ("none", "nf4")}
    for name, values in known.items():
        for value in getattr(args, name) or []:
            if value not in values:
                parser.error(f"--{name}: {value!r} is none of {', '.join(values)}")
    if args.updates < 2:
        parser.error("--updates: the first one is not timed, so that it takes 2 or more")
    return args


# What a worker, a process of its own per model, does.


def report(kind: str, name: str, **facts) -> None:
    """Tells the program that started this worker of a `check`, `rate`, `memory`, or of what was `skipped`."""
    print(REPORT + json.dumps({"kind": kind, "name": name, **facts}), flush=True)


class Cases:
    """Runs cases one after another while time is left; a case that fails is skipped by name."""

    def __init__(self, until: float, guess: float):
        self.until = until
        self.guess = guess

    @contextlib.contextmanager
    def case(self, name: str):
        """One case: yields whether it is to run, judging by the longest one so far."""
        began = time.time()
        runs = began + self.guess <= self.until
        if not runs:
            report("skipped", name, why=f"{self.until - began:.0f} s are left, it may take {self.guess:.0f}")
        try:
            yield runs
        except Exception as error:
            report("skipped", name, why=f"{type(error).__name__}: {str(error)[:300]}")
            if not isinstance(error, ImportError):
                import traceback

                traceback.print_exc()
        free()
        if runs:
            self.guess = max(self.guess, time.time() - began)


def free() -> None:
    """Gives back what no one holds, and begins to note the peak of memory anew."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def device() -> str:
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def peak_gb() -> float | None:
    """GB of the GPU that torch has taken at most."""
    import torch

    return torch.cuda.max_memory_reserved() / 1e9 if torch.cuda.is_available() else None


def make_model(folder: Path, shape: str) -> Path:
    """A model's folder with random weights in bfloat16 and a record, made on the GPU where there is one."""
    from conftest import build_tiny_model, record_model
    from selfrefine.files import KnownHashes
    from selfrefine.provenance import HASHES, LARGE, RECORD

    model = model_of(folder, shape)
    if (model / RECORD).exists():
        return model
    model.mkdir(parents=True)
    build_tiny_model(model)
    if SHAPES[shape]:
        save_random(model, SHAPES[shape])
    # Not hashed, as a fetched model is: nobody asks which weights they are.
    hashes = KnownHashes(model / HASHES)
    for path in list(model.iterdir()):
        if path.stat().st_size >= LARGE:
            hashes.note(path, "0" * 64)
    record_model(model)
    free()
    return model


def model_of(folder: Path, shape: str) -> Path:
    """Where a model's folder lies: in a store, where the hashes of large files are kept."""
    return folder / "store" / shape


def save_random(folder: Path, shape: dict[str, int]) -> None:
    """Puts random weights of another shape in the place of a folder's."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig.from_pretrained(folder)
    config.update({**shape, "max_position_embeddings": 4096, "tie_word_embeddings": False})
    config.update({"head_dim": config.hidden_size // config.num_attention_heads, "initializer_range": 0.02})
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device()):
        made = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    made.save_pretrained(folder)


def parameters(model: Path) -> int:
    """The weights of a model's folder, counted in its files."""
    from safetensors import safe_open

    total = 0
    for path in model.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (no mapping)
    return total


def size_of(model: Path, shape: str):
    """A model's size as resources.py reckons with it."""
    from selfrefine.files import read_json
    from selfrefine.resources import Size

    config, billions = read_json(model / "config.json"), parameters(model) / 1e9
    share = config["num_key_value_heads"] / config["num_attention_heads"]
    return Size(billions, billions, config["vocab_size"], share)


def open_engine(model: Path, dtype: str, place: str, batch_size: int):
    """Engine transformers, the model on `place`."""
    from selfrefine.engines.local import TransformersEngine
    from selfrefine.models import load_model, load_tokenizer

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
    from selfrefine.engines import Generation, Request

    return [
        Request(
            f"r{i}", [{"role": "user", "content": text_of(engine, i, length)}], Generation(**generation), seed=1000 + i
        )
        for i, length in enumerate(lengths)
    ]


def answered(engine, requests: list) -> dict[str, list[int]]:
    """The token ids that an engine makes, by request; the random model's are no text."""
    made, finish = {}, engine.finish

    def noted(tokens, prompt):
        completion = finish(tokens, prompt)
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
            f"; the first to differ do so at token {min(row['token'] for row in found)}, of two whose logits are at most "
            f"{max(row['gap'] for row in found):.4f} apart, where one prefix's differ by up to "
            f"{max(row['noise'] for row in found):.4f} between the processors "
            f"({max(row['noise'] / row['deviation'] for row in found):.1%} of their standard deviation)"
        )
    fine = all(row["gap"] <= 2 * row["noise"] and row["noise"] <= ROUNDING * row["deviation"] for row in found)
    ok = fine if dtype != "float32" else not differing
    report("check", f"greedy {dtype} {shape}", ok=ok, detail=detail, equal=equal, of=len(mine), partings=found)


def partings(model: Path, dtype: str, rows: list[tuple[list[int], list[int], list[int]]]) -> list[dict]:
    """Where two answers to a prompt part, for rows of (prompt, the GPU's answer, the CPU's), each {token, gap, noise, deviation}.

    The place, how far the two tokens' logits are apart on the GPU, how far any logit of that prefix differs between the
    processors, and their standard deviation. One plain forward pass of the model each, with no engine.
    """
    import torch

    from selfrefine.models import load_model

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
    from selfrefine.engines import complete, local

    engine = open_engine(model, dtype, device(), 8)
    # Cold, so that few tokens are likely, as with a trained model: random weights alone give thousands of them a like share, and
    # rounding moves a border past many a draw.
    requests = requests_of(engine, [20 + 3 * (i % 8) for i in range(24)], max_tokens=24, temperature=0.1, top_p=0.9)
    whole = answered(engine, requests)
    alone = [answered(engine, [request])[request.id] == whole[request.id] for request in requests[:8]]
    engine.batch_size = 5
    others = answered(engine, requests[::-1])
    beside = [others[name] == whole[name] for name in whole]
    engine.batch_size = 8
    same = sum(alone) + sum(beside)
    detail = f"{sum(alone)} of 8 drawn alone, {sum(beside)} of 24 drawn in other batches are the same draws"
    # A batch of another shape is rounded otherwise, and in bfloat16 many a draw lies so near the border of two tokens that it
    # falls to the other.
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


def measure_decode(model: Path, shape: str, parts: list[str]) -> None:
    """Engine transformers beside `transformers.generate`: 64 prompts of 120 tokens, 64 new ones."""
    from selfrefine import resources

    rows, prompt, written = 64, 120, 64
    kinds = {"greedy": {}, "sampled": {"temperature": 0.7}}
    timings, prompts = ours_decoding(model, kinds, [prompt] * rows, written)
    held = peak_gb()
    free()
    if held is not None and "memory" in parts:
        reckoned = resources.generating(size_of(model, shape), 2, rows, prompt, written).total
        report("memory", f"decode {shape}", reckoned=reckoned, used=held, ratio=reckoned / held)
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

    from selfrefine.models import load_model, load_tokenizer

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
    """Tokens per second of `decode(settings, tokens)`, which gives (tokens made, seconds): of all, and of all but the first.

    The quickest of three counts.
    """
    decode(settings, 4)
    (first, prefill), (made, whole) = (
        min((decode(settings, tokens) for _ in range(3)), key=lambda taken: taken[1]) for tokens in (1, written)
    )
    return {"end to end": made / whole, "decode": (made - first) / (whole - prefill)}


def write_data(folder: Path, args: argparse.Namespace) -> None:
    """Items, demonstrations and pairs, all of one length."""
    from selfrefine.files import write_jsonl

    number = args.batch * args.updates
    items, demonstrations, pairs = [], [], []
    for i in range(number + args.batch):
        question = f"Box {i:06d}? " + "The box is red today. " * max((args.prompt - 60) // 6, 0)
        item = {"id": f"{i:016x}", "kind": "choice", "question": question, "choices": ["red", "blue"], "answer": "A"}
        items.append(item)
        good = {"id": "g", "text": "red " * args.words + "The answer is A.", "finished": True, "correct": True}
        if i < number:
            demonstrations.append({"id": item["id"], "item": item["id"], "text": good["text"]})
    # A question's good path stands beside several bad ones, as in a study.
    for i in range(number + args.batch):
        item = items[i // PAIRS if i < number else i]
        bad = {"id": f"b{i}", "text": f"{'blue ' * args.words}The answer is B.", "finished": True, "correct": False}
        split = "train" if i < number else "validation"
        pair = {"id": f"{i:016x}", "item": item["id"], "split": split, "prompt": "cot", "chosen": good, "rejected": bad}
        pairs.append(pair)
    for name, rows in (("items", items), ("demonstrations", demonstrations), ("pairs", pairs)):
        write_jsonl(folder / f"{name}.jsonl", rows)


def tokens_of(model: Path, folder: Path) -> dict[str, int]:
    """Tokens of an example of each stage, as the stages encode it."""
    from selfrefine.benchmarks import read_items
    from selfrefine.files import read_jsonl
    from selfrefine.models import load_tokenizer
    from selfrefine.prompts import Prompt, messages
    from selfrefine.training import encode_completion, encode_prompt

    tokenizer, items = load_tokenizer(model), read_items(folder / "items.jsonl")
    pair = read_jsonl(folder / "pairs.jsonl")[0]
    chat = messages(items[pair["item"]], Prompt(instruction=INSTRUCTION), "cot")
    chosen, rejected = (
        len(encode_prompt(tokenizer, chat)) + len(encode_completion(tokenizer, chat, pair[side]["text"]))
        for side in ("chosen", "rejected")
    )
    return {"sft": chosen, "dpo": chosen + rejected}


class Ticks:
    """The times at which a trainer's updates end, noted by a callback that every trainer gets."""

    def __init__(self):
        import transformers.trainer as trainer
        from transformers import TrainerCallback

        self.ended = ended = []

        class Noting(TrainerCallback):
            def on_step_end(self, *given, **more):
                import torch

                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                ended.append(time.perf_counter())

        trainer.DEFAULT_CALLBACKS.append(Noting)

    def taken(self) -> list[float]:
        """The times since the last call."""
        times = self.ended.copy()
        self.ended.clear()
        return times


def ours(part: str, folder: Path, shape: str, quantisation: str, args: argparse.Namespace) -> dict:
    """One run of a stage's program: its record's figures."""
    import instruct
    import refine
    from selfrefine.files import read_json

    settings = {
        "epochs": 1,
        "batch_size": args.batch,
        "micro_batch_size": args.micro_batch,
        "method": args.method,
        "gradient_checkpointing": args.checkpointing,
        "max_length": 4096,
    }
    recipe = {"prompt": {"instruction": INSTRUCTION}, "quantisation": quantisation}
    if part == "sft":
        recipe["training"] = settings | {"save_every": 10**6}
        program, data = instruct, ["--demonstrations", folder / "demonstrations.jsonl"]
    else:
        recipe["training"] = settings | {"evaluate_every": 10**6}
        program, data = refine, ["--pairs", folder / "pairs.jsonl"]
    with tempfile.TemporaryDirectory(dir=folder) as made:
        command = [program.__file__, "--recipe", json.dumps(recipe), *data, "--items", folder / "items.jsonl"]
        command += ["--start", model_of(folder, shape) / "record.json", "--threads", os.cpu_count()]
        command += ["--record", f"{made}/record.json"]
        given, sys.argv = sys.argv, list(map(str, command))
        try:
            program.main()
        finally:
            sys.argv = given
        return read_json(Path(made) / "record.json")["figures"]


def plain(part: str, folder: Path, shape: str, quantisation: str, args: argparse.Namespace) -> dict:
    """TRL by itself."""
    import torch
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from selfrefine.benchmarks import read_items
    from selfrefine.files import read_jsonl
    from selfrefine.models import load_model, load_tokenizer
    from selfrefine.prompts import Prompt, messages
    from selfrefine.training import Lora, lora_config

    model, items = model_of(folder, shape), read_items(folder / "items.jsonl")

    def row(of: dict, **texts: str) -> dict:
        said = {name: [{"role": "assistant", "content": text}] for name, text in texts.items()}
        return {"prompt": messages(items[of["item"]], Prompt(instruction=INSTRUCTION), "cot"), **said}

    if part == "sft":
        rows = [row(d, completion=d["text"]) for d in read_jsonl(folder / "demonstrations.jsonl")]
    else:
        pairs = [pair for pair in read_jsonl(folder / "pairs.jsonl") if pair["split"] == "train"]
        rows = [row(p, chosen=p["chosen"]["text"], rejected=p["rejected"]["text"]) for p in pairs]
    trainer_class, config = (SFTTrainer, SFTConfig) if part == "sft" else (DPOTrainer, DPOConfig)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        settings = config(
            output_dir=made,
            max_steps=args.updates,
            per_device_train_batch_size=args.micro_batch,
            gradient_accumulation_steps=args.batch // args.micro_batch,
            gradient_checkpointing=args.checkpointing,
            max_length=None,
            # On a GPU as TRL has it, in mixed precision.
            bf16=None if torch.cuda.is_available() else args.method == "full",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
        )
        trainer = trainer_class(
            model=load_model(model, "float32" if args.method == "full" else "bfloat16", quantisation, training=True),
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(model),
            peft_config=lora_config(Lora()) if args.method == "lora" else None,
        )
        began = time.perf_counter()
        trainer.train()
        return {"training_seconds": time.perf_counter() - began}


def measure_training(folder: Path, shape: str, quantisation: str, cases: Cases, args: argparse.Namespace) -> None:
    """Both stages on one model, ours and TRL's in turns."""
    from selfrefine import resources
    from selfrefine.training import InstructSettings

    model = make_model(folder, shape)
    weights, lengths, ticks = parameters(model), tokens_of(model, folder), Ticks()
    stages = [part for part in STAGES if part in args.only] or list(STAGES)
    sides = {"ours": ours, "TRL": plain} if set(STAGES).intersection(args.only) else {"ours": ours}
    for part in stages:
        of, found = f"{part} {shape} {quantisation} {args.method}", {name: [] for name in sides}
        for name, side in [*sides.items()] * args.runs:
            with cases.case(f"{of}, {name}") as runs:
                if not runs:
                    continue
                free()
                ticks.taken()
                figures = side(part, folder, shape, quantisation, args)
                found[name].append(speed(figures, ticks.taken(), lengths[part] * args.batch, args.updates))
        for name, timings in found.items():
            if timings:
                seen = statistics.median(run["speed"] for run in timings)
                report("training", of, side=name, speed=seen, memory=timings[0]["memory"], weights=weights)
        if "memory" in args.only and found["ours"]:
            used = found["ours"][0]["memory"]
            if used is None:
                report("skipped", f"memory of {of}", why="there is no GPU whose memory could be measured")
                continue
            size, lora = size_of(model, shape), InstructSettings().lora
            full = args.method == "full"
            reckoned = resources.training(
                size,
                2,
                0.0 if full else resources.PACKED_BYTES if quantisation == "nf4" else 2,
                size.parameters if full else size.lora(lora.r),
                args.micro_batch * lengths[part],
                args.checkpointing,
            ).total
            report("memory", of, reckoned=reckoned, used=used, ratio=reckoned / used)


def speed(figures: dict, ticks: list[float], tokens: int, updates: int) -> dict:
    """{speed, memory} of one training, `tokens` those of an update: from its ticks, or, without those, from all of it."""
    reference = figures.get("reference_seconds", 0.0) / updates
    if len(ticks) == updates:
        seconds = (ticks[-1] - ticks[0]) / (updates - 1)
    else:
        seconds = figures["training_seconds"] / updates
    return {"speed": tokens / (seconds + reference), "memory": peak_gb()}


def work(args: argparse.Namespace) -> None:
    """A worker's part, `--worker`."""
    import torch

    from selfrefine.files import write_json

    torch.set_num_threads(os.cpu_count())
    part, *of = args.worker.split(":")
    if part == "machine":
        write_json(args.folder / "machine.json", describe_machine())
    elif part == "checks":
        cases, (shape,) = Cases(args.until, GUESSES[of[0]]), of
        model = make_model(args.folder, shape)
        for name, dtype in itertools.product(("greedy", "seeds"), ("float32", "bfloat16")):
            if name in args.only:
                with cases.case(f"{name} {dtype}") as runs:
                    if runs and name == "greedy":
                        check_greedy(model, shape, dtype)
                    elif runs:
                        check_seeds(model, shape, dtype, args.folder)
    elif part == "decode":
        cases, (shape,) = Cases(args.until, GUESSES[of[0]]), of
        with cases.case(f"decode {shape}") as runs:
            if runs:
                measure_decode(make_model(args.folder, shape), shape, args.only)
    else:
        shape, quantisation = of
        measure_training(args.folder, shape, quantisation, Cases(args.until, GUESSES[shape]), args)


def describe_machine() -> dict:
    """The machine: GPU, its memory in GB, driver, cores, versions."""
    import torch

    machine: dict = {"gpu": None, "memory": None, "driver": None, "capability": None, "cores": os.cpu_count()}
    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        machine |= {"gpu": facts.name, "memory": facts.total_memory / 1e9}
        machine["capability"] = f"{facts.major}.{facts.minor}"
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
            machine["driver"] = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()[0]
    versions = {"python": sys.version.split()[0], "cuda": torch.version.cuda}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return machine | {"versions": versions}


# What the program itself does: start workers one after another, show what they report, sum up.


def start(worker: str, folder: Path, until: float, log: Path, show) -> str | None:
    """Runs one worker until it ends or `until`, handing each of its reports to `show`; what went wrong, or None."""
    command = [sys.executable, __file__, *sys.argv[1:], "--worker", worker, "--folder", str(folder)]
    command += ["--until", str(until - 5)]
    with open(log, "w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        lines: queue.Queue = queue.Queue()

        def read() -> None:
            for line in process.stdout:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        try:
            while (line := lines.get(timeout=max(until - time.time(), 0.1))) is not None:
                if line.startswith(REPORT):
                    show(json.loads(line.removeprefix(REPORT)))
        except queue.Empty:
            process.kill()
            process.wait()
            return "its time was up"
        if process.wait():
            return f"it ended with {process.returncode}: {' / '.join(log.read_text().splitlines()[-3:])[:400]}"
    return None


class Sheet:
    """What was found, printed line by line and kept for the summary."""

    def __init__(self, peak_tflops: float | None, method: str):
        self.peak, self.operations = peak_tflops, 6 if method == "full" else 4
        self.checks: dict[str, dict] = {}
        self.rates: dict[str, dict] = {}
        self.memory: dict[str, dict] = {}
        self.skipped: list[str] = []

    def take(self, row: dict) -> None:
        """Prints and keeps one report of a worker."""
        kind, name = row.pop("kind"), row.pop("name")
        getattr(self, f"_{kind}")(name, row)

    def _check(self, name: str, row: dict) -> None:
        self.checks[name] = row
        self.line("check", name, "passed" if row["ok"] else "FAILED", row["detail"])

    def _rate(self, name: str, row: dict) -> None:
        self.rates[name] = {"ours": row["ours"], row["of"]: row["peer"], "ratio": {row["of"]: row["ratio"]}}
        shown = f"{row['ours']:,.0f} tokens/s, {row['of']} {row['peer']:,.0f}"
        self.line("rate", name, f"{row['ratio']:.2f} ×", shown)

    def _training(self, name: str, row: dict) -> None:
        entry, side = self.rates.setdefault(name, {}), row["side"]
        entry[side] = row["speed"]
        if row["memory"] is not None:
            entry.setdefault("memory_gb", {})[side] = row["memory"]
        shown = f"{side} {row['speed']:,.0f} tokens/s"
        if self.peak:
            operations = self.operations + 2 * name.startswith("dpo")
            mfu = row["speed"] * operations * row["weights"] / (self.peak * 1e12)
            entry.setdefault("mfu", {})[side] = mfu
            shown += f", MFU {mfu:.1%}"
        shown += f", {row['memory']:.1f} GB" if row["memory"] is not None else ""
        ratio = ""
        if side == "TRL" and "ours" in entry:
            entry["ratio"] = {"trl": entry["ours"] / entry["TRL"]}
            ratio = f"{entry['ratio']['trl']:.2f} ×"
        self.line("rate", name, ratio, shown)

    def _memory(self, name: str, row: dict) -> None:
        self.memory[name] = row
        self.line(
            "memory", name, f"{row['ratio']:.2f} ×", f"reckoned {row['reckoned']:.1f} GB, took {row['used']:.1f} GB"
        )

    def _skipped(self, name: str, row: dict) -> None:
        self.skipped.append(f"{name}: {row['why']}")
        self.line("skipped", name, "", row["why"])

    def line(self, kind: str, name: str, verdict: str, detail: str) -> None:
        """Prints a row of the table."""
        print(f"| {kind} | {name} | {verdict} | {detail.replace('|', '/')} |", flush=True)


def scratch() -> Path | None:
    """Where models are kept: in memory where that has room for the largest twice over, else where temporary files go."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and shutil.disk_usage(shared).free > 32e9 else None


def workers(args: argparse.Namespace, gpu: bool) -> list[str]:
    """The workers to start, what matters most first."""
    shapes = args.shape or (["1b", "7b"] if gpu else ["tiny"])
    wanted = set(args.only)
    found = [f"checks:{'135m' if gpu else 'tiny'}"] if wanted & {"greedy", "seeds"} else []
    if wanted & {"decode", "memory"}:
        found.append(f"decode:{shapes[0]}")
    if wanted & {"sft", "dpo", "memory"}:
        kinds = [q for q in args.quantisation if not (args.method == "full" and q == "nf4")]
        cases = itertools.product(enumerate(shapes), enumerate(kinds))
        # The first shape on the first weights, the second on the second: what is left out for time is what differs least.
        ordered = sorted(cases, key=lambda case: case[0][0] != case[1][0])
        found += [f"training:{shape}:{quantisation}" for (_, shape), (_, quantisation) in ordered]
    return found


def missing(worker: str) -> str | None:
    """What a worker needs that is not installed."""
    if not worker.startswith("training"):
        return None
    needed = ["trl", "peft", "datasets", *(["bitsandbytes"] if worker.endswith("nf4") else [])]
    absent = [name for name in needed if importlib.util.find_spec(name) is None]
    return f"{', '.join(absent)}: not installed" if absent else None


def main() -> None:
    args = arguments()
    if args.worker:
        work(args)
        return
    end = time.time() + 60 * args.minutes
    with tempfile.TemporaryDirectory(dir=scratch()) as made:
        folder = Path(made)
        if failure := start("machine", folder, end, folder / "machine.log", lambda row: None):
            sys.exit(f"error: this machine cannot run it: {failure}")
        machine = json.loads((folder / "machine.json").read_text())
        gpu = machine["gpu"]
        peak = args.peak_tflops or next((tflops for name, tflops in PEAKS.items() if gpu and name in gpu), None)
        sheet = Sheet(peak, args.method)
        memory = f" of {machine['memory']:.0f} GB, driver {machine['driver']}" if gpu else "no GPU"
        print(f"{gpu or ''}{memory}; peak {peak or 'unknown'} TFLOPS; {machine['cores']} cores")
        print(", ".join(f"{name} {version}" for name, version in machine["versions"].items()), end="\n\n")
        print("| | what | | |\n|---|---|---|---|", flush=True)
        write_data(folder, args)
        for worker in workers(args, bool(gpu)):
            left = end - time.time()
            if absent := missing(worker):
                sheet.take({"kind": "skipped", "name": worker, "why": absent})
            elif left < 20:
                sheet.take({"kind": "skipped", "name": worker, "why": f"{left:.0f} s are left"})
            elif failure := start(worker, folder, end, folder / "worker.log", sheet.take):
                sheet.take({"kind": "skipped", "name": f"the rest of {worker}", "why": failure})
    summary = {
        "machine": machine,
        "checks": sheet.checks,
        "rates": sheet.rates,
        "memory": sheet.memory,
        "skipped": sheet.skipped,
    }
    print(f"\n{time.time() - end + 60 * args.minutes:.0f} s\n{json.dumps(summary)}", flush=True)
    if not all(check["ok"] for check in sheet.checks.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
