"""Turns a benchmark's raw file into the items of one split, checked for duplicates and balanced.

A training split repeats nothing of the test split of any benchmark that the study evaluates on. The record counts what
was read, dropped and kept.
"""

import argparse
from pathlib import Path

from selfrefine.data.items import read_items
from selfrefine.data.splits import prepare
from selfrefine.programs import cli
from selfrefine.schema.stages import PrepareSettings
from selfrefine.store.files import write_jsonl
from selfrefine.store.locations import place_of


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, PrepareSettings)
    parser.add_argument("--raw", required=True, type=cli.file_of("fetch"), help="the raw file")
    parser.add_argument(
        "--held-out",
        action="append",
        default=[],
        type=cli.file_of("prepare"),
        help="a test split that a training split must not repeat; may be given several times",
    )
    cli.add_record(parser)
    return parser.parse_args()


def benchmark_of(path: Path) -> str:
    """The benchmark whose test split a file is, by its place in the store."""
    place = place_of(path)
    return place.names[0].removesuffix("-test") if place else str(path)


def main() -> None:
    args = arguments()
    with cli.begin(__file__, args, [args.raw, *args.held_out]) as run:
        if not run.made:
            held_out = {benchmark_of(path): list(read_items(path).values()) for path in args.held_out}
            items, counts = prepare(args.raw, args.settings, held_out)
            write_jsonl(run.file, items)
            run.record([run.file], **counts)


if __name__ == "__main__":
    cli.run(main)
