"""How fast this machine multiplies a model's weights, measured in a process of its own.

`python -m selfrefine.models.rate` prints {computed_in, gflops} as JSON: the dtype that weights are multiplied in, and
billions of floating-point operations a second in a product of 64 rows, as in decoding, with weights laid out as engine
`transformers` has them; null where a GPU computes.
"""

import argparse
import json
from typing import get_args

from selfrefine.models.compute import PRODUCT, bound_threads, computed_in
from selfrefine.schema.assumptions import Rate
from selfrefine.schema.generation import Compute, Dtype


def measure(dtype: Dtype, compute: Compute, threads: int) -> Rate:
    """The rate with which this process multiplies weights of a dtype; call it before torch is imported."""
    bound_threads(threads)
    import torch

    from selfrefine.models.onednn import best_product

    computed = computed_in(dtype, compute)
    if torch.cuda.is_available():
        return {"computed_in": computed, "gflops": None}
    rows, inner, outer = PRODUCT
    seconds = best_product(getattr(torch, computed))
    return {"computed_in": computed, "gflops": round(2 * rows * inner * outer / seconds / 1e9)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=get_args(Dtype), default="bfloat16", help="of the weights")
    parser.add_argument("--compute", choices=get_args(Compute), default="auto", help="what they are multiplied in")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    print(json.dumps(measure(args.dtype, args.compute, args.threads)))


if __name__ == "__main__":
    main()
