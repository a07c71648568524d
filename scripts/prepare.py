"""Turns a benchmark's raw file into checked items of one split: unique, balanced, and disjoint from the test split.

With --provenance it writes the counts of what was read, dropped and kept.
"""

import argparse
from pathlib import Path

from selfrefine import benchmarks, cli
from selfrefine.files import write_jsonl
from selfrefine.provenance import Run


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_recipe(parser, benchmarks.Recipe)
    parser.add_argument("--raw", required=True, type=Path, help="the raw file")
    parser.add_argument("--held-out", type=Path, help="the test split, which a training split must not repeat")
    parser.add_argument("--output", required=True, type=Path, help="one item a line")
    cli.add_provenance(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    inputs = [args.raw, *([args.held_out] if args.held_out else [])]
    with Run(__file__, args.recipe.model_dump(), inputs, args.provenance) as run:
        if not run.made:
            held_out = list(benchmarks.read_items(args.held_out).values()) if args.held_out else []
            items, counts = benchmarks.prepare(args.raw, args.recipe, held_out)
            write_jsonl(args.output, items)
            run.record([args.output], **counts)


if __name__ == "__main__":
    cli.run(main)
