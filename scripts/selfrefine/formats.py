"""A table as CSV (numbers apart from their intervals), Markdown and LaTeX (booktabs)."""

import csv
import dataclasses
import io
from typing import NamedTuple

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
        shown = [self.value] if self.low is None else [self.value, self.low, self.high]
        # Adding 0 turns -0.0 into 0.0.
        return [f"{round(number, self.decimals) + 0.0:.{self.decimals}f}" for number in shown]


Cell = str | Number


@dataclasses.dataclass
class Table:
    """A table: rows of cells under a header. `columns` are LaTeX's (`l`, `r`, `p{4cm}`, …); None instead of a row is a line."""

    name: str
    caption: str
    header: list[str]
    rows: list[list[Cell] | None]
    columns: list[str]

    def csv(self) -> str:
        """One column per text; a number with an interval takes three: itself, low and high."""
        rows = [row for row in self.rows if row is not None]
        spans = [
            any(isinstance(row[i], Number) and row[i].low is not None for row in rows) for i in range(len(self.header))
        ]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        parts = (
            (name, f"{name} low", f"{name} high") if span else (name,)
            for name, span in zip(self.header, spans, strict=True)
        )
        writer.writerow([part for names in parts for part in names])
        for row in rows:
            cells = []
            for cell, span in zip(row, spans, strict=True):
                texts = cell.texts() if isinstance(cell, Number) else [cell]
                cells += texts + [""] * (2 if span and len(texts) == 1 else 0)
            writer.writerow(cells)
        return text.getvalue()

    def markdown(self) -> str:
        """The table, padded so that it reads well on a terminal (but for columns of running text), and its caption below it."""
        rows = [[escape(name, MARKDOWN) for name in self.header]]
        rows += [[_in_markdown(cell) for cell in row] for row in self.rows if row is not None]
        padded = [
            max(len(row[i]) for row in rows) if len(self.columns[i]) == 1 else 3 for i in range(len(self.columns))
        ]
        rules = ["-" * (width + 1) + "-:"[column == "r"] for width, column in zip(padded, self.columns, strict=True)]
        lines = [
            " | ".join(
                cell.rjust(width) if column == "r" else cell.ljust(width)
                for cell, width, column in zip(row, padded, self.columns, strict=True)
            )
            for row in rows
        ]
        body = [f"| {lines[0]} |", f"|{'|'.join(rules)}|", *(f"| {line} |" for line in lines[1:])]
        return "\n".join(body) + f"\n\n{escape(self.caption, MARKDOWN)}\n"

    def latex(self) -> str:
        """A `table*` for a page of two columns; needs the package booktabs."""
        body = [r"\midrule" if row is None else " & ".join(map(_in_latex, row)) + r" \\" for row in self.rows]
        lines = [
            r"% \usepackage{booktabs}",
            r"\begin{table*}[t]",
            r"\centering\small",
            rf"\begin{{tabular}}{{@{{}}{''.join(self.columns)}@{{}}}}",
            r"\toprule",
            " & ".join(escape(name, LATEX) for name in self.header) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{escape(self.caption, LATEX)}}}",
            rf"\label{{tab:{self.name}}}",
            r"\end{table*}",
        ]
        return "\n".join(lines) + "\n"


def escape(text: str, signs: dict[str, str]) -> str:
    """A text with the signs that mean something to a format replaced."""
    return "".join(signs.get(character, character) for character in text)


def _in_markdown(cell: Cell) -> str:
    if not isinstance(cell, Number):
        return escape(cell, MARKDOWN)
    value, *ends = cell.texts()
    shown = f"{value} [{', '.join(ends)}]" if ends else value
    return f"*{shown}*" if cell.marked else shown


def _in_latex(cell: Cell) -> str:
    if not isinstance(cell, Number):
        return escape(cell, LATEX)
    value, *ends = cell.texts()
    value = rf"\underline{{{value}}}" if cell.marked else value
    return rf"${value}_{{{ends[0]}}}^{{{ends[1]}}}$" if ends else f"${value}$"
