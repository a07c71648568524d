"""Figures of what lies behind the accuracies: training, sampled answers, preference pairs, cost."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from selfrefine.arms import whole
from selfrefine.costs import STAGES
from selfrefine.figures import LINES, PAGE, grid, legend
from selfrefine.files import read_jsonl

# How an answer or an item came out: its grey, its hatch.
VERDICTS = {"right": ("0.35", ""), "wrong": ("0.8", ""), "no answer": ("1.0", "/////")}
USES = (("0.6", ""), ("1.0", "....."), ("0.85", "xxxxx"), ("1.0", "-----"), ("0.7", "....."))
SPENT = (("0.35", ""), ("0.8", "/////"), ("1.0", "....."), ("0.6", "xxxxx"), ("1.0", "-----"), ("0.5", ""), ("0.9", ""))
MOST_NAMED = 8


def draw_training(logs: dict[str, str]) -> plt.Figure:
    """One line per run, of its checkpoint's name and log: loss by update, and for refinements the validation loss, reward margin and accuracy."""
    figure, panels = grid(4, 2, 1.6)
    for number, (name, path) in enumerate(logs.items()):
        rows = pd.DataFrame(read_jsonl(Path(path)))
        if rows.empty:  # too few pairs to learn from
            continue
        style = {"linestyle": LINES[number % 4], "color": str(0.6 * (number % 5) / 5)}
        if "split" not in rows:
            panels[0].plot(rows.step, rows.loss, label=name, **style)
            continue
        for panel, column in zip(panels[1:], ("loss", "margin", "accuracy"), strict=True):
            values = rows.assign(value=pd.to_numeric(rows[column]))
            for split, marker in (("train", ""), ("validation", "o")):
                mine = values[values.split == split]
                panel.plot(mine.step, mine.value, marker=marker, label=f"{'_' * bool(marker)}{name}", **style)
    names = ("instruct: loss", "refine: loss", "reward margin (nats)", "reward accuracy")
    for panel, name in zip(panels, names, strict=True):
        panel.set_ylabel(name)
        panel.set_xlabel("update")
    handles = [line for panel in panels[:2] for line in panel.lines if not line.get_label().startswith("_")]
    dots = [Line2D([], [], color="black", marker="o", label="validation")]
    legend(figure, (handles if len(logs) <= MOST_NAMED else []) + dots)
    return figure


def draw_solving(solving: pd.DataFrame, titles: dict[str, str], student: str) -> plt.Figure:
    """pass@k and maj@k of one student's chains of thought, a panel per benchmark; markers: who had instructed it on it."""
    table = whole(solving[solving.student == student])
    first = (table["style"] == "cot") & (table.after == "")
    table = table[first & ((table.task == "") | (table.task == table.refine_task))]
    tasks, teachers = list(table.refine_task.unique()), list(table.teacher.unique())
    markers = dict(zip(teachers, "os^Dv" * len(teachers), strict=False))
    greys = dict(zip(teachers, np.linspace(0, 0.55, max(2, len(teachers))), strict=False))
    figure, panels = grid(len(tasks), 3, 1.7)
    for panel, task in zip(panels, tasks, strict=True):
        here = table[table.refine_task == task]
        for (teacher, measure), rows in here.groupby(["teacher", "measure"], sort=False):
            panel.errorbar(
                rows.k,
                100 * rows.value,
                yerr=[100 * (rows.value - rows.low), 100 * (rows.high - rows.value)],
                color=str(greys[teacher]),
                marker=markers[teacher],
                linestyle="-" if measure == "pass" else "--",
                elinewidth=0.6,
                capsize=1.5,
            )
        panel.set_xscale("log", base=2)
        panel.set_xticks(sorted(here.k.unique()), [str(k) for k in sorted(here.k.unique())])
        panel.minorticks_off()
        panel.set_title(f"{titles[task]} (n = {here['items'].iloc[0]})")
        panel.set_xlabel("samples k")
        panel.set_ylabel("items solved (%)")
        panel.set_ylim(bottom=0)
    handles = [
        Line2D([], [], color="black", linestyle=line, label=f"{name}@k")
        for name, line in (("pass", "-"), ("maj", "--"))
    ]
    handles += [
        Line2D([], [], color=str(greys[name]), marker=markers[name], linestyle="", label=_by(name)) for name in teachers
    ]
    legend(figure, handles)
    return figure


def _by(teacher: str) -> str:
    return f"instructed by {teacher}" if teacher else "not instructed"


