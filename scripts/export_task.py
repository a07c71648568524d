"""Exports a benchmark's test split as an lm-eval task, to be run with `lm_eval --include_path`."""

import argparse

from selfrefine.data.items import read_items
from selfrefine.data.shots import items_to_show, refuse_shown
from selfrefine.judging.lm_eval_task import export_task
from selfrefine.programs import cli
from selfrefine.schema.stages import ExportTaskSettings


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, ExportTaskSettings)
    parser.add_argument("--items", required=True, type=cli.file_of("prepare"), help="the test items")
    cli.add_shots(parser)
    cli.add_record(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    with cli.begin(__file__, args, [args.items, *cli.shots_given(args)]) as run:
        if not run.made:
            items, shots = read_items(args.items), items_to_show(args.settings.prompt, args.shots)
            refuse_shown(items, shots, args.items)
            run.record(export_task(items, args.settings, run.folder, shots))


if __name__ == "__main__":
    cli.run(main)
