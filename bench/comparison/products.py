"""Describes the machine, and times the matrix products that limit every program on it.

A limit is what the linear layers alone would take, at the rates measured here for their shapes: everything else
(attention, normalisation, sampling, Python) is on top. Each shape is multiplied with as many different weights as the
model has layers, so that they come from memory as they do in a model. Two ways are timed: "linear" is torch's own
`torch.nn.functional.linear`, "packed" oneDNN's product with weights laid out for it beforehand. Where torch's goes to
another library, they differ: on AMD's processors MKL's float32 takes a slow path.
"""

import dataclasses
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
# What lowers the instructions that torch and oneDNN take.
LOWERED = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a Llama-like model that its matrix products follow from."""

    hidden: int
    inner: int
    heads: int
    groups: int
    head: int
    vocabulary: int
    layers: int

    @classmethod
    def read(cls, config: dict) -> "Shape":
        """Of a model's config.json."""
        heads = config["num_attention_heads"]
        return cls(
            hidden=config["hidden_size"],
            inner=config["intermediate_size"],
            heads=heads,
            groups=config.get("num_key_value_heads") or heads,
            head=config.get("head_dim") or config["hidden_size"] // heads,
            vocabulary=config["vocab_size"],
            layers=config["num_hidden_layers"],
        )

    def linears(self) -> dict[tuple[int, int], int]:
        """How often a layer multiplies with weights of each (outputs, inputs)."""
        query, key = self.heads * self.head, self.groups * self.head
        wanted = [(query, self.hidden), (key, self.hidden), (key, self.hidden), (self.hidden, query)]
        wanted += [(self.inner, self.hidden), (self.inner, self.hidden), (self.hidden, self.inner)]
        return {shape: wanted.count(shape) for shape in wanted}

    def weights(self) -> int:
        """The weights of all linear layers but the head."""
        return self.layers * sum(rows * columns * times for (rows, columns), times in self.linears().items())

    def head_weights(self) -> int:
        """The head's weights."""
        return self.vocabulary * self.hidden


def described(threads: int) -> dict:
    """The machine in words: processor, the flags that matter, cores, threads, what lowers its instructions, torch."""
    import torch

    facts = _cpuinfo()
    return {
        "processor": facts.get("model name", platform.processor()),
        "family": f"{facts.get('vendor_id', '')} {facts.get('cpu family', '')}/{facts.get('model', '')}".strip(),
        "flags": [flag for flag in FLAGS if flag in facts.get("flags", "").split()],
        "cores": os.cpu_count(),
        "threads": threads,
        **{name: os.environ[name] for name in LOWERED if name in os.environ},
        # What else was running: above 0 at the start, the figures are not those of an idle machine.
        "load_average": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _cpuinfo() -> dict[str, str]:
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}


def decode_limit(shape: Shape, batch: int, dtype: str) -> dict[str, dict]:
    """A step of `batch` rows through all linear layers and the head, by way: {gflops, tokens_per_second}."""
    products = {size: times * shape.layers for size, times in shape.linears().items()}
    products[shape.vocabulary, shape.hidden] = 1
    operations = 2 * batch * (shape.weights() + shape.head_weights())
    return {
        way: {"gflops": round(operations / seconds / 1e9), "tokens_per_second": batch / seconds}
        for way, seconds in _seconds(products, batch, shape.layers, dtype, backward=False).items()
    }


def training_limit(shape: Shape, rows: int, answers: float, dtype: str) -> dict[str, dict]:
    """Forward and backward through the frozen linear layers, by way: {gflops, tokens_per_second}.

    Four operations per weight and token: two forward, two for the gradient of the layer's input; frozen weights need
    none of their own, and an adapter's are not counted. All linear layers take part once for each of the `rows` tokens
    that are multiplied at once; the head takes part at the positions that are learned, the share `answers` of all
    tokens.
    """
    products = {size: times * shape.layers for size, times in shape.linears().items()}
    head = {(shape.vocabulary, shape.hidden): 1}
    learned = max(1, round(rows * answers))
    whole = _seconds(products, rows, shape.layers, dtype, backward=True)
    last = _seconds(head, learned, 1, dtype, backward=True)
    operations = 4 * (rows * shape.weights() + learned * shape.head_weights())
    found = {}
    for way in (way for way in whole if way in last):
        seconds = whole[way] + last[way]
        found[way] = {"gflops": round(operations / seconds / 1e9), "tokens_per_second": rows / seconds}
    return found


def _seconds(products: dict[tuple[int, int], int], rows: int, layers: int, dtype: str, backward: bool) -> dict:
    """The seconds that all products take together, by way; a way that the machine lacks is left out."""
    import torch

    kind = getattr(torch, dtype)
    total: dict[str, float] = {}
    with torch.inference_mode():
        for (outputs, inputs), times in products.items():
            number = min(layers, times)
            weights = [torch.randn(outputs, inputs).to(kind) for _ in range(number)]
            forward = torch.randn(rows, inputs).to(kind)
            ways = _ways(weights, forward)
            if backward:
                back = torch.randn(rows, outputs).to(kind)
                for way, product in _ways([weight.t().contiguous() for weight in weights], back).items():
                    ways[way + " back"] = product
            for way, product in ways.items():
                total[way] = total.get(way, 0.0) + times * _best(product, number)
    found = {"linear": total["linear"]}
    if "packed" in total:
        found["packed"] = total["packed"]
    return {way: seconds + total.get(f"{way} back", 0.0) for way, seconds in found.items()}


def _ways(weights: list, rows) -> dict[str, Callable[[int], object]]:
    """The products of `rows` with each of the weights, by way."""
    import torch

    ways = {"linear": lambda place: torch.nn.functional.linear(rows, weights[place])}
    try:
        packed = [torch.ops.mkldnn._reorder_linear_weight(weight, rows.shape[0]) for weight in weights]
        torch.ops.mkldnn._linear_pointwise(rows, packed[0], None, "none", [], "")
    except (AttributeError, NotImplementedError, RuntimeError):  # without oneDNN, or without the instructions for it
        return ways
    ways["packed"] = lambda place: torch.ops.mkldnn._linear_pointwise(rows, packed[place], None, "none", [], "")
    return ways


def _best(product: Callable[[int], object], number: int) -> float:
    """The seconds of one product: the shortest of some rounds, each through all weights."""
    product(0)
    # Short products are repeated until the clock can tell.
    began = time.perf_counter()
    product(0)
    repeats = max(1, round(0.02 / max(1e-9, (time.perf_counter() - began) * number)))
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(repeats):
            for place in range(number):
                product(place)
        best = min(best, (time.perf_counter() - began) / (repeats * number))
    return best
