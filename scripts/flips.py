"""Judges the claims under every other choice that the data allow for: which verdicts flip.

flips.csv        each claim under each choice: verdict, kind of flip, and the comparison that the verdict hangs on
flips.md         the same in tables: flips by claim, by axis, and one by one
rejudged.jsonl   where math-verify is installed and the study's extractor is another: its verdicts on the kept answers
"""

import argparse
import collections
import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfrefine.analysis import choices
from selfrefine.analysis.comparing import Policy
from selfrefine.analysis.flip_kinds import FLIPS
from selfrefine.analysis.flips import Flips
from selfrefine.analysis.kept_answers import KeptAnswers
from selfrefine.analysis.own_claims import claims_of
from selfrefine.analysis.unrefined import unrefined_samples
from selfrefine.answers.extraction import MATH_VERIFY
from selfrefine.errors import UserError
from selfrefine.judging.rejudging import rejudge
from selfrefine.judging.sampled_paths import refuse_missing
from selfrefine.programs import cli
from selfrefine.report.flip_tables import flips_page
from selfrefine.report.model_names import Models
from selfrefine.schema.claim_results import FlipRow
from selfrefine.schema.claims import Claims
from selfrefine.schema.results import EvaluatedCell
from selfrefine.schema.stages import FlipsSettings
from selfrefine.store.files import read_json, whole_file, write_jsonl
from selfrefine.store.locations import FLIPS_PAGE, REJUDGED, VERDICTS
from selfrefine.store.provenance import read_record, record_of


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, FlipsSettings)
    cli.add_index(parser, "flips")
    parser.add_argument(
        "--claims",
        required=True,
        type=lambda text: Path(text).with_name(VERDICTS),
        help="the record of the verdicts on the claims",
    )
    cli.add_record(parser)
    return parser.parse_args()


def engines_of(cells: list[EvaluatedCell]) -> dict[str, str]:
    """By file of judged answers, what generated them; without the teachers'."""
    records = {cell["samples"]: read_record(record_of(Path(cell["samples"]))) for cell in cells}
    return {name: record.settings["engine"] for name, record in records.items() if record.stage == "evaluate"}


def rejudged_by(settings: FlipsSettings, extractor: str, index: Mapping[str, Any]) -> dict[Path, str]:
    """math-verify's verdicts by file, where the study's own extractor is another."""
    if MATH_VERIFY not in settings.extractors or extractor == MATH_VERIFY:
        return {}
    refuse_missing(MATH_VERIFY)
    files = {Path(cell["samples"]): cell["evaluation"] for cell in index["cells"]}
    files |= {
        Path(styled[str(path)]): of
        for styled in index["styles"].values()
        for path, of in [*files.items()]
        if str(path) in styled
    }
    return rejudge(files, {task: Path(place) for task, place in index["tasks"].items()})


def main() -> None:
    args = arguments()
    settings: FlipsSettings = args.settings
    index = cli.read_index(args.index)
    cells, logs = index["cells"], index["training"]
    samples = [cell["samples"] for cell in cells] + [path for of in index["styles"].values() for path in of.values()]
    files = [Path(path) for path in dict.fromkeys(samples)]
    inputs = [args.index, args.claims, *files, *map(Path, index["tasks"].values()), *map(record_of, logs.values())]
    with cli.begin(__file__, args, inputs) as run:
        if run.made:
            return
        judged = read_json(args.claims)
        own = judged["settings"]
        extractor, counted = own["extractor"], own["count_unrefined"]
        looks = tuple(own["looks"]) if isinstance(own["looks"], list) else own["looks"]
        policy = Policy(own["level"], own["margin"] / 100, looks, own["spending"], judged["undeclared_looks"])
        rejudged = rejudged_by(settings, extractor, index)
        answers = KeptAnswers(
            files, settings.extractors, {path: {MATH_VERIFY: verdicts} for path, verdicts in rejudged.items()}
        )
        unrefined = frozenset(map(Path, unrefined_samples(cells, logs)))
        known = choices.Known(
            settings.extractors, settings.style, index["styles"], engines_of(cells), bool(unrefined), settings.lacking
        )
        configured = choices.configured_choice(cells, extractor, policy, counted)
        claims = claims_of(Claims.model_validate(own.get("claims", {})))
        flips = Flips(choices.choices_of(configured, known), answers, unrefined, claims)
        said = {(claim["claim"], claim["recipe"]): claim["verdict"] for claim in judged["claims"]}
        found = {named: one.verdict for named, one in flips.configured.items()}
        if said != found:
            raise UserError(f"{args.claims}: other verdicts than the answers give; make the claims again")
        rows = flips.rows()
        with whole_file(run.file) as file:
            writer = csv.DictWriter(file, list(FlipRow.__annotations__), lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
        page = run.folder / FLIPS_PAGE
        with whole_file(page) as file:
            file.write(flips_page([Models.of(settings).titled(row) for row in rows], settings.titles))
        outputs = [run.file, page]
        if rejudged:
            outputs.append(run.folder / REJUDGED)
            write_jsonl(outputs[-1], [{"samples": str(path), MATH_VERIFY: text} for path, text in rejudged.items()])
        counts = collections.Counter(row["flip"] for row in rows)
        run.record(outputs, flips={kind: counts[kind] for kind in FLIPS})


def _cell(value: object) -> object:
    """A number as the other tables have it: six digits, and nothing where there is none."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    return value


if __name__ == "__main__":
    cli.run(main)
