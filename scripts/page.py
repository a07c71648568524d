"""Writes index.html: verdicts, figures, tables and a reader of every response, in one file.

It opens without a network or a server, and is made to be sent: about 2 MB for the quickstart, and 10 MB for 10,000
items with four answers of 200 characters each. Beyond 100,000 responses it shows the first items of each benchmark and
says so.
"""

import argparse
import csv
from pathlib import Path

from selfrefine.programs import cli
from selfrefine.report.flip_tables import read_flips
from selfrefine.report.model_names import Models
from selfrefine.report.page.assemble import assemble
from selfrefine.report.page.model_titles import model_title
from selfrefine.report.page.page_inputs import PageIndex, PageInputs
from selfrefine.report.page.stock_answers import stock_documents
from selfrefine.report.study_tables import StudyTables
from selfrefine.schema.stages import PageSettings
from selfrefine.store.files import read_json, whole_file
from selfrefine.store.locations import LISTINGS, TABLES, VERDICTS, table_file
from selfrefine.store.provenance import record_of


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, PageSettings)
    cli.add_index(parser, "page")
    cli.add_tables(parser, required=True)
    for flag, help_text in (
        ("configuration", "the record of the study's configuration"),
        ("used-sources", "the record of the list of sources"),
        ("claims", "the record of the verdicts"),
    ):
        parser.add_argument(f"--{flag}", required=True, type=Path, help=help_text)
    parser.add_argument("--figures", nargs="+", default=[], type=Path, help="the records of the figures")
    parser.add_argument("--layouts", nargs="+", default=[], type=Path, help="the records of the laid-out tables")
    cli.add_flips(parser)
    cli.add_record(parser)
    return parser.parse_args()


def by_name(records: list[Path], suffix: str) -> dict[str, Path]:
    """The files of figures or laid-out tables by their names."""
    names = (record.parent.parent.name for record in records)
    return {name: record.with_name(f"{name}.{suffix}") for name, record in zip(names, records, strict=True)}


def main() -> None:
    args = arguments()
    settings: PageSettings = args.settings
    index: PageIndex = cli.read_index(args.index)
    files = {
        "claims": args.claims.with_name(VERDICTS),
        "configuration": args.configuration.with_name(LISTINGS["configuration"]),
        "sources": args.used_sources.with_name(LISTINGS["sources"]),
    }
    figures, layouts = by_name(args.figures, "svg"), by_name(args.layouts, "csv")
    tables = [table_file(args.tables, name) for name in TABLES]
    responses = [*index["answers"], *index["paths"], *index["pairs"], *(cell["samples"] for cell in index["cells"])]
    documents = stock_documents(index["cells"], index["tasks"])
    data = [*index["tasks"].values(), *index["items"].values(), *index["shots"].values(), *documents, *responses]
    read = [args.index, args.flips, *files.values(), *tables, *figures.values(), *layouts.values(), *map(Path, data)]
    # How responses were asked for, and with what they were made, stands in records.
    records = [*map(Path, index["records"]), *map(record_of, [*index["tasks"].values(), *figures.values()])]
    with cli.begin(__file__, args, [*dict.fromkeys([*read, *records])]) as run:
        if run.made:
            return
        verdicts = read_json(files["claims"])
        with open(files["sources"], encoding="utf-8", newline="") as file:
            sources = list(csv.DictReader(file))
        inputs = PageInputs(
            index=index,
            tables=StudyTables(args.tables),
            claims=verdicts["claims"],
            flips=read_flips(args.flips),
            level=verdicts["settings"]["level"],
            margin=verdicts["settings"]["margin"],
            extractor=verdicts["settings"]["extractor"],
            titles=settings.titles,
            models=Models.of(settings, model_title),
            counts_unrefined=verdicts["settings"]["count_unrefined"],
            figures=figures,
            layouts=layouts,
            configuration=files["configuration"].read_text("utf-8"),
            sources=sources,
            registration=(verdicts.get("registration") or {}).get("told", ""),
        )
        with whole_file(run.file) as file:
            file.write(assemble(inputs))
        run.record([run.file])


if __name__ == "__main__":
    cli.run(main)
