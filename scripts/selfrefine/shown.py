"""Which rows of the study's tables a figure or a laid-out table shows, as the text that stands in them.

The same choice as the figures and layouts make of their data frames, without pandas, so that an archive can be traced anywhere.
"""

Cells = dict[str, str]
# Of a laid-out table, by column the column of the table behind it; a benchmark stands there by its title.
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
}
BENCHMARKS = ("task", "refine_task", "evaluation")
STYLES = {"cot": "with CoT", "plain": "without CoT"}


def in_figure(figure: str, student: str, rows: list[Cells], table: str) -> list[Cells]:
    """The rows of one of its tables that a figure shows; `student` is whose figure it is, "" if there is one for all."""
    mine = [row for row in rows if not student or row["student"] == student]
    match figure:
        case "in-family":
            return _bars(mine, ("in",))
        case "out-family" | "lengths":
            return _bars(mine, ("in", "out"))
        case "low-resource":
            return [row for row in in_domain(mine) if row["arm"] in ("baseline", "instruct", "refine-only", "refine")]
        case "solving":
            return [
                row
                for row in whole(mine)
                if row["style"] == "cot" and not row["after"] and row["task"] in ("", row["refine_task"])
            ]
        case "yields" if table == "solving":
            return [row for row in whole(mine) if (row["measure"], row["k"]) == ("pass", "1")]
    return whole(mine)


def in_layout(
    layout: str, student: str, laid: Cells, rows: list[Cells], titles: dict[str, str], cell: str
) -> list[Cells]:
    """The rows of its table that a row of a laid-out table shows; with `cell`, a column of it, those of that cell."""
    found = []
    for row in whole(rows):
        if layout == "transfer" and row["arm"] != "teacher" and row["student"] != student:
            continue
        texts = {
            column: titles.get(row.get(fact, ""), "") if fact in BENCHMARKS else row.get(fact, "")
            for column, fact in FACTS[layout].items()
        }
        # A column in which nothing stands is left out of a laid-out table.
        if all(laid.get(column, "") == text for column, text in texts.items()):
            found.append(row)
    if layout == "lengths":
        found = in_domain(found)
    if layout == "transfer" and cell in titles.values():
        found = [row for row in found if titles.get(row["evaluation"]) == cell]
    if layout == "solving" and "@" in cell:
        found = [row for row in found if f"{row['measure']}@{row['k']}" == cell]
    return found


def files_in_layout(layout: str, laid: Cells, rows: list[dict], titles: dict[str, str], cell: str) -> list[str]:
    """The files that a row of a laid-out table shows which is made of files; `rows` are those of its recipe."""
    match layout:
        case "teachers":
            known = [
                row for row in rows if (row["teacher"], titles[row["task"]]) == (laid["teacher"], laid["benchmark"])
            ]
            of_cell = [row for row in known if f"{row['split']}, {STYLES[row['style']]}" == cell]
            return [row["answers"] for row in of_cell or known]
        case "prompts":
            named = laid["asked"].split(", ")
            asked = [row for row in rows if (row["kind"], row["style"]) == (laid["kind"], laid["style"])]
            return list(dict.fromkeys(row["items"] for row in asked if row["name"] in named))
        case "splits":
            return [
                row["items"]
                for row in rows
                if (titles[row["task"]], row["split"]) == (laid["benchmark"], laid["split"])
            ]
    return []


def whole(rows: list[Cells]) -> list[Cells]:
    """The rows of the largest share, and those that no share applies to."""
    largest = max((float(row["share"]) for row in rows if row["share"]), default=0.0)
    return [row for row in rows if not row["share"] or float(row["share"]) == largest]


def in_domain(rows: list[Cells]) -> list[Cells]:
    """The rows of checkpoints evaluated on what they were trained on, of base models and of teachers."""
    return [row for row in rows if {row["task"], row["refine_task"]} <= {"", row["evaluation"]}]


def _bars(rows: list[Cells], families: tuple[str, ...]) -> list[Cells]:
    """The bars baseline, instruct and refine of the students that teachers of these families taught, and these teachers."""
    rows = in_domain(whole(rows))
    trained = [row for row in rows if row["arm"] in ("instruct", "refine") and row["family"] in families]
    known = {column: {row[column] for row in trained} for column in ("student", "teacher", "evaluation")}

    def is_shown(row: Cells) -> bool:
        named = {"baseline": "student", "teacher": "teacher"}.get(row["arm"])
        return row in trained or (named and row[named] in known[named] and row["evaluation"] in known["evaluation"])

    return [row for row in rows if is_shown(row)]
