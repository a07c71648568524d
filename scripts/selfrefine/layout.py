"""The study's results laid out as the paper's tables, and tables that the paper lacks."""

import itertools
from pathlib import Path

import pandas as pd

from selfrefine.arms import in_domain, in_order, whole
from selfrefine.files import read_json, read_jsonl
from selfrefine.formats import Cell, Number, Table
from selfrefine.prompts import Prompt, messages

# Characters of a benchmark's question that are quoted.
QUOTED = 160


def percent(value: float, low: float, high: float, marked: bool = False) -> Number:
    return Number(100 * value, 100 * low, 100 * high, 1, marked)


def between(table: pd.DataFrame) -> str:
    """What a caption says of the intervals."""
    return f"{100 * table.level.iloc[0]:g} % intervals over seeds and items"


def transfer(arms: pd.DataFrame, titles: dict[str, str], student: str) -> Table:
    """Rows: arms of one student by what they were trained on; columns: what they are evaluated on (Tables 1, 10, 11)."""
    arms = whole(arms)
    tasks, taught = list(arms.evaluation.unique()), set(arms[arms.student == student].teacher)
    shown = in_order(arms[(arms.student == student) | ((arms.arm == "teacher") & arms.teacher.isin(taught))])
    facts = ["arm", "teacher", "task", "refine_task", "recipe"]
    rows: list[list[Cell] | None] = []
    before = None
    for key, group in shown.groupby(facts, sort=False):
        arm, teacher, task, refine_task, recipe = key
        found = {row.evaluation: row for row in group.itertuples()}
        numbers = [
            percent(row.accuracy, row.low, row.high, name in (task, refine_task)) if (row := found.get(name)) else "–"
            for name in tasks
        ]
        if before not in (None, (arm, teacher)):
            rows.append(None)
        before = (arm, teacher)
        rows.append([arm, teacher, *(titles.get(name, "") for name in (task, refine_task)), recipe, *numbers])
    seeds = shown[shown.arm != "teacher"].seeds.max()
    caption = (
        f"Accuracy (%) of {student} with {between(shown)}; {seeds} seed{'s' if seeds > 1 else ''}. Rows: what it was instructed "
        "and refined on; columns: what it is evaluated on. Underlined (in Markdown: italic): trained on it."
    )
    header = ["arm", "teacher", "instructed on", "refined on", "recipe", *(titles[name] for name in tasks)]
    return drop_empty(Table(f"transfer-{student}", caption, header, rows, ["l"] * 5 + ["r"] * len(tasks)))


def drop_empty(table: Table) -> Table:
    """The table without the columns in which nothing stands."""
    kept = [i for i in range(len(table.header)) if any(row is not None and row[i] != "" for row in table.rows)]
    rows = [None if row is None else [row[i] for i in kept] for row in table.rows]
    columns = [table.columns[i] for i in kept]
    return Table(table.name, table.caption, [table.header[i] for i in kept], rows, columns)


def teachers(rows: list[dict], titles: dict[str, str], level: float, extractor: str) -> Table:
    """Accuracy of the teachers with and without a chain of thought, on train and test (Table 5); `rows` name the answers."""
    from selfrefine import statistics  # SciPy, which no other layout needs

    asked = list(dict.fromkeys((row["split"], row["style"]) for row in rows))
    asked.sort(key=lambda pair: (pair[0] != "train", pair[1]))
    cells: dict[tuple[str, str], dict[tuple[str, str], Number]] = {}
    for row in rows:
        right = [bool(answer[extractor]) for answer in read_jsonl(Path(row["answers"]))]
        number = percent(sum(right) / len(right), *statistics.wilson(sum(right), len(right), level))
        cells.setdefault((row["teacher"], row["task"]), {})[row["split"], row["style"]] = number
    body: list[list[Cell] | None] = []
    for _, keys in itertools.groupby(cells, key=lambda key: key[0]):
        body += [None] if body else []
        body += [[key[0], titles[key[1]], *(cells[key].get(pair, "–") for pair in asked)] for key in keys]
    names = {"cot": "with CoT", "plain": "without CoT"}
    header = ["teacher", "benchmark", *(f"{split}, {names[style]}" for split, style in asked)]
    caption = f"Accuracy (%) of the teachers with {100 * level:g} % Wilson intervals."
    return Table("teachers", caption, header, body, ["l", "l", *("r" for _ in asked)])


def prompts(rows: list[dict]) -> Table:
    """What is asked, by kind of benchmark and style, of whom (Table 6): one question each, as the model gets it."""
    sent: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        item = read_jsonl(Path(row["items"]))[0]
        chat = messages(item, Prompt(**row["prompt"]), row["style"], row["request"], row["system"])
        text = "\n".join(f"[{message['role']}] {message['content']}" for message in chat)
        sent.setdefault((row["kind"], row["style"], text), []).append(row["name"])
    body: list[list[Cell] | None] = [
        [kind, style, ", ".join(names), text] for (kind, style, text), names in sent.items()
    ]
    caption = (
        "The prompts, each with the first question of a benchmark of its kind. The model's chat template goes around the "
        "messages, and adds its own system message where it has one and none is shown."
    )
    return Table("prompts", caption, ["kind", "style", "asked", "prompt"], body, ["l", "l", "p{2.5cm}", "p{9.5cm}"])