def draw_yields(
    paths: pd.DataFrame, pairs: pd.DataFrame, solving: pd.DataFrame, titles: dict[str, str], student: str
) -> plt.Figure:
    """How one student's sampled answers came out, by how they were asked, and which items gave pairs, by recipe.

    Lines: the intervals of right answers (over seeds and items) and of items with pairs (Wilson's, averaged over seeds).
    """
    facts = ["refine_task", "teacher", "task", "after"]
    rates = whole(solving[(solving.student == student) & (solving.k == 1) & (solving.measure == "pass")])
    answers = whole(paths[paths.student == student])
    starts = list(answers.groupby(facts, sort=False).groups)
    answers = answers.groupby([*facts, "style"], sort=False)[["paths", "correct", "committed"]].sum().reset_index()
    answers = answers.merge(rates, on=[*facts, "style"])
    dropped = [column for column in pairs.columns if column.startswith("dropped_")]
    grouped = whole(pairs[pairs.student == student]).groupby([*facts, "recipe"], sort=False)
    items = grouped[["items", "items_with_pairs", *dropped]].sum().reset_index()
    items = items.merge(grouped[["low", "high"]].mean().reset_index(), on=[*facts, "recipe"])
    dropped = [column for column in dropped if items[column].sum()]
    styles, recipes = list(answers["style"].unique()), list(items.recipe.unique())
    figure, axes = plt.subplots(
        1,
        len(styles) + len(recipes),
        figsize=(PAGE, 0.14 * len(starts) + 0.5),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, style in zip(axes[0], styles, strict=False):
        rows = at_starts(answers[answers["style"] == style], facts, starts)
        parts = [rows.correct, rows.committed - rows.correct, rows.paths - rows.committed]
        stack(panel, [100 * part / rows.paths for part in parts], list(VERDICTS.values()), rows)
        panel.set_title(f"asked: {style}")
        panel.set_xlabel("answers (%)")
    for panel, recipe in zip(axes[0][len(styles) :], recipes, strict=True):
        rows = at_starts(items[items.recipe == recipe], facts, starts)
        parts = [rows.items_with_pairs, *(rows[column] for column in dropped)]
        stack(panel, [100 * part / rows["items"] for part in parts], USES, rows)
        panel.set_title(f"pairs: {recipe}")
        panel.set_xlabel("items (%)")
    axes[0][0].set_yticks(range(len(starts)), [_start(start, titles) for start in starts])
    names = ["gave pairs", *(column.removeprefix("dropped_").replace("_", " ") for column in dropped)]
    looks = [*VERDICTS.items(), *zip(names, USES, strict=False)]
    legend(figure, [Patch(facecolor=grey, hatch=hatch, edgecolor="black", label=n) for n, (grey, hatch) in looks])
    return figure


def at_starts(rows: pd.DataFrame, facts: list[str], starts: list[tuple]) -> pd.DataFrame:
    """The rows in the order of the starts, empty ones where a start has none."""
    return rows.set_index(facts).reindex(pd.MultiIndex.from_tuples(starts, names=facts))


def _start(start: tuple[str, str, str, str], titles: dict[str, str]) -> str:
    """Who was sampled on what: the benchmark, and after what training."""
    refine_task, teacher, task, after = start
    before = f"{teacher} on {titles[task]}" if task not in ("", refine_task) else teacher
    return ", ".join([titles[refine_task], *(part for part in (before, after) if part)])


def stack(panel: plt.Axes, parts: list[pd.Series], looks, intervals: pd.DataFrame | None = None) -> None:
    """Horizontal bars from the top, one per row of the parts; a part begins where the one before ended.

    `intervals` has `low` and `high` of the first part, as shares of 1.
    """
    left = np.zeros(len(parts[0]))
    for part, (grey, hatch) in zip(parts, looks, strict=False):
        values = part.to_numpy(float)
        places = range(len(values))
        panel.barh(places, values, left=left, height=0.75, color=grey, hatch=hatch, edgecolor="black", linewidth=0.5)
        left += values
    for place, row in enumerate(() if intervals is None else intervals.itertuples()):
        for colour, width in (("white", 2.4), ("black", 1)):
            panel.plot([100 * row.low, 100 * row.high], [place, place], color=colour, linewidth=width)
    panel.set_ylim(len(left) - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)


def draw_cost(costs: pd.DataFrame) -> plt.Figure:
    """Wall time and tokens of one checkpoint of each arm, by stage, its teacher's answers included."""
    costs = whole(costs)
    arms = costs[["student", "arm"]].drop_duplicates()
    looks = dict(zip(STAGES, SPENT, strict=True))
    looks |= {stage: ("1.0", "+++++") for stage in costs.stage if stage not in looks}
    figure, panels = plt.subplots(1, 2, figsize=(PAGE, 0.17 * len(arms) + 0.6), sharey=True, layout="constrained")
    spent = costs.groupby("stage", sort=False)[["wall_seconds", "tokens"]].sum().sum(axis=1)
    stages = [stage for stage in looks if spent.get(stage, 0) > 0]
    unit, seconds = (
        ("hours", 3600) if costs.groupby(["student", "arm"]).wall_seconds.sum().max() > 7200 else ("minutes", 60)
    )
    for panel, column, divisor in zip(panels, ("wall_seconds", "tokens"), (seconds, 1000), strict=True):
        table = costs.pivot(index=["student", "arm"], columns="stage", values=column).fillna(0)
        table = table.loc[[tuple(pair) for pair in arms.to_numpy()]]
        stack(panel, [table[stage] / divisor for stage in stages], [looks[stage] for stage in stages])
        panel.set_xlabel(
            f"{unit} for one checkpoint" if column == "wall_seconds" else "thousand tokens for one checkpoint"
        )
    panels[0].set_yticks(range(len(arms)), [f"{row.student} {row.arm}" for row in arms.itertuples()])
    legend(figure, [Patch(facecolor=looks[s][0], hatch=looks[s][1], edgecolor="black", label=s) for s in stages])
    return figure
