"""`bench/peers.py generation`: each peer's decoding rate, and its time for the quickstart study."""

import argparse
import contextlib
import random
from pathlib import Path

from before import readable
from products import Shape, decode_limit, described
from quickstart import ROOT, Quickstart
from report import last_line, table
from workers import BEFORE, OURS, PEERS, Failed, Peer, Worker

# 64 prompts of 120 tokens, 64 new tokens each.
BATCH, PROMPT, NEW = 64, 120, 64
# A second round only where the first was this short.
PATIENCE_S = 40
# What decides in which of its dtypes a peer does the study: prompts, new tokens.
PILOT = (16, 16)


def measure(args: argparse.Namespace, study: Quickstart) -> None:
    """Prints the tables and the last line."""
    import torch

    torch.set_num_threads(args.threads)
    shape = Shape.read(study.config)
    limits = {dtype: decode_limit(shape, BATCH, dtype) for dtype in ("float32", "bfloat16")}
    machine = described(args.threads)
    machine["gemm_gflops"] = {
        dtype: {way: rate["gflops"] for way, rate in ways.items()} for dtype, ways in limits.items()
    }
    rates = {dtype: max(ways.values(), key=lambda rate: rate["gflops"])["gflops"] for dtype, ways in limits.items()}
    bench = Bench(args, study, narrow=rates["bfloat16"] > 0.8 * rates["float32"])
    for name, reason in bench.skipped.items():
        print(f"{name}: skipped, {reason}")
    facts: dict = {"bench": "generation", "machine": machine, "skipped": bench.skipped, "rates": {}, "ratio": {}}
    if args.part in ("all", "shape"):
        found = bench.shape()
        facts["rates"]["shape"] = found
        facts["limit"] = show_shape(found, limits)
        facts["ratio"] = facts["shape_ratio"] = _ratios(found, "whole")
    if args.part in ("all", "study"):
        found = bench.study_work()
        facts["rates"]["study"] = found
        show_study(found)
        ours = found["ours"]["all"]["rate"]
        facts["ratio"] = {name: ours / rows["all"]["rate"] for name, rows in found.items() if name != "ours"}
    last_line(facts)


def _ratios(found: dict, what: str) -> dict[str, float]:
    """Ours over each peer's fastest, by what was measured."""
    fastest = {name: max(row[what] for row in rows.values()) for name, rows in found.items() if rows}
    return {name: fastest["ours"] / rate for name, rate in fastest.items() if name != "ours"}


