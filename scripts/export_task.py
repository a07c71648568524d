"""Writes a benchmark's test split as an lm-eval task that anyone can run with `lm_eval --include_path`."""

import argparse

from selfrefine import cli
from selfrefine.benchmarks import read_items
from selfrefine.tasks import TaskRecipe, export_task


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_recipe(parser, TaskRecipe)
    parser.add_argument("--items", required=True, type=cli.file_of("prepare"), help="the test items")
    cli.add_record(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    with cli.begin(__file__, args, [args.items]) as run:
        if not run.made:
            run.record(export_task(read_items(args.items), args.recipe, run.folder))


if __name__ == "__main__":
    cli.run(main)
