"""Makes preference pairs from sampled paths and, if the preference recipe asks, demonstrations."""

import argparse

from selfrefine.errors import UserError
from selfrefine.programs import cli
from selfrefine.schema.stages import PairSettings
from selfrefine.store.files import read_jsonl, write_jsonl
from selfrefine.store.run import Run
from selfrefine.training.pairs import make_pairs


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, PairSettings)
    parser.add_argument("--paths", required=True, type=cli.file_of("sample"), help="the sampled paths")
    parser.add_argument(
        "--demonstrations",
        type=cli.file_of("demonstrate"),
        help="the teacher's demonstrations, for preference recipes that use them",
    )
    cli.add_record(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    inputs = [args.paths, *([args.demonstrations] if args.demonstrations else [])]
    with cli.begin(__file__, args, inputs) as run:
        if not run.made:
            pair(args, run)


def pair(args: argparse.Namespace, run: Run) -> None:
    if args.settings.preference.needs_teacher and args.demonstrations is None:
        raise UserError("the preference recipe uses a teacher's demonstrations; name them with --demonstrations")
    demonstrations = read_jsonl(args.demonstrations) if args.demonstrations else []
    pairs, counts = make_pairs(read_jsonl(args.paths), demonstrations, args.settings)
    if not counts["train"] or not counts["validation"]:
        print(
            f"{args.paths}: {counts['train']} training and {counts['validation']} validation pairs from "
            f"{counts['items']} items "
            f"(dropped: {counts['dropped']}): the student will be left as it is; sample more paths per item or more "
            "items, "
            "or loosen the recipe",
            flush=True,
        )
    write_jsonl(run.file, pairs)
    run.record([run.file], pairs=counts)


if __name__ == "__main__":
    cli.run(main)