class Bench:
    """The peers that are there, each in the dtypes that make sense on this machine (`narrow`: bfloat16 among them)."""

    def __init__(self, args: argparse.Namespace, study: Quickstart, narrow: bool):
        self.args, self.study, self.narrow = args, study, narrow
        wanted = [PEERS[name] for name in args.peers] if args.peers is not None else list(PEERS.values())
        self.skipped = {peer.name: reason for peer in wanted if (reason := peer.missing())}
        self.peers = [OURS, *([BEFORE] if args.before else [])]
        self.peers += [peer for peer in wanted if peer.name not in self.skipped]

    def computes(self, peer: Peer) -> list[str]:
        """What a peer computes in; ours is always asked for what it chooses by itself."""
        return [name for name in peer.computes if self.narrow or name in ("float32", "auto")]

    def worker(self, peer: Peer, compute: str, checkpoint: Path, folder: Path, label: str) -> Worker:
        """A started worker."""
        scratch = self.study.scratch / label
        scratch.mkdir(exist_ok=True)
        checkout = self.args.before if peer is BEFORE else ROOT
        task = {
            "folder": str(folder),
            "checkpoint": str(readable(checkpoint, checkout, self.study)),
            "compute": compute,
            "threads": self.args.threads,
            "batch": self.study.batch,
            "scratch": str(scratch),
            "study": str(self.study.folder),
        }
        return Worker(peer, task, checkout)

    def shape(self) -> dict[str, dict]:
        """{peer: {dtype: {prefill_seconds, decode, whole (tokens/s), load_seconds, version}}}; peers take turns."""
        found: dict[str, dict] = {peer.name: {} for peer in self.peers}
        folder = self.study.merged(self.study.base, "baseline")
        # One dtype after the other: all at once would not fit a laptop's memory.
        for turn in (("float32",), ("auto", "bfloat16", "float16")):
            with contextlib.ExitStack() as stack:
                workers = []
                for peer in self.peers:
                    for compute in self.computes(peer):
                        if compute in turn:
                            with _told(peer, compute):
                                worker = self.worker(peer, compute, self.study.base, folder, "shape")
                                workers.append(stack.enter_context(worker))
                for worker, row in self._rounds(workers):
                    found[worker.peer.name][worker.loaded["compute"]] = row
        return found

    def _rounds(self, workers: list[Worker]) -> list[tuple[Worker, dict]]:
        rows: list[tuple[Worker, dict]] = []
        times: dict[Worker, list[tuple[float, float]]] = {worker: [] for worker in workers}
        for number in range(1 if self.args.quick else 2):
            for worker in workers:
                if number and sum(times[worker][0]) > PATIENCE_S:
                    continue
                with _told(worker.peer, worker.loaded["compute"]):
                    if not number:
                        worker.generate(self._random(2, BATCH))
                    first, whole = worker.generate(self._random(1, BATCH)), worker.generate(self._random(NEW, BATCH))
                    if sum(whole["tokens"]) != NEW * BATCH:
                        raise Failed(f"made {sum(whole['tokens'])} tokens, not {NEW * BATCH}")
                    times[worker].append((first["seconds"], whole["seconds"]))
        for worker, seconds in times.items():
            if seconds:
                prefill, whole = (min(column) for column in zip(*seconds, strict=True))
                row = {"prefill_seconds": prefill, "decode": BATCH * (NEW - 1) / (whole - prefill)}
                row |= {"whole": BATCH * NEW / whole, "load_seconds": worker.loaded["load_seconds"]}
                rows.append((worker, row | {"version": worker.loaded["version"]}))
        return rows

    def _random(self, new: int, prompts: int) -> dict:
        """Requests with prompts that were not asked before: what a peer keeps of earlier ones must not help it."""
        self._drawn = getattr(self, "_drawn", 0) + 1
        draw = random.Random(self._drawn)
        tokens = range(100, self.study.config["vocab_size"] - 100)
        return {
            "chats": None,
            "prompts": [draw.choices(tokens, k=PROMPT) for _ in range(prompts)],
            "max_tokens": new,
            "temperature": 0.0,
            "seeds": list(range(prompts)),
            "stop": self.study.tokenizer.eos_token_id,
            "exact": True,
        }

    def study_work(self) -> dict[str, dict]:
        """{peer: {compute, load_seconds, memory_mib, sampling, evaluations, all: {tokens, seconds, rate}}}.

        Each peer computes in its faster dtype. The instructed student samples, or the base model if there is none yet.
        """
        checkpoints = self.study.checkpoints()
        if self.args.quick:
            checkpoints.pop("refine", None)
        sampler = "instruct" if "instruct" in checkpoints else "baseline"
        computes = {peer: self._faster(peer) for peer in self.peers}
        works: dict[str, dict] = {}
        for name, checkpoint in checkpoints.items():
            sets = {"evaluations": list(self.study.evaluations().values())}
            sets |= {"sampling": [self.study.sampling()]} if name == sampler else {}
            folder = self.study.merged(checkpoint, name)
            with contextlib.ExitStack() as stack:
                workers = []
                for peer, compute in computes.items():
                    with _told(peer, compute or "any dtype"):
                        worker = self.worker(peer, compute, checkpoint, folder, name)
                        workers.append(stack.enter_context(worker))
                for kind, wanted in sets.items():
                    for one in wanted:
                        for worker in workers:
                            _add(works.setdefault(worker.peer.name, _blank(worker)), kind, worker, worker.generate(one))
                        workers = workers[1:] + workers[:1]
        for rows in works.values():
            for kind in ("sampling", "evaluations"):
                for key in ("tokens", "seconds"):
                    rows["all"][key] += rows[kind][key]
            for kind in ("sampling", "evaluations", "all"):
                rows[kind]["rate"] = rows[kind]["tokens"] / rows[kind]["seconds"]
        return works

    def _faster(self, peer: Peer) -> str | None:
        """The dtype in which a peer is faster on a few requests; ours chooses by itself."""
        if "auto" in peer.computes:
            return "auto"
        prompts, new = PILOT
        seconds = {}
        folder = self.study.merged(self.study.base, "baseline")
        for compute in self.computes(peer):
            with _told(peer, compute), self.worker(peer, compute, self.study.base, folder, "pilot") as worker:
                worker.generate(self._random(2, prompts))
                seconds[compute] = worker.generate(self._random(new, prompts))["seconds"]
        return min(seconds, key=seconds.get, default=None)


