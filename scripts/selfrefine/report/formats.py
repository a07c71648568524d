"""A table as CSV (numbers apart from their intervals), Markdown and LaTeX (booktabs)."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after a line's end it would begin an argument
    "→": r"$\rightarrow$",
    "−": "$-$",
    "…": r"\ldots{}",
    "–": "--",
    "\n": r"\newline ",
}
MARKDOWN = {"|": r"\|", "<": "&lt;", ">": "&gt;", "*": r"\*", "`": r"\`", "\n": "<br>"}


class Number(NamedTuple):
    """A number with its interval (None where there is none), as it is shown; `marked` sets it off."""

    value: float
    low: float | None = None
    high: float | None = None
    decimals: int = 1
    marked: bool = False

    def texts(self) -> list[str]:
        """The number and, if there is an interval, its ends, rounded."""
        shown = [self.value] if self.low is None or self.high is None else [self.value, self.low, self.high]
        # Adding 0 turns -0.0 into 0.0.
        return [f"{round(number, self.decimals) + 0.0:.{self.decimals}f}" for number in shown]


Cell = str | Number
Row = Sequence[Cell]
# None instead of a row is a line.
Rows = list[Row | None]


@dataclasses.dataclass
class Table:
    """A table: rows of cells under a header. `columns` are LaTeX's (`l`, `r`, `p{4cm}`, …)."""

    name: str
    caption: str
    header: list[str]
    rows: Rows
    columns: list[str]

    def csv(self) -> str:
        """One column per text; a number with an interval takes three: itself, low and high."""
        rows = [row for row in self.rows if row is not None]
        spans = [max((len(_texts(row[i])) for row in rows), default=1) for i in range(len(self.header))]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        named = zip(self.header, spans, strict=True)
        writer.writerow([f"{name}{end}" for name, span in named for end in ("", " low", " high")[:span]])
        for row in rows:
            cells = ((*_texts(cell), "", "")[:span] for cell, span in zip(row, spans, strict=True))
            writer.writerow([text for texts in cells for text in texts])
        return text.getvalue()

    def markdown(self) -> str:
        """The table with its caption below it; padded for a terminal, except columns of running text."""
        rows = [[in_markdown(cell) for cell in row] for row in (self.header, *self.rows) if row is not None]
        padded = [max(len(row[i]) for row in rows) if len(column) == 1 else 3 for i, column in enumerate(self.columns)]
        rules = ["-" * (width + 1) + "-:"[column == "r"] for width, column in zip(padded, self.columns, strict=True)]
        header, *body = (
            [
                cell.rjust(width) if column == "r" else cell.ljust(width)
                for cell, width, column in zip(row, padded, self.columns, strict=True)
            ]
            for row in rows
        )
        return PAGES.get_template("templates/table.md.j2").render(
            header=header, rules=rules, rows=body, caption=self.caption
        )

    def latex(self) -> str:
        """A `table*` for a page of two columns; needs the package booktabs."""
        return PAPER.get_template("templates/table.tex.j2").render(table=self)


def in_markdown(cell: Cell) -> str:
    """A cell as Markdown: signs that mean something are escaped, an interval stands in brackets."""
    if not isinstance(cell, Number):
        return escape(cell, MARKDOWN)
    value, *ends = cell.texts()
    shown = f"{value} [{', '.join(ends)}]" if ends else value
    return f"*{shown}*" if cell.marked else shown


def in_latex(cell: Cell) -> str:
    """A cell as LaTeX: signs that mean something are escaped, an interval stands above and below the number."""
    if not isinstance(cell, Number):
        return escape(cell, LATEX)
    value, *ends = cell.texts()
    value = rf"\underline{{{value}}}" if cell.marked else value
    return rf"${value}_{{{ends[0]}}}^{{{ends[1]}}}$" if ends else f"${value}$"


def escape(text: str, signs: dict[str, str]) -> str:
    """A text with the signs that mean something to a format replaced."""
    return "".join(signs.get(character, character) for character in text)


def _texts(cell: Cell) -> list[str]:
    return cell.texts() if isinstance(cell, Number) else [cell]


def _environment(**delimiters: Any) -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **delimiters,
    )
    found.filters |= {"markdown": in_markdown, "latex": in_latex}
    return found


# Templates of Markdown, and of LaTeX, to which braces and percent signs mean something.
PAGES = _environment()
PAPER = _environment(
    block_start_string="<%",
    block_end_string="%>",
    variable_start_string="<<",
    variable_end_string=">>",
    comment_start_string="<#",
    comment_end_string="#>",
)
