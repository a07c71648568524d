"""Which rows of the study's tables a figure or a laid-out table shows.

Figures, laid-out tables and traces choose their rows here, so a trace leads to what is drawn. A row is a dictionary by
column: a table's cells as text, or a typed row of schema/results.py.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Row = TypeVar("Row", bound=Mapping[str, object])

ORDER = ("baseline", "refine-only", "instruct", "cross", "refine", "teacher")
FAMILIES = {"in-family": ("in",), "out-family": ("in", "out"), "lengths": ("in", "out", "")}
# Of a laid-out table: the columns that say what a row is of, each with the table's column behind it.
FACTS = {
    "transfer": {
        "arm": "arm",
        "teacher": "teacher",
        "instructed on": "task",
        "refined on": "refine_task",
        "recipe": "recipe",
    },
    "lengths": {
        "benchmark": "evaluation",
        "student": "student",
        "arm": "arm",
        "teacher": "teacher",
        "recipe": "recipe",
    },
    "solving": {
        "student": "student",
        "teacher": "teacher",
        "instructed on": "task",
        "after": "after",
        "sampled on": "refine_task",
        "style": "style",
    },
    "pass-at-k": {
        "benchmark": "evaluation",
        "arm": "arm",
        "teacher": "teacher",
        "instructed on": "task",
        "refined on": "refine_task",
        "recipe": "recipe",
    },
    "yields": {
        "student": "student",
        "teacher": "teacher",
        "instructed on": "task",
        "after": "after",
        "refined on": "refine_task",
        "recipe": "recipe",
        "seed": "seed",
    },
    "cost": {"student": "student", "arm": "arm", "stage": "stage"},
    "chains": {
        "benchmark": "evaluation",
        "student": "student",
        "arm": "arm",
        "teacher": "teacher",
        "recipe": "recipe",
    },
}
BENCHMARKS = ("task", "refine_task", "evaluation")
STYLES = {"cot": "with CoT", "plain": "without CoT"}


def in_figure(figure: str, student: str, rows: Sequence[Row], table: str) -> list[Row]:
    """The rows of one of its tables that a figure shows; `student`: whose figure it is, "" if there is one for all."""
    mine = [row for row in rows if not student or row["student"] == student]
    match figure:
        case "in-family" | "out-family" | "lengths":
            return _of_families(mine, FAMILIES[figure])
        case "low-resource" | "selection":
            return _of_shares(mine)
        case "solving":
            return [
                row
                for row in whole(mine)
                if row["style"] == "cot" and not row["after"] and row["task"] in ("", row["refine_task"])
            ]
        case "pass-at-k":
            return in_order(in_domain(whole(mine)) or whole(mine))
        case "claims" | "flips":
            return mine
        case "yields" if table == "solving":
            return [row for row in whole(mine) if (row["measure"], str(row["k"])) == ("pass", "1")]
    return whole(mine)


def of_layout(layout: str, student: str, rows: Sequence[Row]) -> list[Row]:
    """The rows of its table that a laid-out table shows."""
    shown = whole(rows)
    if layout == "transfer":
        mine = [row for row in shown if row["arm"] != "teacher" and row["student"] == student]
        taught = {row["teacher"] for row in mine}
        own = [row for row in shown if row["arm"] == "teacher" and row["teacher"] in taught]
        return in_order([*mine, *own])
    if layout == "pass-at-k":
        return in_order([row for row in shown if row["student"] == student])
    if layout == "chains":
        shown = [row for row in in_domain(shown) if row["arm"] in ("baseline", "instruct", "refine")]
        taught = {row["evaluation"] for row in shown if row["teacher"]}
        return [row for row in shown if row["evaluation"] in taught]
    if layout == "lengths":
        shown = in_domain(shown)
        trained = {row["evaluation"] for row in shown if row["arm"] not in ("baseline", "teacher")}
        return in_order([row for row in shown if not trained or row["evaluation"] in trained])
    return shown


def facts_shown(layout: str, row: Mapping[str, object], titles: Mapping[str, str]) -> list[str]:
    """What stands in the columns of a laid-out table that say what a row is of; benchmarks by their titles."""
    facts = ((fact, str(row.get(fact, ""))) for fact in FACTS[layout].values())
    return [titles.get(text, "") if fact in BENCHMARKS else text for fact, text in facts]


def in_layout(
    layout: str, student: str, laid: Mapping[str, str], rows: Sequence[Row], titles: Mapping[str, str], cell: str
) -> list[Row]:
    """The rows of its table that a row of a laid-out table shows; with `cell`, a column, those of that cell."""
    # A column in which nothing stands is left out of a laid-out table.
    named = [laid.get(column, "") for column in FACTS[layout]]
    found = [row for row in of_layout(layout, student, rows) if facts_shown(layout, row, titles) == named]
    if layout == "transfer" and cell in titles.values():
        return [row for row in found if titles.get(str(row["evaluation"])) == cell]
    if layout in ("solving", "pass-at-k") and "@" in cell:
        return [row for row in found if f"{row['measure']}@{row['k']}" == cell]
    return found


def files_in_layout(
    layout: str, laid: Mapping[str, str], rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str], cell: str
) -> list[str]:
    """The files that a row of a laid-out table shows, if it is made of files; `rows` are those of its settings."""
    match layout:
        case "teachers":
            known = [
                row for row in rows if (row["teacher"], titles[row["task"]]) == (laid["teacher"], laid["benchmark"])
            ]
            of_cell = [row for row in known if column_of_teachers(row["split"], row["style"]) == cell]
            return [row["answers"] for row in of_cell or known]
        case "prompts":
            named = laid["asked"].split(", ")
            asked = [row for row in rows if (row["kind"], row["style"]) == (laid["kind"], laid["style"])]
            return list(dict.fromkeys(row["items"] for row in asked if row["name"] in named))
        case "chains":
            known = [row for row in rows if titles[row["task"]] == laid["benchmark"]]
            return [row["demonstrations"] for row in known if row["teacher"] == laid.get("teacher")]
        case "splits":
            return [
                row["items"]
                for row in rows
                if (titles[row["task"]], row["split"]) == (laid["benchmark"], laid["split"])
            ]
    return []


def column_of_teachers(split: str, style: str) -> str:
    """The column of the table of teachers that holds their accuracy on a split, asked in a style."""
    return f"{split}, {STYLES[style]}"


def whole(rows: Sequence[Row]) -> list[Row]:
    """The rows of the largest share, and those that no share applies to.

    Where the items of that share were chosen, those of the way that comes first.
    """
    largest = max((_share(row) for row in rows if row["share"]), default=0.0)
    found = [row for row in rows if not row["share"] or _share(row) == largest]
    first = next((row.get("select") for row in found if row.get("select")), "")
    return [row for row in found if row.get("select", "") in ("", first)]


def _share(row: Mapping[str, object]) -> float:
    return float(str(row["share"]))


def in_domain(rows: Sequence[Row]) -> list[Row]:
    """The rows of checkpoints evaluated on what they were trained on, of base models and of teachers."""
    return [row for row in rows if {row["task"], row["refine_task"]} <= {"", row["evaluation"]}]


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Rows in the order of their arms; within an arm by teacher, tasks and recipe."""

    def place(row: Row) -> tuple[int, *tuple[str, ...]]:
        return ORDER.index(str(row["arm"])), *(str(row[name]) for name in ("teacher", "task", "refine_task", "recipe"))

    return sorted(rows, key=place)


