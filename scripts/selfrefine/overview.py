"""Figures of every checkpoint on every benchmark: as points with intervals, and as a matrix of numbers."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.lines import Line2D

from selfrefine.arms import in_order, whole
from selfrefine.figures import PAGE, legend

FACTS = ["arm", "student", "teacher", "task", "refine_task", "recipe"]
# Inches of a row.
ROW, CELL = 0.14, 0.27


def labels(rows: pd.DataFrame, titles: dict[str, str]) -> list[str]:
    """How a figure names checkpoints: the arm, what it was trained on, and recipe and teacher where there are several."""
    teachers, recipes = (len(set(rows[column]) - {""}) > 1 for column in ("teacher", "recipe"))
    names = []
    for row in rows.itertuples():
        tasks = " → ".join(dict.fromkeys(titles[task] for task in (row.task, row.refine_task) if task))
        name = f"{row.arm} on {tasks}" if tasks else row.arm
        name += f" ({row.recipe})" if row.recipe and recipes else ""
        names.append(f"{name}, {row.teacher}" if row.teacher and teachers else name)
    return names


def checkpoints(arms: pd.DataFrame) -> pd.DataFrame:
    """The checkpoints of a table in the order of their arms, one row each, without the teachers."""
    return in_order(arms[arms.arm != "teacher"][FACTS].drop_duplicates())


def turned(tasks: list[str]) -> dict:
    """How the names of columns stand: turned where there are too many columns for them to stand level."""
    return {"rotation": 30} if len(tasks) > 3 else {}


def draw_accuracy(arms: pd.DataFrame, titles: dict[str, str]) -> plt.Figure:
    """Panels: benchmarks across, students down; a point with its interval per checkpoint, lines at the teachers' accuracy."""
    arms = whole(arms)
    tasks, rows = list(arms.evaluation.unique()), checkpoints(arms)
    students, teachers = list(rows.student.unique()), list(arms[arms.arm == "teacher"].teacher.unique())
    counts = [sum(rows.student == student) for student in students]
    figure, axes = plt.subplots(
        len(students),
        len(tasks),
        figsize=(PAGE, sum(ROW * count + 0.3 for count in counts) + 0.5),
        height_ratios=[count + 1 for count in counts],
        sharex="col",
        squeeze=False,
        layout="constrained",
    )
    styles = dict(zip(teachers, ("--", ":", "-.", "-") * len(teachers), strict=False))
    for line, student in enumerate(students):
        mine = rows[rows.student == student]
        for panel, task in zip(axes[line], tasks, strict=True):
            here = mine.merge(arms[arms.evaluation == task], on=FACTS)
            for place, row in enumerate(here.itertuples()):
                trained = task in (row.task, row.refine_task)
                panel.plot([100 * row.low, 100 * row.high], [place, place], color="black", linewidth=0.8)
                panel.plot(
                    100 * row.accuracy, place, "o", color="black", markerfacecolor="black" if trained else "white"
                )
            for own in arms[(arms.arm == "teacher") & (arms.evaluation == task)].itertuples():
                panel.axvspan(100 * own.low, 100 * own.high, color="0.92", zorder=0, linewidth=0)
                panel.axvline(100 * own.accuracy, color="0.35", linestyle=styles[own.teacher], linewidth=1, zorder=1)
            panel.set_ylim(len(mine) - 0.4, -0.6)
            panel.set_yticks([])
            panel.set_xlim(left=0)
            panel.xaxis.set_major_formatter("{x:g} %")
            if line == 0:
                panel.set_title(titles[task], **turned(tasks))
            if line == len(students) - 1:
                panel.set_xlabel(f"n = {arms[arms.evaluation == task].n.iloc[0]}")
        axes[line][0].set_yticks(range(len(mine)), labels(mine, titles))
        axes[line][0].set_ylabel(student)
    handles = [
        Line2D([], [], marker="o", color="black", markerfacecolor="black", label="trained on the benchmark"),
        Line2D([], [], marker="o", color="black", markerfacecolor="white", label="not trained on it"),
        *(Line2D([], [], color="0.35", linestyle=styles[name], label=f"teacher {name}") for name in teachers),
    ]
    legend(figure, handles)
    return figure


def draw_matrix(arms: pd.DataFrame, titles: dict[str, str]) -> plt.Figure:
    """Rows: checkpoints and teachers; columns: benchmarks; each cell with its interval, framed where it was trained on; a dash: not evaluated."""
    arms = whole(arms)
    tasks, rows = list(arms.evaluation.unique()), checkpoints(arms)
    rows = pd.concat([rows, arms[arms.arm == "teacher"][FACTS].drop_duplicates()], ignore_index=True)
    figure, axis = plt.subplots(figsize=(PAGE, 0.5 + CELL * len(rows)), layout="constrained")
    cells = {(*(getattr(row, fact) for fact in FACTS), row.evaluation): row for row in arms.itertuples()}
    for y, row in enumerate(rows.itertuples()):
        for x, task in enumerate(tasks):
            cell = cells.get((*(getattr(row, fact) for fact in FACTS), task))
            if cell is None:
                axis.text(x + 0.5, y + 0.5, "–", ha="center", va="center")
                continue
            trained = task in (row.task, row.refine_task)
            frame = {"edgecolor": "black", "linewidth": 1.6 if trained else 0.3}
            grey = str(1 - 0.45 * cell.accuracy)
            axis.add_patch(plt.Rectangle((x + 0.02, y + 0.06), 0.96, 0.88, facecolor=grey, **frame))
            number = f"{100 * cell.accuracy:.1f} [{100 * cell.low:.1f}, {100 * cell.high:.1f}]"
            if len(tasks) > 4:
                number = number.replace(" ", "\n", 1)
            axis.text(x + 0.5, y + 0.5, number, ha="center", va="center", fontsize=6 if len(tasks) > 4 else None)
    names = [
        f"{row.teacher} (teacher)" if row.arm == "teacher" else f"{row.student} {name}"
        for row, name in zip(rows.itertuples(), labels(rows, titles), strict=True)
    ]
    axis.set(xlim=(0, len(tasks)), ylim=(len(rows), 0))
    axis.set_yticks([y + 0.5 for y in range(len(rows))], names)
    axis.set_xticks([x + 0.5 for x in range(len(tasks))], [titles[task] for task in tasks], **turned(tasks))
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return figure
