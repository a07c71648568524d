"""Says as JSON what this machine multiplies a model's weights in, and how fast, {computed_in, gflops}.

`gflops`: billions of floating-point operations a second in a product of 64 rows, as in decoding, with weights laid out as
engine `transformers` has them; null where a GPU computes.
"""

import json

from selfrefine import cli


def main() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("--dtype", default="bfloat16", help="of the weights; default: bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    cli.add_compute(parser)
    args = parser.parse_args()
    from selfrefine.computing import PRODUCT, bound_threads, computed_in

    bound_threads(args.threads)
    import torch

    from selfrefine.linear import best_product

    computed = computed_in(args.dtype, args.compute)
    rows, inner, outer = PRODUCT
    gflops = None
    if not torch.cuda.is_available():
        gflops = round(2 * rows * inner * outer / best_product(getattr(torch, computed)) / 1e9)
    print(json.dumps({"computed_in": computed, "gflops": gflops}))


if __name__ == "__main__":
    cli.run(main)