def _of_families(rows: Sequence[Row], families: tuple[str, ...]) -> list[Row]:
    """The bars of the students that teachers of these families taught, and these teachers themselves."""
    rows = in_domain(whole(rows))

    def is_trained(row: Row) -> bool:
        return row["arm"] in ("instruct", "refine") and row["family"] in families

    return _with_references(rows, is_trained)


def _of_shares(rows: Sequence[Row]) -> list[Row]:
    """The points of one student's arms at every share, and its baseline on the benchmarks that they were trained on."""
    rows = [row for row in in_domain(rows) if row["arm"] != "teacher"]
    return _with_references(rows, lambda row: row["arm"] in ("instruct", "refine-only", "refine"))


def _with_references(rows: Sequence[Row], is_trained: Callable[[Row], bool]) -> list[Row]:
    """Trained arms, and on the same benchmarks the baselines of their students and their teachers themselves."""
    trained = [row for row in rows if is_trained(row)]
    known = {column: {row[column] for row in trained} for column in ("student", "teacher", "evaluation")}

    def is_shown(row: Row) -> bool:
        named = {"baseline": "student", "teacher": "teacher"}.get(str(row["arm"]))
        is_compared = named is not None and row[named] in known[named] and row["evaluation"] in known["evaluation"]
        return is_compared or is_trained(row)

    return [row for row in rows if is_shown(row)]