def splits(rows: list[dict], titles: dict[str, str]) -> Table:
    """Sizes, answers and dropped records of each split, with one example (Table 9)."""
    body: list[list[Cell] | None] = []
    for row in rows:
        counts, item = read_json(Path(row["record"]))["figures"], read_jsonl(Path(row["items"]))[0]
        dropped = {reason.replace("_", " "): number for reason, number in counts["dropped"].items() if number}
        question = " ".join([item["question"], *item["choices"]])
        body.append(
            [titles[row["task"]], row["split"], str(counts["read"])]
            + [", ".join(f"{reason} {number}" for reason, number in dropped.items()) or "–", str(counts["not_needed"])]
            + [str(counts["items"]), ", ".join(f"{name} {n}" for name, n in counts.get("answers", {}).items()) or "–"]
            + [question if len(question) <= QUOTED else f"{question[:QUOTED].rstrip()} …", item["answer"]]
        )
    caption = "The splits: records read, dropped by reason, left over and used; how often each option is right; the first item."
    header = ["benchmark", "split", "read", "dropped", "left over", "items", "answers", "example", "its answer"]
    columns = ["l", "l", "r", "p{2cm}", "r", "r", "p{2cm}", "p{4.5cm}", "l"]
    return Table("splits", caption, header, body, columns)


def lengths(table: pd.DataFrame, titles: dict[str, str]) -> Table:
    """Tokens per answer by arm on what it was trained on, and how many more than before that training."""
    table = in_order(in_domain(whole(table)))
    trained = table[~table.arm.isin(("baseline", "teacher"))].evaluation
    table = table[table.evaluation.isin(trained)] if len(trained) else table
    body: list[list[Cell] | None] = []
    for row in table.itertuples():
        longer: Cell = Number(row.longer, row.longer_low, row.longer_high) if row.against else ""
        tokens = Number(row.tokens, row.low, row.high)
        body.append(
            [titles[row.evaluation], row.student, row.arm, row.teacher, row.recipe, tokens, longer, row.against]
        )
    caption = f"Tokens per answer on the benchmark trained on, with {between(table)}; the difference is paired by item and seed."
    header = ["benchmark", "student", "arm", "teacher", "recipe", "tokens", "more than before", "before"]
    return drop_empty(Table("lengths", caption, header, body, ["l"] * 5 + ["r", "r", "l"]))


def solving(table: pd.DataFrame, titles: dict[str, str]) -> Table:
    """pass@k and maj@k of the sampled answers."""
    table = whole(table)
    facts = ["student", "teacher", "task", "after", "refine_task", "style"]
    columns = list(table[["measure", "k"]].drop_duplicates().sort_values(["k"], kind="stable").itertuples(index=False))
    columns.sort(key=lambda pair: pair.measure != "pass")
    body: list[list[Cell] | None] = []
    for (student, teacher, task, after, refine_task, style), group in table.groupby(facts, sort=False):
        found = {(row.measure, row.k): percent(row.value, row.low, row.high) for row in group.itertuples()}
        numbers = [found.get((pair.measure, pair.k), "–") for pair in columns]
        body.append([student, teacher, titles.get(task, ""), after, titles[refine_task], style, *numbers])
    caption = f"Training items solved (%) by k sampled answers: at least one right (pass), the majority right (maj), with {between(table)}."
    header = ["student", "teacher", "instructed on", "after", "sampled on", "style"]
    header += [f"{pair.measure}@{pair.k}" for pair in columns]
    return drop_empty(Table("solving", caption, header, body, ["l"] * 6 + ["r"] * len(columns)))


def yields(table: pd.DataFrame, titles: dict[str, str]) -> Table:
    """Items that gave preference pairs, and why others did not."""
    table = whole(table)
    dropped = [name for name in table.columns if name.startswith("dropped_") and table[name].sum()]
    body: list[list[Cell] | None] = []
    for row in table.to_dict("records"):
        body.append(
            [row["student"], row["teacher"], titles.get(row["task"], ""), row["after"], titles[row["refine_task"]]]
            + [row["recipe"], str(row["seed"]), str(row["items"]), percent(row["yield"], row["low"], row["high"])]
            + [str(row["pairs"]), *(f"{row[name]:g}" for name in dropped)]
        )
    caption = "Training items that gave preference pairs (%, with Wilson intervals), and the numbers dropped by reason."
    header = [
        "student",
        "teacher",
        "instructed on",
        "after",
        "refined on",
        "recipe",
        "seed",
        "items",
        "with pairs",
        "pairs",
    ]
    header += [name.removeprefix("dropped_").replace("_", " ") for name in dropped]
    return drop_empty(Table("yields", caption, header, body, ["l"] * 6 + ["r"] * (4 + len(dropped))))


def cost(table: pd.DataFrame) -> Table:
    """What one checkpoint of each arm took, by stage."""
    body: list[list[Cell] | None] = []
    for _, group in whole(table).groupby(["student", "arm"], sort=False):
        body += [None] if body else []
        for row in group.itertuples():
            seconds = Number(row.wall_seconds, row.least, row.most, 0)
            body.append(
                [row.student, row.arm, row.stage, str(row.checkpoints), f"{row.jobs:g}", seconds]
                + [f"{row.tokens:.0f}", str(row.peak_memory_mib)]
            )
    caption = (
        "Cost of one checkpoint of each arm from its teacher's answers to its evaluation: the mean over the arm's checkpoints "
        "of the largest share, and the range of the wall time. Jobs that several checkpoints share count for each. Tokens: made or, in training, seen."
    )
    header = ["student", "arm", "stage", "checkpoints", "jobs", "wall seconds", "tokens", "peak memory (MiB)"]
    return Table("cost", caption, header, body, ["l"] * 3 + ["r"] * 5)
