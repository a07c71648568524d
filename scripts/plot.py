"""Draws one of the study's figures, as SVG and PNG.

accuracy   bars with intervals: the arms of each student, per benchmark, and a line at the teacher's accuracy
matrix     accuracy of each checkpoint (rows) on each benchmark (columns); training tasks are outlined
training   loss of each training run by update, and the rewards' margin and accuracy of each refinement
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from selfrefine import cli
from selfrefine.errors import UserError
from selfrefine.files import read_json, read_jsonl, whole_file
from selfrefine.provenance import Run

# Greys and hatches, so that the arms can be told apart in print.
ARMS = {
    "baseline": ("0.85", ""),
    "refine-only": ("0.70", ".."),
    "instruct": ("0.55", "//"),
    "cross": ("0.40", "xx"),
    "refine": ("0.20", ""),
}


class PlotRecipe(BaseModel):
    """What the plot stage reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    figure: str = Field(pattern="^(accuracy|matrix|training)$")
    titles: dict[str, str] = Field({}, description="What the figure calls each benchmark.")


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_recipe(parser, PlotRecipe)
    parser.add_argument("--arms", type=Path, help="arms.csv (accuracy, matrix)")
    parser.add_argument("--index", type=Path, help="where the training logs lie (training)")
    parser.add_argument("--svg", required=True, type=Path)
    parser.add_argument("--png", required=True, type=Path)
    cli.add_provenance(parser)
    return parser.parse_args()


def read_arms(path: Path) -> pd.DataFrame:
    text = ["arm", "student", "teacher", "task", "refine_task", "recipe", "evaluation", "interval"]
    return pd.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values={"share": [""]})


def label(row: pd.Series) -> str:
    """How a figure names a checkpoint: its arm, and what it was trained on where arms alone would not tell."""
    parts = [row.arm]
    if row.task and row.task != row.refine_task:
        parts.append(f"on {row.task}")
    if row.refine_task:
        parts.append(f"{'→ ' if row.task and row.task != row.refine_task else 'on '}{row.refine_task} ({row.recipe})")
    if row.share == row.share and row.share != 100:
        parts.append(f"{row.share:.0f} %")
    return " ".join(parts)


def draw_accuracy(arms: pd.DataFrame, titles: dict[str, str]) -> plt.Figure:
    """Panels: benchmarks across, students down. Only full shares."""
    full = arms[(arms.share.isna()) | (arms.share == 100)]
    students = [name for name in full.student.unique() if name]
    tasks = list(full.evaluation.unique())
    shape = (len(students), len(tasks))
    figure, axes = plt.subplots(
        *shape, figsize=(3.2 * shape[1], 3.4 * shape[0]), sharey="row", squeeze=False, layout="constrained"
    )
    for row, student in enumerate(students):
        for column, task in enumerate(tasks):
            panel = axes[row][column]
            here = full[(full.student == student) & (full.evaluation == task)].copy()
            here["order"] = [list(ARMS).index(arm) for arm in here.arm]
            here = here.sort_values(["order", "teacher", "task", "refine_task", "recipe"])
            for place, (_, bar) in enumerate(here.iterrows()):
                colour, hatch = ARMS[bar.arm]
                spread = [[100 * (bar.accuracy - bar.low)], [100 * (bar.high - bar.accuracy)]]
                panel.bar(
                    place, 100 * bar.accuracy, color=colour, edgecolor="black", hatch=hatch, width=0.75, linewidth=0.8
                )
                panel.errorbar(place, 100 * bar.accuracy, yerr=spread, color="black", capsize=4, linewidth=1)
                panel.annotate(
                    f"{100 * bar.accuracy:.1f}",
                    (place, 100 * bar.high),
                    (0, 3),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                )
            teachers = full[(full.arm == "teacher") & (full.evaluation == task)]
            for style, (_, line) in zip(("--", ":", "-."), teachers.iterrows(), strict=False):
                panel.axhspan(100 * line.low, 100 * line.high, color="0.93", zorder=0)
                panel.axhline(100 * line.accuracy, color="black", linestyle=style, linewidth=1)
                panel.annotate(
                    f"{line.teacher} {100 * line.accuracy:.1f}",
                    (0.98, 100 * line.accuracy),
                    (0, 3),
                    xycoords=("axes fraction", "data"),
                    textcoords="offset points",
                    ha="right",
                    fontsize=7,
                )
            panel.set_xticks(
                range(len(here)), [label(bar).replace(" ", "\n", 1) for _, bar in here.iterrows()], fontsize=7
            )
            trained = {*here.task, *here.refine_task} - {""}
            panel.set_title(
                f"{titles[task]} ({'in-domain' if task in trained else 'out-domain'}, n = {here.n.iloc[0]})", fontsize=9
            )
            panel.spines[["top", "right"]].set_visible(False)
        axes[row][0].set_ylabel(f"{student}\naccuracy (%)", fontsize=8)
        axes[row][0].set_ylim(0, min(100, max(10, 112 * full.high.max())))
    return figure


