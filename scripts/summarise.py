"""Writes the study's summary for a person to read: what came out, how sure it is, what it was made of, what it cost."""

import argparse
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from selfrefine import cli, layout
from selfrefine.arms import read_table
from selfrefine.files import whole_file

TABLES = (
    "arms",
    "accuracy",
    "comparisons",
    "lengths",
    "demonstrations",
    "paths",
    "solving",
    "pairs",
    "stages",
    "costs",
)


class SummaryRecipe(BaseModel):
    """What the summarise stage reads beside the tables."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    titles: dict[str, str] = Field(description="What the summary calls each benchmark.")
    sources: list[dict[str, str]] = Field(description="What the study uses, from where, under which licence.")


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_recipe(parser, SummaryRecipe)
    cli.add_tables(parser, required=True)
    cli.add_record(parser)
    return parser.parse_args()


def read(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv", keep_default_na=False)


def table(header: list[str], rows: list[list]) -> str:
    """A Markdown table, its columns padded so that it reads well on a terminal."""
    cells = [header, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def percent(value) -> str:
    return f"{100 * float(value):.1f}"


def trained_on(row) -> str:
    parts = [row.task, f"refined on {row.refine_task} ({row.recipe})" if row.refine_task else ""]
    share = f"{int(float(row.share))} %" if row.share not in ("", 100, "100") else ""
    return ", ".join(part for part in (*parts, share) if part) or "–"


def accuracy_section(tables: Path, titles: dict[str, str]) -> str:
    arms = read(tables, "arms")
    tasks = list(arms.evaluation.unique())
    rows = []
    facts = ["arm", "student", "teacher", "task", "refine_task", "recipe", "share"]
    for _, group in arms.groupby(facts, sort=False):
        first = group.iloc[0]
        found = {row.evaluation: row for row in group.itertuples()}
        cells = [
            f"{percent(row.accuracy)} [{percent(row.low)}, {percent(row.high)}]" if (row := found.get(task)) else "–"
            for task in tasks
        ]
        rows.append([first.arm, first.student or first.teacher, trained_on(first), first.seeds, *cells])
    sizes = {row.evaluation: row.n for row in arms.itertuples()}
    header = ["arm", "model", "trained on", "seeds", *(f"{titles[t]} (n={sizes[t]})" for t in tasks)]
    return f"## Accuracy in percent, with {100 * arms.level[0]:g} % intervals\n\n" + table(header, rows)


def behaviour_section(tables: Path, titles: dict[str, str]) -> str:
    rows = [
        [row.arm, row.student or row.teacher, trained_on(row), row.seed, titles[row.evaluation]]
        + [
            percent(row.accuracy),
            percent(row.legacy_accuracy),
            percent(row.committed),
            percent(row.chains),
            percent(row.cut),
            f"{row.mean_tokens:.0f}",
        ]
        for row in read(tables, "accuracy").itertuples()
    ]
    header = [
        "arm",
        "model",
        "trained on",
        "seed",
        "benchmark",
        "right %",
        "right by legacy extractor %",
        "commits to an answer %",
        "over five words first %",
        "cut %",
        "mean tokens",
    ]
    return "## How the answers look\n\n" + table(header, rows)


def lengths_section(tables: Path, titles: dict[str, str]) -> str:
    return "## How long the answers are\n\n" + layout.lengths(read_table(tables, "lengths"), titles).markdown().rstrip()


def comparison_section(tables: Path, titles: dict[str, str]) -> str:
    comparisons = read(tables, "comparisons")
    if comparisons.empty:
        return ""
    rows = [
        [f"{row.arm} − {row.against}", row.student, trained_on(row), row.seed, titles[row.evaluation], row.n]
        + [
            f"{100 * row.difference:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]",
            row.gained,
            row.lost,
            f"{row.mcnemar_p:.3g}",
        ]
        for row in comparisons.itertuples()
    ]
    header = [
        "contrast",
        "student",
        "trained on",
        "seed",
        "benchmark",
        "n",
        "points, interval",
        "gained",
        "lost",
        "McNemar p",
    ]
    differing = [
        f"- {row.arm} − {row.against}, seed {row.seed}: {row.differs}"
        for row in comparisons.itertuples()
        if row.differs
    ]
    note = (
        "\n\nVersions or hardware differ between the two sides:\n\n" + "\n".join(dict.fromkeys(differing))
        if differing
        else ""
    )
    return "## Differences, paired by item\n\n" + table(header, rows) + note


def data_section(tables: Path, titles: dict[str, str]) -> str:
    parts = ["## What the training data came to"]
    frame = read(tables, "demonstrations")
    if len(frame):
        parts.append("Teachers' answers that became demonstrations:\n\n" + _frame(frame))
    frame = read(tables, "paths")
    if len(frame):
        kept = ["style", "items", "items_solved", "paths", "correct", "committed", "chains", "cut"]
        parts.append("Students' sampled answers, by how they were asked:\n\n" + _frame(frame[["sampled", *kept]]))
        for row in frame[frame["style"] == "plain"].itertuples():
            parts.append(
                f"Asked plainly, {row.chains} of {row.paths} answers ({percent(row.chains / row.paths)} %) put more than five words before the answer all the same."
            )
    frame = read_table(tables, "solving")
    if len(frame):
        parts.append(layout.solving(frame, titles).markdown().rstrip())
    frame = read_table(tables, "pairs")
    if len(frame):
        parts.append(layout.yields(frame, titles).markdown().rstrip())
        barren = frame[(frame["train"] == 0) | (frame["validation"] == 0)]
        if len(barren):
            where = "\n".join(f"- {row.sampled}" for row in barren.itertuples())
            parts.append(
                f"In {len(barren)} of {len(frame)} refinements there were too few pairs to learn from; the student was left as "
                f"it was:\n\n{where}"
            )
    return "\n\n".join(parts)


def _frame(frame: pd.DataFrame) -> str:
    shown = frame.copy()
    for column in shown.select_dtypes("float"):
        shown[column] = [f"{value:g}" for value in shown[column]]
    return table([str(name).replace("_", " ") for name in shown.columns], shown.values.tolist())


def cost_section(tables: Path) -> str:
    stages = read(tables, "stages")
    rows = []
    for stage, group in stages.groupby("stage", sort=False):
        tokens, seconds = group.tokens.sum(), group.wall_seconds.sum()
        rate = f"{tokens / seconds:.0f}" if tokens and seconds else "–"
        rows.append([stage, len(group), f"{seconds:.0f}", int(tokens), rate, int(group.peak_memory_mib.max())])
    header = ["stage", "jobs", "wall seconds", "tokens", "tokens/s", "peak memory MiB"]
    arms = layout.cost(read_table(tables, "costs")).markdown().rstrip()
    return f"## What it cost\n\n{table(header, rows)}\n\n{arms}"


def main() -> None:
    args = arguments()
    inputs = [args.tables / f"{name}.csv" for name in TABLES]
    with cli.begin(__file__, args, inputs) as run:
        if not run.made:
            summarise(args.recipe, args.tables, run.file)
            run.record([run.file])


def summarise(recipe: SummaryRecipe, tables: Path, output: Path) -> None:
    titles = recipe.titles
    sources = [[row["role"], row["name"], row["licence"], row["source"]] for row in recipe.sources]
    sections = [
        "# Summary of the study",
        accuracy_section(tables, titles),
        comparison_section(tables, titles),
        behaviour_section(tables, titles),
        lengths_section(tables, titles),
        data_section(tables, titles),
        cost_section(tables),
        "## Sources and licences\n\n" + table(["role", "name", "licence", "source"], sources),
    ]
    with whole_file(output) as file:
        file.write("\n\n".join(section for section in sections if section) + "\n")


if __name__ == "__main__":
    cli.run(main)
