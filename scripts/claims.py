"""Tests the paper's seven claims (Ranaldi & Freitas, arXiv 2405.00402) on the study's judged answers.

claims.md     the verdict on each claim, then every comparison behind it
claims.json   the same, with all numbers: accuracies, variance components, a test per seed, files of answers
"""

import argparse
import collections
from pathlib import Path

from selfrefine.analysis import verdicts
from selfrefine.programs import cli
from selfrefine.report.verdict_tables import claims_page
from selfrefine.schema.stages import ClaimsSettings
from selfrefine.store.files import whole_file, write_json
from selfrefine.store.locations import VERDICTS


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, ClaimsSettings)
    cli.add_index(parser, "tables")
    cli.add_record(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    settings: ClaimsSettings = args.settings
    cells = cli.read_index(args.index)["cells"]
    inputs = [args.index, *dict.fromkeys(Path(cell["samples"]) for cell in cells)]
    with cli.begin(__file__, args, inputs) as run:
        if run.made:
            return
        assessed = verdicts.assess_all(cells, settings.extractor, settings.level, settings.margin / 100)
        numbers = run.folder / VERDICTS
        write_json(numbers, {"settings": settings.model_dump(), "claims": assessed})
        with whole_file(run.file) as file:
            file.write(claims_page(assessed, settings.level, settings.margin, settings.titles))
        counts = collections.Counter(claim["verdict"] for claim in assessed)
        run.record([run.file, numbers], verdicts=dict(counts))


if __name__ == "__main__":
    cli.run(main)
