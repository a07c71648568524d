"""Lays out one of the study's tables as CSV, Markdown and LaTeX (booktabs), with intervals.

transfer  arms of one student by what they were trained on, against what they are evaluated on (the paper's Tables 1, 10, 11)
teachers  accuracy of the teachers on train and test, by how they were asked (Table 5)
prompts   what is asked of whom, one question each (Table 6)
splits    sizes, answers and dropped records of each split, with an example (Table 9)
lengths   tokens per answer, and how many more than before the training
solving   pass@k and maj@k of the sampled answers
yields    items that gave preference pairs, and why others did not
cost      wall time and tokens of one checkpoint of each arm, by stage
"""

import argparse
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from selfrefine import cli, layout
from selfrefine.arms import read_table
from selfrefine.files import whole_file
from selfrefine.formats import Table
from selfrefine.outputs import LAYOUTS, name_of

FILES = ("answers", "items")


class LayoutRecipe(BaseModel):
    """What the layout stage reads beside the tables."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layout: str = Field(pattern=f"^({'|'.join(LAYOUTS)})$", description=f"One of {', '.join(LAYOUTS)}.")
    student: str = Field("", description="Whose table it is (transfer).")
    titles: dict[str, str] = Field({}, description="What the table calls each benchmark.")
    rows: list[dict] = Field([], description="What is shown, with the files behind it (teachers, prompts, splits).")
    level: float | None = Field(None, description="Of the intervals (teachers).")
    extractor: str = Field("", description="Whose verdict counts (teachers).")


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_recipe(parser, LayoutRecipe)
    cli.add_tables(parser)
    cli.add_record(parser)
    return parser.parse_args()


def lay_out(recipe: LayoutRecipe, folder: Path) -> Table:
    """The table that a recipe names."""
    tables = [read_table(folder, name) for name in LAYOUTS[recipe.layout]]
    match recipe.layout:
        case "transfer":
            return layout.transfer(*tables, recipe.titles, recipe.student)
        case "teachers":
            return layout.teachers(recipe.rows, recipe.titles, recipe.level, recipe.extractor)
        case "prompts":
            return layout.prompts(recipe.rows)
        case "splits":
            return layout.splits(recipe.rows, recipe.titles)
        case "lengths":
            return layout.lengths(*tables, recipe.titles)
        case "solving":
            return layout.solving(*tables, recipe.titles)
        case "yields":
            return layout.yields(*tables, recipe.titles)
        case "cost":
            return layout.cost(*tables)


def main() -> None:
    args = arguments()
    inputs = [args.tables / f"{name}.csv" for name in LAYOUTS[args.recipe.layout]]
    inputs += dict.fromkeys(Path(row[name]) for row in args.recipe.rows for name in FILES if name in row)
    with cli.begin(__file__, args, inputs) as run:
        if run.made:
            return
        table = lay_out(args.recipe, args.tables)
        texts = {"csv": table.csv(), "md": table.markdown(), "tex": table.latex()}
        name = name_of(args.recipe.layout, args.recipe.student)
        paths = [run.folder / f"{name}.{suffix}" for suffix in texts]
        for path, text in zip(paths, texts.values(), strict=True):
            with whole_file(path) as file:
                file.write(text)
        run.record(paths)


if __name__ == "__main__":
    cli.run(main)