def draw_matrix(arms: pd.DataFrame, titles: dict[str, str]) -> plt.Figure:
    """Rows: checkpoints and teachers; columns: benchmarks; each cell with its interval."""
    facts = ["arm", "student", "teacher", "task", "refine_task", "recipe", "share"]
    rows = arms[facts].drop_duplicates().reset_index(drop=True)
    tasks = list(arms.evaluation.unique())
    figure, axis = plt.subplots(figsize=(1.9 + 1.7 * len(tasks), 0.9 + 0.55 * len(rows)), layout="constrained")
    lookup = {(*(_blank(row[f]) for f in facts), row.evaluation): row for _, row in arms.iterrows()}
    for y, row in rows.iterrows():
        for x, task in enumerate(tasks):
            cell = lookup[(*(_blank(row[f]) for f in facts), task)]
            trained = task in (row.task, row.refine_task)
            axis.add_patch(
                plt.Rectangle(
                    (x + 0.03, y + 0.05),
                    0.94,
                    0.9,
                    facecolor=str(1 - 0.75 * cell.accuracy),
                    edgecolor="black",
                    linewidth=2 if trained else 0.3,
                )
            )
            colour = "white" if cell.accuracy > 0.62 else "black"
            axis.text(
                x + 0.5, y + 0.38, f"{100 * cell.accuracy:.1f}", ha="center", va="center", fontsize=10, color=colour
            )
            axis.text(
                x + 0.5,
                y + 0.72,
                f"{100 * cell.low:.1f} – {100 * cell.high:.1f}",
                ha="center",
                va="center",
                fontsize=7,
                color=colour,
            )
    names = [
        f"{row.teacher} (teacher)" if row.arm == "teacher" else f"{row.student}\n{label(row)}"
        for _, row in rows.iterrows()
    ]
    axis.set(xlim=(0, len(tasks)), ylim=(len(rows), 0))
    axis.set_yticks([y + 0.5 for y in range(len(rows))], names, fontsize=7)
    axis.set_xticks([x + 0.5 for x in range(len(tasks))], [titles[task] for task in tasks], fontsize=8)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return figure


def _blank(value):
    return "" if value != value else value


def draw_training(logs: list[str]) -> plt.Figure:
    """One line per run: training loss, validation loss of refinements, reward margin and accuracy."""
    figure, panels = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
    styles = ["-", "--", ":", "-."]
    for number, path in enumerate(logs):
        rows = pd.DataFrame(read_jsonl(Path(path)))
        name = path.removeprefix("results/checkpoints/").removesuffix("/training.jsonl")
        style = {"linestyle": styles[number % 4], "color": str(0.6 * (number % 5) / 5), "linewidth": 1}
        if "margin" not in rows:
            panels[0].plot(rows.step, rows.loss, label=name, **style)
            continue
        train, validation = (rows[rows.split == split] for split in ("train", "validation"))
        panels[1].plot(train.step, train.loss, label=name, **style)
        panels[1].plot(validation.step, validation.loss, marker="o", markersize=4, **style)
        panels[2].plot(train.step, train.margin, **style)
        panels[2].plot(validation.step, validation.margin, marker="o", markersize=4, **style)
        panels[3].plot(train.step, train.accuracy, **style)
        panels[3].plot(validation.step, validation.accuracy, marker="o", markersize=4, **style)
    titles = ("instruct: loss", "refine: loss (dots: validation)", "refine: reward margin", "refine: reward accuracy")
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("update", fontsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    if 0 < len(logs) <= 8:
        handles = [line for panel in panels[:2] for line in panel.lines if not line.get_label().startswith("_")]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=7, frameon=False)
    return figure


def main() -> None:
    args = arguments()
    kind = args.recipe.figure
    needed = args.index if kind == "training" else args.arms
    if needed is None:
        raise UserError(f"figure {kind}: name its data with {'--index' if kind == 'training' else '--arms'}")
    logs = read_json(needed)["training"] if kind == "training" else []
    with Run(__file__, args.recipe.model_dump(), [needed, *map(Path, logs)], args.provenance) as run:
        if run.made:
            return
        plt.rcParams |= {"svg.hashsalt": "selfrefine", "svg.fonttype": "none", "font.size": 8}
        if kind == "training":
            figure = draw_training(logs)
        else:
            draw = draw_accuracy if kind == "accuracy" else draw_matrix
            figure = draw(read_arms(args.arms), args.recipe.titles)
        with whole_file(args.svg, "wb") as file:
            figure.savefig(file, format="svg", metadata={"Date": None})
        with whole_file(args.png, "wb") as file:
            figure.savefig(file, format="png", dpi=200)
        run.record([args.svg, args.png])


if __name__ == "__main__":
    cli.run(main)
