"""Tests the paper's seven claims (arXiv 2405.00402) and the study's own on its judged answers.

claims.md     the verdict on each claim, then every comparison behind it
claims.json   the same, with all numbers: both estimands, variance components, a test per seed, files of answers
"""

import argparse
import collections
from collections.abc import Sequence
from pathlib import Path

from selfrefine.analysis import verdicts
from selfrefine.analysis.comparing import Policy
from selfrefine.analysis.extension import Evaluated, undeclared_looks
from selfrefine.analysis.own_claims import claims_of
from selfrefine.analysis.registration import Registration, registration_of
from selfrefine.analysis.unrefined import Unrefined, unrefined_samples
from selfrefine.programs import cli
from selfrefine.report.model_names import Models
from selfrefine.report.verdict_tables import claims_page, with_titles
from selfrefine.schema.results import EvaluatedCell
from selfrefine.schema.stages import ClaimsSettings
from selfrefine.store.files import read_json, whole_file, write_json
from selfrefine.store.locations import VERDICTS, listing_file
from selfrefine.store.provenance import read_record, record_of
from selfrefine.store.register import entries


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, ClaimsSettings)
    cli.add_index(parser, "tables")
    parser.add_argument(
        "--policy", type=listing_file, help="the record of the policy; claims then say whether it was pre-registered"
    )
    cli.add_record(parser)
    return parser.parse_args()


def registration(policy: Path, cells: Sequence[EvaluatedCell]) -> tuple[Registration, list[int]]:
    """What became of the policy that the claims are judged by, and the looks that were taken and not declared."""
    asked, known = read_json(policy), entries()
    records = {cell["samples"]: read_record(record_of(Path(cell["samples"]))) for cell in cells}
    evaluations = {samples: record for samples, record in records.items() if record.stage == "evaluate"}
    evaluated = [
        Evaluated(cell["seed"], cell["evaluation"], evaluations[cell["samples"]].figures)
        for cell in cells
        if cell["samples"] in evaluations
    ]
    return registration_of(asked, known, list(evaluations.values())), undeclared_looks(asked, known, evaluated)


def main() -> None:
    args = arguments()
    settings: ClaimsSettings = args.settings
    index = cli.read_index(args.index)
    cells, logs = index["cells"], index["training"]
    samples = list(dict.fromkeys(Path(cell["samples"]) for cell in cells))
    inputs = [args.index, *([args.policy] if args.policy else []), *samples, *map(record_of, logs.values())]
    with cli.begin(__file__, args, inputs) as run:
        if run.made:
            return
        looks = tuple(settings.looks) if isinstance(settings.looks, list) else settings.looks
        found, taken = registration(args.policy, cells) if args.policy else (None, [])
        policy = Policy(settings.level, settings.margin / 100, looks, settings.spending, taken, settings.matched_length)
        unrefined = Unrefined.of(unrefined_samples(cells, logs), settings.count_unrefined)
        names = settings.titles, settings.students
        claims = claims_of(settings.claims)
        assessed = verdicts.assess_all(cells, settings.extractor, policy, *names, unrefined, claims)
        numbers = run.folder / VERDICTS
        given = settings.model_dump(exclude={"claims", "matched_length"} - settings.model_fields_set)
        judged = {"settings": given, "registration": found, "undeclared_looks": taken}
        write_json(numbers, {**judged, "claims": assessed})
        told = found["told"] if found else ""
        with whole_file(run.file) as file:
            shown = with_titles(assessed, Models.of(settings))
            file.write(claims_page(shown, settings.level, settings.margin, settings.titles, told))
        counts = collections.Counter(claim["verdict"] for claim in assessed)
        run.record([run.file, numbers], verdicts=dict(counts))


if __name__ == "__main__":
    cli.run(main)
