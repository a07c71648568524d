"""Draws one of the study's figures, as SVG, PDF and PNG, at the size at which it is printed.

accuracy      every checkpoint on every benchmark as a point with its interval; lines: the teachers
in-family     per benchmark the arms of each student, taught by in-family teachers (the paper's Figure 2)
out-family    the same with out-family teachers beside them (Figure 3)
low-resource  accuracy of one student over the share of the demonstrations (Figure 4)
lengths       tokens per answer, as out-family
solving       pass@k and maj@k of one student's chains of thought
pass-at-k     pass@k and maj@k of one student's arms on the test splits
yields        how one student's sampled answers came out, and which items gave preference pairs
cost          wall time and tokens of one checkpoint of each arm, by stage
training      loss of each training run by update, and the rewards' margin and accuracy of each refinement
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from selfrefine.programs import cli
from selfrefine.report.figures import style
from selfrefine.report.figures.accuracy_points import draw_accuracy
from selfrefine.report.figures.cost_bars import draw_cost
from selfrefine.report.figures.family_bars import draw_families
from selfrefine.report.figures.font_note import LACKING, lacking_font
from selfrefine.report.figures.sampling_yields import draw_pass_at_k, draw_solving, draw_yields
from selfrefine.report.figures.share_curves import draw_low_resource
from selfrefine.report.figures.training_curves import Run, draw_training
from selfrefine.report.figures.wording import complete_fonts, drawable
from selfrefine.report.selection import in_figure
from selfrefine.report.study_tables import StudyTables
from selfrefine.schema.stages import PlotSettings
from selfrefine.store.files import whole_file
from selfrefine.store.locations import FIGURE_FORMATS, table_file
from selfrefine.study.checkpoint_names import trained_facts
from selfrefine.study.figures_and_layouts import FIGURES, name_of

Row = TypeVar("Row", bound=Mapping[str, object])
# What makes a file the same at every drawing.
OPTIONS = {"svg": {"metadata": {"Date": None}}, "pdf": {"metadata": {"CreationDate": None}}, "png": {}}
RESOLUTION = 200
# Pixels along an edge: matplotlib draws no more than 2 ** 16.
MOST = 60_000


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, PlotSettings)
    cli.add_tables(parser)
    cli.add_index(parser, "training", required=False)
    cli.add_record(parser)
    return parser.parse_args()


def draw(settings: PlotSettings, tables: StudyTables) -> plt.Figure:
    """The figure that the settings name, of the rows that it shows."""

    def shown(rows: Sequence[Row], table: str) -> list[Row]:
        return in_figure(settings.figure, settings.student, rows, table)

    titles = settings.titles
    match settings.figure:
        case "accuracy":
            return draw_accuracy(shown(tables.arms(), "arms"), titles)
        case "in-family" | "out-family":
            return draw_families(shown(tables.arms(), "arms"), titles, "accuracy")
        case "lengths":
            return draw_families(shown(tables.lengths(), "lengths"), titles, "tokens")
        case "low-resource":
            return draw_low_resource(shown(tables.arms(), "arms"), titles)
        case "solving":
            return draw_solving(shown(tables.solving(), "solving"), titles)
        case "pass-at-k":
            return draw_pass_at_k(shown(tables.pass_at_k(), "pass_at_k"), titles)
        case "yields":
            paths, pairs = shown(tables.paths(), "paths"), shown(tables.pairs(), "pairs")
            return draw_yields(paths, pairs, shown(tables.solving(), "solving"), titles)
        case "cost":
            return draw_cost(shown(tables.costs(), "costs"))
    raise ValueError(f"figure {settings.figure} is drawn from logs")


def drawn(settings: PlotSettings, titles: dict[str, str], runs: list[Run], tables: StudyTables | None) -> plt.Figure:
    """The figure with these titles: of training logs, or of tables."""
    if tables is None:
        return draw_training(runs, titles)
    return draw(settings.model_copy(update={"titles": titles}), tables)


def main() -> None:
    args = arguments()
    settings: PlotSettings = args.settings
    runs = []
    if settings.figure == "training":
        logs = cli.read_index(args.index)["training"]
        runs = [Run(trained_facts(name), Path(log)) for name, log in logs.items()]
        inputs = [args.index, *(run.log for run in runs)]
    else:
        inputs = [table_file(args.tables, name) for name in FIGURES[settings.figure]]
    with cli.begin(__file__, args, inputs) as run:
        if run.made:
            return
        plt.rcParams |= style.STYLE
        tables = None if settings.figure == "training" else StudyTables(args.tables)
        written = drawn(settings, settings.titles, runs, tables)
        lacking, readable = complete_fonts(written), written
        if lacking:
            print(lacking_font(lacking), file=sys.stderr)
            readable = drawn(settings, drawable(settings.titles, lacking), runs, tables)
            complete_fonts(readable)
        name = name_of(settings.figure, settings.student)
        paths = [run.folder / f"{name}.{form}" for form in FIGURE_FORMATS]
        for path, form in zip(paths, FIGURE_FORMATS, strict=True):
            # An SVG is drawn with its reader's fonts, which may have what this machine's lack.
            figure = written if form == "svg" else readable
            resolution = min(RESOLUTION, MOST / max(figure.get_size_inches()))
            with whole_file(path, "wb") as file:
                figure.savefig(file, format=form, dpi=resolution, **OPTIONS[form])
        run.record(paths, **({LACKING: lacking} if lacking else {}))


if __name__ == "__main__":
    cli.run(main)
