"""Writes the study's summary for a person to read.

summary.md   one screen: verdicts, the most telling numbers, cost, where to look on
details.md   the long form: all accuracies and differences, lengths, yields, costs by stage, sources and licences
"""

import argparse
from pathlib import Path

from selfrefine.programs import cli
from selfrefine.report.details import details
from selfrefine.report.flip_tables import read_flips, summary_line
from selfrefine.report.model_names import Models
from selfrefine.report.study_tables import StudyTables
from selfrefine.report.summary import summary
from selfrefine.schema.stages import SummariseSettings
from selfrefine.store.files import read_json, whole_file
from selfrefine.store.locations import DETAILS, TABLES, VERDICTS, table_file


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, SummariseSettings)
    cli.add_tables(parser, required=True)
    parser.add_argument(
        "--claims",
        required=True,
        type=lambda text: Path(text).with_name(VERDICTS),
        help="the record of the verdicts on the claims",
    )
    cli.add_flips(parser)
    cli.add_record(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    settings: SummariseSettings = args.settings
    inputs = [*(table_file(args.tables, name) for name in TABLES), args.claims, args.flips]
    with cli.begin(__file__, args, inputs) as run:
        if run.made:
            return
        tables, long_form = StudyTables(args.tables, Models.of(settings)), run.folder / DETAILS
        judged = read_json(args.claims)
        counts_unrefined = judged["settings"]["count_unrefined"]
        registration = judged.get("registration") or {}
        with whole_file(run.file) as file:
            told = registration.get("told", "")
            flips = summary_line(read_flips(args.flips))
            file.write(summary(tables, judged["claims"], settings.titles, counts_unrefined, told, flips))
        with whole_file(long_form) as file:
            file.write(details(tables, settings.titles, settings.sources, settings.costs))
        run.record([run.file, long_form])


if __name__ == "__main__":
    cli.run(main)
