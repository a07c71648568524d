"""Lays out one of the study's tables as CSV, Markdown and LaTeX (booktabs), with intervals.

transfer  one student's arms by what they were trained on, against what they are evaluated on (Tables 1, 10, 11)
teachers  accuracy of the teachers on train and test, by how they were asked (Table 5)
prompts   what is asked of whom, one question each (Table 6)
splits    sizes, answers and dropped rows of each split, with an example (Table 9)
lengths   tokens per answer, and how many more than before the training
solving   pass@k and maj@k of the sampled answers
pass-at-k pass@k and maj@k of several answers to each test item
yields    items that gave preference pairs, and why others did not
cost      wall time, tokens, money and energy of one checkpoint of each arm, by stage
chains    accuracy of the taught students by how long the demonstrations were that they learned from
"""

import argparse
from pathlib import Path

from selfrefine.programs import cli
from selfrefine.report import paper_tables
from selfrefine.report.chain_table import chains
from selfrefine.report.formats import Table
from selfrefine.report.model_names import Models
from selfrefine.report.selection import of_layout, whole
from selfrefine.report.study_tables import StudyTables
from selfrefine.schema.stages import LayoutSettings
from selfrefine.store.files import whole_file
from selfrefine.store.locations import LAYOUT_FORMATS, table_file
from selfrefine.study.figures_and_layouts import LAYOUTS, name_of

FILES = ("answers", "items", "demonstrations")


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, LayoutSettings)
    cli.add_tables(parser)
    cli.add_record(parser)
    return parser.parse_args()


def lay_out(settings: LayoutSettings, tables: StudyTables) -> Table:
    """The table that the settings name, of the rows that it shows."""
    layout, student, titles = settings.layout, tables.models.student(settings.student), settings.titles
    match layout:
        case "transfer":
            tasks = list(dict.fromkeys(row["evaluation"] for row in whole(tables.arms())))
            return paper_tables.transfer(of_layout(layout, student, tables.arms()), titles, student, tasks)
        case "teachers":
            assert settings.level is not None, "the table of teachers has intervals"
            return paper_tables.teachers(settings.rows, titles, settings.level, settings.extractor)
        case "prompts":
            return paper_tables.prompts(settings.rows)
        case "splits":
            return paper_tables.splits(settings.rows, titles)
        case "lengths":
            return paper_tables.lengths(of_layout(layout, student, tables.lengths()), titles)
        case "solving":
            return paper_tables.solving(of_layout(layout, student, tables.solving()), titles)
        case "pass-at-k":
            return paper_tables.pass_at_k(of_layout(layout, student, tables.pass_at_k()), titles, student)
        case "yields":
            return paper_tables.yields(of_layout(layout, student, tables.pairs()), titles)
        case "cost":
            assert settings.costs is not None, "the table of costs has prices"
            return paper_tables.cost(of_layout(layout, student, tables.costs()), settings.costs)
        case "chains":
            assert settings.level is not None, "the table of chains has intervals"
            return chains(of_layout(layout, student, tables.arms()), titles, settings.rows, settings.level)


def main() -> None:
    args = arguments()
    settings: LayoutSettings = args.settings
    inputs = [table_file(args.tables, name) for name in LAYOUTS[settings.layout]]
    inputs += dict.fromkeys(Path(row[name]) for row in settings.rows for name in FILES if name in row)
    with cli.begin(__file__, args, inputs) as run:
        if run.made:
            return
        table = lay_out(settings, StudyTables(args.tables, Models.of(settings)))
        table.name = name = name_of(settings.layout, settings.student)
        texts = {"csv": table.csv(), "md": table.markdown(), "tex": table.latex()}
        paths = [run.folder / f"{name}.{form}" for form in LAYOUT_FORMATS]
        for path, form in zip(paths, LAYOUT_FORMATS, strict=True):
            with whole_file(path) as file:
                file.write(texts[form])
        run.record(paths)


if __name__ == "__main__":
    cli.run(main)
