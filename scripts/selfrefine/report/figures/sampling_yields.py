"""What one student's sampled paths came to: items solved by k samples, verdicts, preference pairs."""

from collections.abc import Callable, Collection, Mapping, Sequence
from statistics import fmean
from typing import TypeVar

import matplotlib.pyplot as plt

from selfrefine.report.figures import style, wording
from selfrefine.report.figures.style import Fill
from selfrefine.report.labels import UNREFINED, unrefined_mark
from selfrefine.schema.results import PairRow, PassRow, PathRow, SolvingRow, Start

S = TypeVar("S", bound=Start)
C = TypeVar("C", SolvingRow, PassRow)
Place = tuple[str, str, str, str]
# Inches around the bars; characters of a line of a bar's name.
AROUND, WIDE = 0.75, 40
# How an answer came out, and what became of an item.
VERDICTS = {
    "correct": Fill(style.BLUE, ""),
    "incorrect": Fill(style.ORANGE, ""),
    "no answer extracted": Fill("#FFFFFF", "/////"),
}
USES = (
    Fill(style.GREEN, ""),
    Fill("#FFFFFF", "....."),
    Fill(style.YELLOW, "xxxxx"),
    Fill("#FFFFFF", "-----"),
    Fill(style.PURPLE, "....."),
)


def draw_solving(rows: Sequence[SolvingRow], titles: Mapping[str, str]) -> plt.Figure:
    """pass@k and maj@k of chains of thought, a panel per benchmark; colours and markers: by whom it was instructed."""

    def name_of(row: SolvingRow) -> str:
        return f"instructed by {row['teacher']}" if row["teacher"] else "not instructed"

    return _draw_curves(rows, name_of, lambda row: row["refine_task"], titles, set())


def draw_pass_at_k(rows: Sequence[PassRow], titles: Mapping[str, str]) -> plt.Figure:
    """pass@k and maj@k of answers to test splits, a panel per benchmark; colours and markers: the arms."""

    def name_of(row: PassRow) -> str:
        facts = (row["arm"], f"by {row['teacher']}" if row["teacher"] else "", row["recipe"])
        return ", ".join(filter(None, facts))

    unrefined = {name_of(row) for row in rows if unrefined_mark(row)}
    return _draw_curves(rows, name_of, lambda row: row["evaluation"], titles, unrefined)


def _draw_curves(
    rows: Sequence[C],
    name_of: Callable[[C], str],
    task_of: Callable[[C], str],
    titles: Mapping[str, str],
    unrefined: Collection[str],
) -> plt.Figure:
    """Curves over the samples k: a panel per benchmark, a colour per name, a dash per measure; `unrefined` names."""
    tasks = list(dict.fromkeys(map(task_of, rows)))
    names = list(dict.fromkeys(map(name_of, rows)))
    markers, colours = style.cycle(names, "os^DvP*X<>ph"), style.cycle(names, style.LINES)
    figure, panels = style.grid(len(tasks), 3, 1.7)
    for panel, task in zip(panels, tasks, strict=True):
        here = [row for row in rows if task_of(row) == task]
        for name, measure in dict.fromkeys((name_of(row), row["measure"]) for row in here):
            curve = [row for row in here if (name_of(row), row["measure"]) == (name, measure)]
            below = [100 * (row["value"] - row["low"]) for row in curve]
            above = [100 * (row["high"] - row["value"]) for row in curve]
            panel.errorbar(
                [row["k"] for row in curve],
                [100 * row["value"] for row in curve],
                yerr=[below, above],
                color=colours[name],
                marker=markers[name],
                linestyle="-" if measure == "pass" else "--",
                elinewidth=0.6,
                capsize=1.5,
            )
        samples = sorted({row["k"] for row in here})
        panel.set_xscale("log", base=2)
        panel.set_xticks(samples, [str(k) for k in samples])
        panel.minorticks_off()
        panel.set_title(f"{titles[task]} (n = {here[0]['items']})")
        panel.set_xlabel("samples k")
        panel.set_ylabel("items solved (%)")
        panel.set_ylim(bottom=0)
    dashes = (("pass", "-"), ("maj", "--"))
    handles: list[object] = [style.line(f"{measure}@k", color="black", linestyle=dash) for measure, dash in dashes]
    shown = {name: f"{name} {UNREFINED}" if name in unrefined else name for name in names}
    handles += [style.line(shown[name], color=colours[name], marker=markers[name], linestyle="") for name in names]
    style.legend(figure, [*handles, *style.unrefined_note(rows)])
    return figure


