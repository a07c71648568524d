"""Turns a benchmark's raw file into the items of one split, checked for duplicates and balanced.

A training split repeats nothing of the test split. The record counts what was read, dropped and kept.
"""

import argparse

from selfrefine.data.items import read_items
from selfrefine.data.splits import prepare
from selfrefine.programs import cli
from selfrefine.schema.stages import PrepareSettings
from selfrefine.store.files import write_jsonl


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, PrepareSettings)
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
            held_out = list(read_items(args.held_out).values()) if args.held_out else []
            items, counts = prepare(args.raw, args.settings, held_out)
            write_jsonl(run.file, items)
            run.record([run.file], **counts)


if __name__ == "__main__":
    cli.run(main)