@contextlib.contextmanager
def _told(peer: Peer, compute: str):
    """Prints why a peer drops out, and goes on without it; ours must not."""
    try:
        yield
    except Failed as error:
        if peer is OURS:
            raise
        print(f"{peer.name}, {compute}: {error}", flush=True)


def _blank(worker: Worker) -> dict:
    counts = {kind: {"tokens": 0, "seconds": 0.0} for kind in ("sampling", "evaluations", "all")}
    return {**worker.loaded, "load_seconds": 0.0, "memory_mib": 0, **counts}


def _add(rows: dict, kind: str, worker: Worker, made: dict) -> None:
    if worker not in (seen := rows.setdefault("_workers", [])):
        seen.append(worker)
        rows["load_seconds"] += worker.loaded["load_seconds"]
    rows["memory_mib"] = max(rows["memory_mib"], made["memory_mib"])
    rows[kind]["tokens"] += sum(made["tokens"])
    rows[kind]["seconds"] += made["seconds"]


def show_shape(found: dict[str, dict], limits: dict) -> dict:
    """Prints the table of the shape; returns the limits and our share of each."""
    print(
        f"\n{BATCH} prompts of {PROMPT} tokens, {NEW} new tokens each; the limit is the step's matrix products alone\n"
    )
    rows = []
    shares: dict[str, dict] = {}
    for name, by_dtype in found.items():
        for dtype, row in by_dtype.items():
            ways = limits.get(dtype, {})
            parts = {way: row["decode"] / rate["tokens_per_second"] for way, rate in ways.items()}
            if name == "ours":
                whole = {way: rate["tokens_per_second"] for way, rate in ways.items()}
                shares[dtype] = {"tokens_per_second": whole, "share": parts}
            named = [f"{parts[way]:.0%}" if way in parts else None for way in ("linear", "packed")]
            rows.append([name, dtype, row["load_seconds"], row["prefill_seconds"], row["decode"], *named, row["whole"]])
    titles = ["", "computes in", "load, s", "prefill, s", "decode, tokens/s", "of the limit by torch's linear"]
    table([*titles, "by oneDNN's packed", "end to end, tokens/s"], rows)
    for dtype, ways in limits.items():
        text = ", ".join(
            f"{rate['tokens_per_second']:.0f} by {way} at {rate['gflops']} GFLOP/s" for way, rate in ways.items()
        )
        print(f"limit in {dtype}, tokens/s: {text}")
    return shares


def show_study(found: dict[str, dict]) -> None:
    """Prints the table of the study's generation."""
    print("\nThe quickstart study's sampling and evaluations\n")
    ours = found["ours"]["all"]["rate"]
    rows = []
    for name, row in found.items():
        row.pop("_workers")
        rates = [row[kind]["rate"] for kind in ("sampling", "evaluations")]
        whole = [row["all"]["tokens"], row["all"]["seconds"], row["all"]["rate"]]
        rows.append(
            [name, row["compute"], row["load_seconds"], row["memory_mib"], *rates, *whole, ours / row["all"]["rate"]]
        )
    titles = ["", "computes in", "load, s", "memory, MiB", "sampling, tokens/s", "evaluations, tokens/s", "tokens", "s"]
    table([*titles, "tokens/s", "ours over it"], rows)
