"""Fetches one raw file of a benchmark and checks its sha256."""

import argparse

from selfrefine.data.fetching import fetch
from selfrefine.programs import cli
from selfrefine.schema.stages import FetchSettings


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, FetchSettings)
    cli.add_source(parser)
    cli.add_record(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    with cli.begin(__file__, args, []) as run:
        if not run.made:
            path = run.folder / f"raw{args.source.suffix}"
            fetch(args.source, path)
            run.record([path], source=args.source.model_dump())


if __name__ == "__main__":
    cli.run(main)
