"""Turns a benchmark's raw file into checked items of one split: unique, balanced, and disjoint from the test split.

The record has the counts of what was read, dropped and kept.
"""

import argparse

from selfrefine import benchmarks, cli
from selfrefine.files import write_jsonl


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_recipe(parser, benchmarks.Recipe)
    parser.add_argument("--raw", required=True, type=cli.file_of("fetch"), help="the raw file")
    parser.add_argument(
        "--held-out", type=cli.file_of("prepare"), help="the test split, which a training split must not repeat"
    )
    cli.add_record(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    inputs = [args.raw, *([args.held_out] if args.held_out else [])]
    with cli.begin(__file__, args, inputs) as run:
        if not run.made:
            held_out = list(benchmarks.read_items(args.held_out).values()) if args.held_out else []
            items, counts = benchmarks.prepare(args.raw, args.recipe, held_out)
            write_jsonl(run.file, items)
            run.record([run.file], **counts)


if __name__ == "__main__":
    cli.run(main)
