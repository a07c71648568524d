"""How long choosing items takes: data/spread.py beside a published algorithm, and beside determinants computed anew.

    python bench/choosing.py                        all three, with the same order of items
    python bench/choosing.py --items 100000 --number 500

`cholesky` is Algorithm 1 of Chen, Zhang and Zhou (arXiv 1709.05135), as its authors published it: on a whole kernel,
whose n x n numbers count in its memory, with an n x k factor. `determinants` is the definition.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from selfrefine.data.spread import spread

# Above so many items, a kernel takes too much memory; above so many, determinants take too long.
KERNEL, DETERMINANTS = 20_000, 300


def drawn(items: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of length 1 around a common direction, as hidden states lie, and logarithms of qualities."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(items, width)) / np.sqrt(width) + random.normal(size=width) / np.sqrt(width)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), random.normal(scale=0.5, size=items)


def cholesky(vectors: np.ndarray, number: int, log_quality: np.ndarray) -> list[int]:
    """The published algorithm, its kernel included."""
    weighted = np.exp(log_quality)[:, None] * vectors
    kernel = weighted @ weighted.T
    left, rows = np.diag(kernel).copy(), np.zeros((number, len(kernel)))
    taken = [int(np.argmax(left))]
    while len(taken) < number:
        step, last = len(taken) - 1, taken[-1]
        rows[step] = (kernel[last] - rows[:step, last] @ rows[:step]) / np.sqrt(left[last])
        left -= np.square(rows[step])
        left[last] = -np.inf
        taken.append(int(np.argmax(left)))
    return taken


def determinants(vectors: np.ndarray, number: int, log_quality: np.ndarray) -> list[int]:
    """The definition: the determinant of each candidate set."""
    weighted = np.exp(log_quality)[:, None] * vectors
    kernel = weighted @ weighted.T
    taken: list[int] = []
    for _ in range(number):
        rest = [place for place in range(len(kernel)) if place not in taken]
        sets = [np.ix_([*taken, place], [*taken, place]) for place in rest]
        taken.append(rest[int(np.argmax([np.linalg.slogdet(kernel[one])[1] for one in sets]))])
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[200, 4000, 16_000])
    parser.add_argument("--number", type=int, help="how many are chosen; a quarter of the items, unless given")
    parser.add_argument("--width", type=int, default=576)
    args = parser.parse_args()
    for items in args.items:
        # The others have no rounds.
        number = min(args.number or items // 4, args.width)
        vectors, quality = drawn(items, args.width)
        ways: dict[str, Callable[..., list[int]]] = {"spread": lambda *of: spread(*of).taken}
        ways |= {"cholesky": cholesky} if items <= KERNEL else {}
        ways |= {"determinants": determinants} if items <= DETERMINANTS else {}
        found = {}
        for name, way in ways.items():
            began = time.perf_counter()
            found[name] = way(vectors, number, quality)
            seconds = time.perf_counter() - began
            same = "" if found[name] == found["spread"] else ", another order"
            print(f"{items:,} items, {number} chosen: {name} {seconds:.2f} s{same}", flush=True)


if __name__ == "__main__":
    main()
