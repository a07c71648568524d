"""Writes a benchmark's test split as an lm-eval task that anyone can run with `lm_eval --include_path`."""

import argparse
from pathlib import Path

from selfrefine import cli
from selfrefine.benchmarks import read_items
from selfrefine.provenance import Run
from selfrefine.tasks import TaskRecipe, export_task


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_recipe(parser, TaskRecipe)
    parser.add_argument("--items", required=True, type=Path, help="the test items")
    parser.add_argument("--yaml", required=True, type=Path, help="the task; docs.jsonl and answers.py go beside it")
    cli.add_provenance(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    folder = args.yaml.parent
    with Run(__file__, args.recipe.model_dump(), [args.items], args.provenance) as run:
        if not run.made:
            export_task(read_items(args.items), args.recipe, folder)
            run.record([args.yaml, folder / "docs.jsonl", folder / "answers.py"])


if __name__ == "__main__":
    cli.run(main)
