"""How well students learn from short and long chains: accuracy by demonstrations' length."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfrefine.report.formats import NONE, Cell, Number, Rows, Table
from selfrefine.report.labels import unrefined_cell
from selfrefine.report.paper_tables import LACKING, Titles, between, finished, percent
from selfrefine.report.selection import FACTS, facts_shown
from selfrefine.schema.results import ArmRow
from selfrefine.store.files import read_jsonl


def chains(rows: Sequence[ArmRow], titles: Titles, taught: Sequence[Mapping[str, Any]], level: float) -> Table:
    """Accuracy by student and demonstrations; `taught` names each teacher's file of demonstrations by benchmark."""
    lengths = {(row["teacher"], row["task"]): _tokens(row["demonstrations"], level) for row in taught}

    def shorter_first(row: ArmRow) -> tuple[str, str, str, float]:
        length = lengths.get((row["teacher"], row["task"]))
        return row["evaluation"], row["student"], row["recipe"], length[1].value if length else 0.0

    body: Rows = []
    before: tuple[str, str] | None = None
    for row in sorted(rows, key=shorter_first):
        body += [None] if before not in (None, (row["evaluation"], row["student"])) else []
        before = row["evaluation"], row["student"]
        learned: tuple[Cell, Cell] = lengths.get((row["teacher"], row["task"]), (NONE, NONE))
        accuracy = percent(row["accuracy"], row["low"], row["high"])
        body.append([*facts_shown("chains", row, titles), unrefined_cell(row), *learned, accuracy])
    caption = (
        "Accuracy (%) on the benchmark trained on, by the demonstrations that a student learned from, the shorter ones "
        f"first; {between(rows)}. Tokens of a demonstration, as its teacher counts them: mean, with an interval over "
        "the items. Teachers with other vocabularies count differently."
    )
    header = [*FACTS["chains"], LACKING, "demonstrations", "tokens of one", "accuracy"]
    return finished(Table("chains", caption, header, body, ["l"] * 6 + ["r"] * 3))


def _tokens(file: str, level: float) -> tuple[str, Number]:
    """How many demonstrations a file has, and the mean of their tokens."""
    import numpy as np

    from selfrefine.analysis.lengths import mean_and_interval  # SciPy, which few layouts need

    tokens = [float(row["tokens"]) for row in read_jsonl(Path(file))]
    mean, low, high = mean_and_interval(np.array([tokens]), level)
    return str(len(tokens)), Number(mean, low, high)
