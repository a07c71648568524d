"""Draws one of the study's figures, as SVG, PDF and PNG, at the size at which it is printed.

accuracy      every checkpoint on every benchmark as a point with its interval; lines: the teachers
matrix        the same as numbers; frames: what a checkpoint was trained on
in-family     per benchmark the arms of each student, taught by in-family teachers (the paper's Figure 2)
out-family    the same with out-family teachers beside them (Figure 3)
low-resource  accuracy of one student over the share of the demonstrations (Figure 4)
lengths       tokens per answer, as out-family
solving       pass@k and maj@k of one student's chains of thought
yields        how one student's sampled answers came out, and which items gave preference pairs
cost          wall time and tokens of one checkpoint of each arm, by stage
training      loss of each training run by update, and the rewards' margin and accuracy of each refinement
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from pydantic import BaseModel, ConfigDict, Field

from selfrefine import cli, curves, figures, overview
from selfrefine.arms import read_table
from selfrefine.files import whole_file
from selfrefine.outputs import FIGURES, name_of

# What makes a file the same at every drawing.
FORMATS = {"svg": {"metadata": {"Date": None}}, "pdf": {"metadata": {"CreationDate": None}}, "png": {}}
RESOLUTION = 200
# Pixels along an edge: matplotlib draws no more than 2 ** 16.
MOST = 60_000


class PlotRecipe(BaseModel):
    """What the plot stage reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    figure: str = Field(pattern=f"^({'|'.join(FIGURES)})$", description=f"One of {', '.join(FIGURES)}.")
    student: str = Field("", description="Whose figure it is (low-resource, solving, yields).")
    titles: dict[str, str] = Field({}, description="What the figure calls each benchmark.")


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_recipe(parser, PlotRecipe)
    cli.add_tables(parser)
    cli.add_index(parser, "training", required=False)
    cli.add_record(parser)
    return parser.parse_args()


def draw(recipe: PlotRecipe, folder: Path | None, logs: dict[str, str]) -> plt.Figure:
    """The figure that a recipe names."""
    tables = [read_table(folder, name) for name in FIGURES[recipe.figure]]
    match recipe.figure:
        case "accuracy":
            return overview.draw_accuracy(*tables, recipe.titles)
        case "matrix":
            return overview.draw_matrix(*tables, recipe.titles)
        case "in-family":
            return figures.draw_families(*tables, recipe.titles, ("in",), "accuracy")
        case "out-family":
            return figures.draw_families(*tables, recipe.titles, ("in", "out"), "accuracy")
        case "lengths":
            return figures.draw_families(*tables, recipe.titles, ("in", "out"), "tokens")
        case "low-resource":
            return figures.draw_low_resource(*tables, recipe.titles, recipe.student)
        case "solving":
            return curves.draw_solving(*tables, recipe.titles, recipe.student)
        case "yields":
            return curves.draw_yields(*tables, recipe.titles, recipe.student)
        case "cost":
            return curves.draw_cost(*tables)
        case "training":
            return curves.draw_training(logs)


def main() -> None:
    args = arguments()
    needed = [args.tables / f"{name}.csv" for name in FIGURES[args.recipe.figure]]
    logs: dict[str, str] = {}
    if args.recipe.figure == "training":
        logs = cli.read_index(args.index)["training"]
        needed = [args.index, *map(Path, logs.values())]
    with cli.begin(__file__, args, needed) as run:
        if run.made:
            return
        plt.rcParams |= figures.STYLE
        figure = draw(args.recipe, args.tables, logs)
        resolution = min(RESOLUTION, MOST / max(figure.get_size_inches()))
        name = name_of(args.recipe.figure, args.recipe.student)
        paths = [run.folder / f"{name}.{suffix}" for suffix in FORMATS]
        for path, (suffix, options) in zip(paths, FORMATS.items(), strict=True):
            with whole_file(path, "wb") as file:
                figure.savefig(file, format=suffix, dpi=resolution, **options)
        run.record(paths)


if __name__ == "__main__":
    cli.run(main)
