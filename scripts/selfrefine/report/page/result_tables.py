"""The study's tables on the page: labels in words, numbers with intervals, sortable."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from selfrefine.report.labels import TESTS, with_note
from selfrefine.report.page.captions import LAYOUTS, caption_of
from selfrefine.report.page.model_titles import ARMS, STYLES, who
from selfrefine.report.page.page_inputs import PageInputs
from selfrefine.report.paper_tables import LACKING, NOTED

MODELS = ("student", "teacher")
ENDS = (" low", " high")


class Shown(NamedTuple):
    """A cell: its text, an interval below it, and the number that it sorts by (None: by its text)."""

    text: str
    interval: str = ""
    number: float | None = None


class SortableTable(NamedTuple):
    """A table under its title; `name` is its place in links."""

    name: str
    title: str
    caption: str
    header: list[str]
    rows: list[list[Shown]]

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers."""
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.header)
        return [any(c.number is not None for c in col) and all(is_number(c) for c in col) for col in columns]


def is_number(cell: Shown) -> bool:
    """Whether a cell may stand in a column of numbers: it is one, or nothing."""
    return cell.number is not None or cell.text in ("", "–")


def all_tables(inputs: PageInputs) -> list[SortableTable]:
    """Accuracy, differences and behaviour in words, then the tables laid out as in the paper."""
    own = [accuracy(inputs), differences(inputs), behaviour(inputs)]
    students = list(dict.fromkeys(cell["student"] for cell in inputs.index["cells"] if cell["student"]))
    laid = [_laid_out(inputs, name, path, students) for name, path in inputs.layouts.items()]
    return [table for table in (*own, *laid) if table.rows]


def accuracy(inputs: PageInputs) -> SortableTable:
    """arms.csv in words."""
    rows, several = inputs.tables.arms(), inputs.several - {"seed"}
    body = [
        [
            Shown(ARMS[row["arm"]], number=None),
            Shown(who(row, inputs.titles, several, inputs.models)),
            Shown(inputs.titles[row["evaluation"]]),
            percent(row["accuracy"], row["low"], row["high"]),
            whole(row["n"]),
            whole(row["seeds"]),
        ]
        for row in rows
    ]
    caption = (
        f"Correct answers (%), with {100 * inputs.level:g} % intervals over seeds and items. An item with several "
        "answers counts with the share of them that is correct."
    )
    header = ["Arm", "Model", "Benchmark", "Accuracy", "Items", "Seeds"]
    return SortableTable("accuracy", "Accuracy", with_note(caption, rows), header, body)


def differences(inputs: PageInputs) -> SortableTable:
    """comparisons.csv in words."""
    rows = inputs.tables.comparisons()
    body = [
        [
            Shown(f"{ARMS[row['arm']]} − {ARMS[row['against']].lower()}"),
            Shown(who(row, inputs.titles, inputs.several, inputs.models)),
            Shown(inputs.titles[row["evaluation"]]),
            points(row["difference"], row["low"], row["high"]),
            whole(row["gained"]),
            whole(row["lost"]),
            Shown(f"{row['p']:.2g}", number=row["p"]),
            Shown(TESTS[row["test"]]),
            whole(row["n"]),
        ]
        for row in rows
    ]
    caption = (
        "Each checkpoint against the one that it was trained from, on the same items, in accuracy points. Gained: "
        "incorrect before, correct after; of several answers to an item, the shares that are correct are summed. "
        f"Intervals: {100 * inputs.level:g} %; p: of no difference, by the test beside it."
    )
    header = ["Compared", "Model", "Benchmark", "Points", "Gained", "Lost", "p", "Test", "Items"]
    return SortableTable("differences", "Differences, paired by item", with_note(caption, rows), header, body)


def behaviour(inputs: PageInputs) -> SortableTable:
    """accuracy.csv in words: how the answers look."""
    rows = inputs.tables.accuracy()
    body = [
        [
            Shown(ARMS[row["arm"]]),
            Shown(who(row, inputs.titles, inputs.several, inputs.models)),
            Shown(inputs.titles[row["evaluation"]]),
            *(percent(row[name]) for name in ("accuracy", "legacy_accuracy", "committed", "chains", "cut")),
            Shown(f"{row['mean_tokens']:.0f}", number=row["mean_tokens"]),
        ]
        for row in rows
    ]
    caption = (
        "In percent of the answers. Answer found: an answer could be extracted. Reasons first: more than "
        "five words before the "
        "answer. Cut off: at the limit of tokens."
    )
    header = ["Arm", "Model", "Benchmark", "Correct", "Correct (legacy extractor)", "Answer found", "Reasons first"]
    header += ["Cut off", "Mean tokens"]
    return SortableTable("answers", "How the answers look", with_note(caption, rows), header, body)


def percent(value: float, low: float | None = None, high: float | None = None) -> Shown:
    """A share in percent."""
    ends = "" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"
    return Shown(f"{100 * value:.1f}", ends, 100 * value)


def points(value: float, low: float, high: float) -> Shown:
    """A difference in accuracy points."""
    return Shown(signed(100 * value), f"{signed(100 * low)} to {signed(100 * high)}", 100 * value)


def signed(number: float) -> str:
    """A number with its sign, one decimal and a proper minus."""
    return f"{round(number, 1) + 0.0:+.1f}".replace("-", "−").replace("+0.0", "0.0")


def whole(number: float) -> Shown:
    """A count; a sum of shares, where items have several answers."""
    text = f"{number:,.0f}" if number == int(number) else f"{number:,.1f}"
    return Shown(text, number=int(number) if number == int(number) else number)


def _laid_out(inputs: PageInputs, name: str, path: Path, students: Sequence[str]) -> SortableTable:
    """A laid-out table from its CSV; a number's interval stands in the two columns after it."""
    title, caption = caption_of(name, LAYOUTS, students, inputs.models)
    with open(path, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    shown = [place for place, column in enumerate(header) if not _is_end(header, place, column)]
    body = [[_cell(inputs, header, row, place) for place in shown] for row in rows]
    columns = [header[place][:1].upper() + header[place][1:] for place in shown]
    caption += NOTED if LACKING in header else ""
    return SortableTable(name, title, caption, columns, body)


def _is_end(header: list[str], place: int, column: str) -> bool:
    return any(
        column.endswith(end) and header[place - number] == column.removesuffix(end)
        for number, end in enumerate(ENDS, 1)
    )


def _cell(inputs: PageInputs, header: list[str], row: list[str], place: int) -> Shown:
    text, column = row[place], header[place]
    if column in MODELS:
        return Shown(inputs.models.either(text))
    if column in ("arm", "before"):
        return Shown(ARMS.get(text, text))
    if column == "style":
        return Shown(STYLES.get(text, text))
    if re.fullmatch(r"-?\d+(\.\d+)?", text) and column not in ("its answer", "example", "prompt"):
        has_ends = header[place + 1 : place + 3] == [column + end for end in ENDS] and row[place + 1]
        ends = " to ".join(row[place + 1 : place + 3]) if has_ends else ""
        decimals = len(text.partition(".")[2])
        return Shown(f"{float(text):,.{decimals}f}".replace("-", "−"), ends.replace("-", "−"), float(text))
    return Shown(text)
