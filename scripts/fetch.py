"""Fetches one raw file of a benchmark and checks its sha256."""

import argparse
from pathlib import Path

from selfrefine import cli
from selfrefine.provenance import Run
from selfrefine.sources import Source, fetch


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_recipe(parser, Source)
    parser.add_argument("--output", required=True, type=Path, help="the raw file")
    cli.add_provenance(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    with Run(__file__, args.recipe.model_dump(), args.recipe.local_files(), args.provenance) as run:
        if not run.made:
            fetch(args.recipe, args.output)
            run.record([args.output])


if __name__ == "__main__":
    cli.run(main)
