"""Picks the teacher's answers that the student will learn from; says how many were dropped, and why."""

import argparse
from pathlib import Path

from selfrefine import cli
from selfrefine.errors import UserError
from selfrefine.files import read_jsonl, write_jsonl
from selfrefine.provenance import Run
from selfrefine.teaching import Keeping, demonstrations


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_recipe(parser, Keeping)
    parser.add_argument("--answers", required=True, type=Path, help="the teacher's judged answers")
    parser.add_argument("--output", required=True, type=Path, help="one demonstration a line")
    cli.add_provenance(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    with Run(__file__, args.recipe.model_dump(), [args.answers], args.provenance) as run:
        if not run.made:
            demonstrate(args, run)


def demonstrate(args: argparse.Namespace, run: Run) -> None:
    kept, counts = demonstrations(read_jsonl(args.answers), args.recipe)
    if not kept:
        raise UserError(
            f"{args.answers}: none of {counts['answers']} answers is kept ({counts['dropped']}); read some of them, then correct "
            "the teacher's prompt or set `keep_wrong` in `demonstrations`"
        )
    write_jsonl(args.output, kept)
    run.record([args.output], demonstrations=counts)


if __name__ == "__main__":
    cli.run(main)
