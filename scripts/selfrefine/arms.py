"""Reading the study's tables, and the rows of them that figures and laid-out tables show."""

from pathlib import Path

import pandas as pd

ORDER = ("baseline", "refine-only", "instruct", "cross", "refine", "teacher")
TEXT = (
    "arm",
    "student",
    "teacher",
    "family",
    "task",
    "after",
    "refine_task",
    "recipe",
    "evaluation",
    "interval",
    "against",
)


def read_table(folder: Path, name: str) -> pd.DataFrame:
    """One of the tables; what is text stays text, empty cells are "" in it and NaN in numbers."""
    table = pd.read_csv(folder / f"{name}.csv", dtype=dict.fromkeys(TEXT, str))
    return table.fillna({column: "" for column in TEXT if column in table})


def whole(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the largest share, and those that no share applies to."""
    return table[table.share.isna() | (table.share == table.share.max())]


def in_domain(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of checkpoints evaluated on what they were trained on, of base models and of teachers."""
    task, refined = (table[column].where(table[column] != "", table.evaluation) for column in ("task", "refine_task"))
    return table[(task == table.evaluation) & (refined == table.evaluation)]


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order of their arms; within an arm by teacher, tasks and recipe."""
    return rows.assign(order=[ORDER.index(arm) for arm in rows.arm]).sort_values(
        ["order", "teacher", "task", "refine_task", "recipe"], kind="stable"
    )
