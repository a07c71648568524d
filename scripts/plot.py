"""Draws one of the study's figures, as SVG, PDF and PNG, at the size at which it is printed.

accuracy      every checkpoint on every benchmark as a point with its interval; lines: the teachers
in-family     per benchmark the arms of each student, taught by in-family teachers (the paper's Figure 2)
out-family    the same with out-family teachers beside them (Figure 3)
low-resource  accuracy of one student over the share of the demonstrations (Figure 4)
selection     the same by the way in which the items of a share are chosen
lengths       tokens per answer, as out-family
solving       pass@k and maj@k of one student's chains of thought
pass-at-k     pass@k and maj@k of one student's arms on the test splits
yields        how one student's sampled answers came out, and which items gave preference pairs
cost          wall time and tokens of one checkpoint of each arm, by stage
training      loss of each training run by update; of each refinement rewards, and how likely responses are
claims        each comparison behind the claims as an estimate with its interval, and a dot per seed
flips         the verdict on each claim under each other choice that the study's data allow for
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
from selfrefine.report.figures.claim_dots import draw_claims
from selfrefine.report.figures.cost_bars import draw_cost
from selfrefine.report.figures.family_bars import draw_families
from selfrefine.report.figures.flip_map import draw_flips
from selfrefine.report.figures.font_note import LACKING, lacking_font
from selfrefine.report.figures.sampling_yields import draw_pass_at_k, draw_solving, draw_yields
from selfrefine.report.figures.selection_curves import draw_selection
from selfrefine.report.figures.share_curves import draw_low_resource
from selfrefine.report.figures.training_curves import Run, draw_training
from selfrefine.report.figures.wording import complete_fonts, drawable
from selfrefine.report.flip_tables import read_flips
from selfrefine.report.model_names import Models
from selfrefine.report.selection import in_figure
from selfrefine.report.study_tables import StudyTables
from selfrefine.report.verdict_tables import with_titles
from selfrefine.schema.stages import PlotSettings
from selfrefine.store.files import read_json, whole_file
from selfrefine.store.locations import FIGURE_FORMATS, VERDICTS, table_file
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
    parser.add_argument(
        "--claims",
        type=lambda text: Path(text).with_name(VERDICTS),
        help="the record of the verdicts on the claims",
    )
    cli.add_flips(parser, required=False)
    cli.add_record(parser)
    return parser.parse_args()


def draw(settings: PlotSettings, tables: StudyTables) -> plt.Figure:
    """The figure that the settings name, of the rows that it shows."""

    def shown(rows: Sequence[Row], table: str) -> list[Row]:
        return in_figure(settings.figure, tables.models.student(settings.student), rows, table)

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
        case "selection":
            return draw_selection(shown(tables.arms(), "arms"), titles)
        case "solving":
            return draw_solving(shown(tables.solving(), "solving"), titles)
        case "pass-at-k":
            return draw_pass_at_k(shown(tables.pass_at_k(), "pass_at_k"), titles)
        case "yields":
            paths, pairs = shown(tables.paths(), "paths"), shown(tables.pairs(), "pairs")
            return draw_yields(paths, pairs, shown(tables.solving(), "solving"), titles)
        case "cost":
            return draw_cost(shown(tables.costs(), "costs"))
    raise ValueError(f"figure {settings.figure} is drawn from no table")


def drawn(settings: PlotSettings, args: argparse.Namespace, runs: list[Run], lacking: str) -> plt.Figure:
    """The figure of training logs, claims or tables; names stand for titles with characters that no font has."""
    titles, students, teachers = (
        drawable(of, lacking, kind) if lacking else of
        for of, kind in ((settings.titles, "benchmark"), (settings.students, "student"), (settings.teachers, "teacher"))
    )
    models = Models(students, teachers)
    if settings.figure == "training":
        return draw_training([run._replace(trained=models.titled(run.trained)) for run in runs], titles)
    if settings.figure == "claims":
        found = read_json(args.claims)
        return draw_claims(with_titles(found["claims"], models), titles, found["settings"])
    if settings.figure == "flips":
        return draw_flips(read_flips(args.flips, models), titles)
    return draw(settings.model_copy(update={"titles": titles}), StudyTables(args.tables, models))


def main() -> None:
    args = arguments()
    settings: PlotSettings = args.settings
    runs = []
    if settings.figure == "training":
        logs = cli.read_index(args.index)["training"]
        runs = [Run(trained_facts(name), Path(log)) for name, log in logs.items()]
        inputs = [args.index, *(run.log for run in runs)]
    elif settings.figure == "claims":
        inputs = [args.claims]
    elif settings.figure == "flips":
        inputs = [args.flips]
    else:
        inputs = [table_file(args.tables, name) for name in FIGURES[settings.figure]]
    with cli.begin(__file__, args, inputs) as run:
        if run.made:
            return
        plt.rcParams |= style.STYLE
        written = drawn(settings, args, runs, "")
        lacking, readable = complete_fonts(written), written
        if lacking:
            print(lacking_font(lacking), file=sys.stderr)
            readable = drawn(settings, args, runs, lacking)
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