def draw_yields(
    paths: Sequence[PathRow], pairs: Sequence[PairRow], rates: Sequence[SolvingRow], titles: Mapping[str, str]
) -> plt.Figure:
    """How sampled answers came out, by how they were asked, and which items gave pairs, by recipe.

    Lines: the intervals of correct answers (over seeds and items) and of items with pairs (Wilson's, averaged over
    seeds).
    """
    starts = list(dict.fromkeys(place_of(row) for row in paths))
    styles = list(dict.fromkeys(row["style"] for row in paths))
    recipes = list(dict.fromkeys(row["recipe"] for row in pairs))
    reasons = [reason for reason in reasons_of(pairs) if sum(row["dropped"][reason] for row in pairs)]
    bars = style.rows_of((start_label(start, titles) for start in starts), WIDE)
    figure, axes = plt.subplots(
        1,
        len(styles) + len(recipes),
        figsize=(style.PAGE, wording.LINE * bars.lines + AROUND),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, asked in zip(axes[0], styles, strict=False):
        draw_verdicts(panel, bars, by_place([row for row in paths if row["style"] == asked], starts))
        draw_intervals(panel, bars, by_place([row for row in rates if row["style"] == asked], starts))
        panel.set_title(f"asked: {asked}")
        panel.set_xlabel("answers (%)")
    for panel, recipe in zip(axes[0][len(styles) :], recipes, strict=True):
        mine = by_place([row for row in pairs if row["recipe"] == recipe], starts)
        draw_uses(panel, bars, mine, reasons)
        draw_intervals(panel, bars, mine)
        mark_rows(panel, bars, mine)
        panel.set_title(f"pairs: {recipe}")
        panel.set_xlabel("items (%)")
    bars.label(axes[0][0])
    fills = {**VERDICTS, **dict(zip(["gave pairs", *(name.replace("_", " ") for name in reasons)], USES, strict=False))}
    handles = [fill.patch(name) for name, fill in fills.items()]
    runs = by_place(pairs, starts)
    of_runs = [{"unrefined": sum(row["unrefined"] for row in mine), "seeds": len(mine)} for mine in runs]
    style.legend(figure, [*handles, *style.unrefined_note(of_runs)], bars.inches)
    return figure


def place_of(row: Start) -> Place:
    """Which bar a row belongs to."""
    return row["refine_task"], row["teacher"], row["task"], row["after"]


def by_place(rows: Sequence[S], starts: Sequence[Place]) -> list[list[S]]:
    """The rows of each start, such as those of its seeds."""
    return [[row for row in rows if place_of(row) == start] for start in starts]


def reasons_of(pairs: Sequence[PairRow]) -> list[str]:
    """Why items gave no pairs."""
    return list(pairs[0]["dropped"]) if pairs else []


def draw_verdicts(panel: plt.Axes, bars: style.Rows, found: Sequence[Sequence[PathRow]]) -> None:
    """Correct, incorrect and no answer, in percent of the answers."""
    paths = [sum(row["paths"] for row in rows) for rows in found]
    correct = [sum(row["correct"] for row in rows) for rows in found]
    incorrect = [sum(row["committed"] - row["correct"] for row in rows) for rows in found]
    without = [sum(row["paths"] - row["committed"] for row in rows) for rows in found]
    style.stack(panel, bars, [percent(part, paths) for part in (correct, incorrect, without)], VERDICTS.values())


def draw_uses(panel: plt.Axes, bars: style.Rows, found: Sequence[Sequence[PairRow]], reasons: Sequence[str]) -> None:
    """Items with pairs, and those without by reason, in percent of the items."""
    items = [sum(row["items"] for row in rows) for rows in found]
    parts = [[sum(row["items_with_pairs"] for row in rows) for rows in found]]
    parts += [[sum(row["dropped"][reason] for row in rows) for rows in found] for reason in reasons]
    style.stack(panel, bars, [percent(part, items) for part in parts], USES)


def draw_intervals(panel: plt.Axes, bars: style.Rows, found: Sequence[Sequence[SolvingRow | PairRow]]) -> None:
    """The interval of each bar's first part, averaged over its rows."""
    for place, rows in zip(bars.places, found, strict=True):
        if rows:
            ends = [100 * fmean(row["low"] for row in rows), 100 * fmean(row["high"] for row in rows)]
            style.interval(panel, ends, [place, place], 1)


def mark_rows(panel: plt.Axes, bars: style.Rows, found: Sequence[Sequence[PairRow]]) -> None:
    """Puts the mark at the end of the bars whose pairs were too few to learn from, in one seed at least."""
    for place, rows in zip(bars.places, found, strict=True):
        if any(unrefined_mark(row) for row in rows):
            panel.text(98, place, UNREFINED, ha="right", va="center", bbox=style.BOX, zorder=6)


def percent(part: Sequence[int], of: Sequence[int]) -> list[float]:
    """Shares in percent; 0 where there is nothing."""
    return [100 * value / whole if whole else 0.0 for value, whole in zip(part, of, strict=True)]


def start_label(start: Place, titles: Mapping[str, str]) -> str:
    """Who was sampled on what: the benchmark, and after what training."""
    refine_task, teacher, task, after = start
    before = f"instructed by {teacher}" if teacher else "not instructed"
    before += f" on {titles[task]}" if task not in ("", refine_task) else ""
    return ", ".join([titles[refine_task], before, *([f"refined with {after}"] if after else [])])
