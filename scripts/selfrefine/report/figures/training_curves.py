"""Loss of each training run by update; of each refinement also rewards, and how likely responses are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from selfrefine.report.figures import style
from selfrefine.report.labels import Trained, checkpoint_label, several
from selfrefine.store.files import read_jsonl

MOST_NAMED = 8
PANELS = {
    "instruct: loss": "loss",
    "refine: loss": "loss",
    "reward margin (nats)": "margin",
    "reward accuracy": "accuracy",
    "chosen: nats per token": "chosen_token_logp",
    "rejected: nats per token": "rejected_token_logp",
}


class Run(NamedTuple):
    """One training run: what was trained, and its log."""

    trained: Trained
    log: Path


def draw_training(runs: Sequence[Run], titles: Mapping[str, str]) -> plt.Figure:
    """One line per run; dots: held-out pairs. Runs are named where there are few."""
    figure, panels = style.grid(len(PANELS), 2, 1.6)
    handles, idle = [], 0
    for number, (run, name) in enumerate(zip(runs, names(runs, titles), strict=True)):
        rows = read_jsonl(run.log)
        if not rows:  # too few pairs to learn from
            idle += 1
            continue
        look = {
            "color": style.LINES[number % len(style.LINES)],
            "linestyle": style.DASHES[number % len(style.DASHES)],
        }
        handles.append(style.line(name, **look))
        if "split" not in rows[0]:
            draw_curve(panels[0], rows, "loss", look)
            continue
        for panel, column in list(zip(panels, PANELS.values(), strict=True))[1:]:
            for split, marker in (("train", ""), ("validation", "o")):
                mine = [row for row in rows if row["split"] == split]
                draw_curve(panel, mine, column, {**look, "marker": marker})
    for panel, title in zip(panels, PANELS, strict=True):
        panel.set_ylabel(title)
        panel.set_xlabel("update")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    dots = style.line("held-out pairs", color="black", marker="o")
    named = handles if len(runs) <= MOST_NAMED else []
    without = [style.line(f"without a curve, too few pairs: {idle} of {len(runs)}", linestyle="")] if idle else []
    style.legend(figure, [*named, dots, *without])
    return figure


def draw_curve(panel: plt.Axes, rows: Sequence[Mapping[str, Any]], column: str, look: Mapping[str, Any]) -> None:
    """One column of a log by update. None leaves a gap, and a log from before there was the column draws nothing.

    A single update is a point, as there is no line to draw.
    """
    if len(rows) == 1 and not look.get("marker"):
        look = {**look, "marker": "x"}
    values = [float("nan") if row.get(column) is None else row[column] for row in rows]
    panel.plot([row["step"] for row in rows], values, **look)


def names(runs: Sequence[Run], titles: Mapping[str, str]) -> list[str]:
    """What a legend calls each run; with recipe, share and seed where there are several."""
    facts = [run.trained for run in runs]
    told = {"teacher", *several(facts, "recipe", "share", "seed")}
    return [f"{fact['student']}, {checkpoint_label(fact, titles, told)}" for fact in facts]
