"""A table as CSV (numbers apart from their intervals), Markdown and LaTeX (booktabs)."""

import csv
import dataclasses
import io
import math
import re
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
    "`": r"\textasciigrave{}",
    "→": r"$\rightarrow$",
    "−": "$-$",
    "…": r"\ldots{}",
    "–": "--",
    "†": r"\dag{}",
    "\n": r"\newline ",
}
# Two hyphens would become a dash.
HYPHENS = re.compile("-(?=-)")
# What pdflatex sets by itself, beside the signs above.
PLAIN = re.compile(r"[\x00-\xff]*")
MARKDOWN = {"|": r"\|", "<": "&lt;", ">": "&gt;", "*": r"\*", "`": r"\`", "~": r"\~", "\n": "<br>"}
# What is markup only in some places: a backslash before a sign, an entity, the underscores around a word, a link's
# middle.
MARKED = (
    (re.compile(r"\\(?=[!-/:-@\[-`{-~]|$)"), r"\\\\"),
    (re.compile(r"&(?=#?\w+;)"), "&amp;"),
    (re.compile(r"(?<![^\W_])_|_(?![^\W_])"), r"\_"),
    (re.compile(r"\](?=\()"), r"\\]"),
)
# Headings and lists, where a line begins.
AT_START = (
    (re.compile(r"^(?=(?:#{1,6}|[-+])(?:\s|$))"), r"\\"),
    (re.compile(r"^(\d+)(?=[.)]\s)"), r"\1\\"),
)


class Blank(str):
    """A cell in which nothing stands: shown as this text, and empty in CSV, so that columns of numbers stay numbers."""


NONE = Blank("–")


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
        if math.isnan(self.value):
            return [NONE]
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
            writer.writerow(["" if isinstance(text, Blank) else text for texts in cells for text in texts])
        return text.getvalue()

    def markdown(self) -> str:
        """The table with its caption below it; padded for a terminal, except columns of running text."""
        rows = [[in_markdown_cell(cell) for cell in row] for row in (self.header, *self.rows) if row is not None]
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
        text = PAPER.get_template("templates/table.tex.j2").render(table=self)
        beyond = sorted({sign for sign in text if not PLAIN.fullmatch(sign)})
        needed = f"% Has {' '.join(beyond)}: compile it with XeLaTeX or LuaLaTeX, and a font that has them.\n"
        return f"{needed if beyond else ''}{text}"


def in_markdown(text: str) -> str:
    """A line of text as Markdown: signs that mean something are escaped."""
    shown = in_markdown_cell(text)
    for sign, escaped in AT_START:
        shown = sign.sub(escaped, shown)
    return shown


def in_markdown_cell(cell: Cell) -> str:
    """A cell as Markdown: signs that mean something are escaped, an interval stands in brackets."""
    if not isinstance(cell, Number):
        for sign, shown in MARKED:
            cell = sign.sub(shown, cell)
        # A pair of dollars is a formula in many readers.
        return escape(cell, {**MARKDOWN, "$": r"\$"} if cell.count("$") > 1 else MARKDOWN)
    value, *ends = cell.texts()
    shown = f"{value} [{', '.join(ends)}]" if ends else value
    return f"*{shown}*" if cell.marked else shown


def in_latex(cell: Cell) -> str:
    """A cell as LaTeX: signs that mean something are escaped, an interval stands above and below the number."""
    if not isinstance(cell, Number):
        return HYPHENS.sub("-{}", escape(cell, LATEX))
    value, *ends = cell.texts()
    if isinstance(value, Blank):
        return escape(value, LATEX)
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
