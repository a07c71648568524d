"""Selects the teacher's answers that the student learns from; counts those dropped, by reason."""

import argparse

from selfrefine.data.demonstrations import demonstrations
from selfrefine.errors import UserError
from selfrefine.programs import cli
from selfrefine.schema.stages import DemonstrateSettings
from selfrefine.store.files import read_jsonl, write_jsonl
from selfrefine.store.run import Run


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, DemonstrateSettings)
    parser.add_argument("--answers", required=True, type=cli.file_of("teach"), help="the teacher's judged answers")
    cli.add_record(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    with cli.begin(__file__, args, [args.answers]) as run:
        if not run.made:
            demonstrate(args, run)


def demonstrate(args: argparse.Namespace, run: Run) -> None:
    kept, counts = demonstrations(read_jsonl(args.answers), args.settings)
    if not kept:
        raise UserError(
            f"{args.answers}: none of {counts['answers']} answers is kept ({counts['dropped']}); read some of them, "
            "then correct "
            "the teacher's prompt or set `keep_wrong` in `demonstrations`"
        )
    write_jsonl(run.file, kept)
    run.record([run.file], demonstrations=counts)


if __name__ == "__main__":
    cli.run(main)
