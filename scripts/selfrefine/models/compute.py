"""What this machine multiplies weights in (their dtype if that is fast here, else float32).

A student's `dtype` says what its weights are: stored, merged and rounded. The dtype in which they are multiplied
depends on the machine. On processors with AVX2 alone, torch's bfloat16 is 4 to 18 times slower than its float32
(https://github.com/pytorch/pytorch/issues/146508); with AVX512-BF16 or AMX it is two to four times faster. Every
bfloat16 and float16 number is a float32 number too, so the weights are the same either way.
"""

import functools
import os
import time
from collections.abc import Callable

from selfrefine.schema.generation import Compute, Dtype

# Rows, inner and outer size of the timed products: a batch of decoded tokens in a small model.
PRODUCT = (64, 768, 768)
# How much faster than float32 a narrower dtype has to be, so that noise does not decide.
GAIN = 1.2
# How much faster oneDNN has to be than what torch calls by itself.
ONEDNN_GAIN = 1.05
# How often a waiting thread polls before it sleeps: some microseconds. OpenMP's own 300,000 polls keep the core busy.
# With a third process on two cores, stages took forty times as long (https://github.com/mlpack/mlpack/issues/1858). On
# an idle machine, fewer polls cost a few percent at most.
POLLS = "1000"


def bound_threads(threads: int) -> None:
    """Sets the number of torch's threads; call it before torch is imported. A `GOMP_SPINCOUNT` that is set is kept."""
    os.environ.setdefault("GOMP_SPINCOUNT", POLLS)
    import torch

    torch.set_num_threads(threads)


def computed_in(dtype: Dtype, wanted: Compute = "auto") -> Dtype:
    """The dtype in which weights of `dtype` are multiplied on this machine; `wanted` overrides the machine's choice.

    On a GPU without bfloat16 (compute capability below 8), bfloat16 weights are multiplied in float32: their values may
    exceed float16's range. float16 weights stay in float16. On a CPU, a timed product of a few milliseconds decides.
    """
    if wanted != "auto":
        return wanted
    if dtype == "float32":
        return dtype
    import torch

    if torch.cuda.is_available():
        fast = dtype == "float16" or torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = _is_faster_than_float32(dtype)
    return dtype if fast else "float32"


@functools.cache
def _is_faster_than_float32(dtype: str) -> bool:
    """Whether this processor multiplies `dtype` faster than float32."""
    narrow, wide = best_seconds(*(_product(kind) for kind in (dtype, "float32")))
    return narrow * GAIN < wide


def _product(dtype: str) -> Callable[[], object]:
    import torch

    rows, inner, outer = PRODUCT
    left, right = (torch.ones(size, inner, dtype=getattr(torch, dtype)) for size in (rows, outer))
    return lambda: torch.nn.functional.linear(left, right)


def best_seconds(*products: Callable[[], object], rounds: int = 8, threads: int = 1) -> list[float]:
    """The shortest time of each product over `rounds` in which they take turns.

    Compare with one thread: where other programs keep the cores busy, times of several threads say little.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    best = [float("inf")] * len(products)
    try:
        with torch.inference_mode():
            for _ in range(rounds):
                for place, product in enumerate(products):
                    began = time.perf_counter()
                    product()
                    best[place] = min(best[place], time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
    return best
