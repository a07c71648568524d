"""The study's results laid out as the paper's tables, and tables that the paper lacks."""

import itertools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from selfrefine.data.prompts import messages
from selfrefine.data.shots import items_to_show
from selfrefine.report import spending
from selfrefine.report.formats import NONE, Cell, Number, Rows, Table
from selfrefine.report.labels import UNREFINED, unrefined_cell
from selfrefine.report.selection import FACTS, column_of_teachers, facts_shown
from selfrefine.report.spending import Spent
from selfrefine.schema.assumptions import Costs
from selfrefine.schema.prompt import TaskPrompt
from selfrefine.schema.results import ArmRow, CostRow, LengthRow, PairRow, PassRow, SolvingRow
from selfrefine.schema.rows import judged_correct
from selfrefine.store.files import read_json, read_jsonl

Titles = Mapping[str, str]
R = TypeVar("R")
K = TypeVar("K", bound=Hashable)
# Characters of a benchmark's question, or of its answer, that are quoted.
QUOTED = 160
# The column that says how many checkpoints of a row had too few pairs to be refined; and what a caption says of it.
LACKING = f"unrefined {UNREFINED}"
NOTED = (
    f" Unrefined {UNREFINED}: had too few pairs to learn from, or online no rewards that differed, so that the refinement "
    "left the student as it was."
)


def percent(value: float, low: float, high: float, marked: bool = False) -> Number:
    return Number(100 * value, 100 * low, 100 * high, 1, marked)


def between(rows: Sequence[ArmRow] | Sequence[LengthRow] | Sequence[SolvingRow] | Sequence[PassRow]) -> str:
    """What a caption says of the intervals."""
    return f"{100 * rows[0]['level']:g} % intervals over seeds and items"


def grouped(rows: Iterable[R], key: Callable[[R], K]) -> dict[K, list[R]]:
    """Rows by a key, in the order in which the keys come."""
    groups: dict[K, list[R]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def transfer(rows: Sequence[ArmRow], titles: Titles, student: str, tasks: Sequence[str]) -> Table:
    """One student's arms by what they were trained on, against what they are evaluated on (Tables 1, 10, 11)."""
    body: Rows = []
    before: tuple[str, str] | None = None
    for group in grouped(rows, lambda row: tuple(facts_shown("transfer", row, titles))).values():
        first = group[0]
        found = {row["evaluation"]: row for row in group}
        numbers: list[Cell] = [
            percent(row["accuracy"], row["low"], row["high"], name in (row["task"], row["refine_task"]))
            if (row := found.get(name))
            else NONE
            for name in tasks
        ]
        if before not in (None, (first["arm"], first["teacher"])):
            body.append(None)
        before = (first["arm"], first["teacher"])
        body.append([*facts_shown("transfer", first, titles), lacking(group), *numbers])
    seeds = max(row["seeds"] for row in rows if row["arm"] != "teacher")
    caption = (
        f"Accuracy (%) of {student} with {between(rows)}; {seeds} seed{'s' if seeds > 1 else ''}. Rows: what it was "
        "instructed and refined on; columns: what it is evaluated on. Underlined (in Markdown: italic): trained on it."
    )
    header = [*FACTS["transfer"], LACKING, *(titles[name] for name in tasks)]
    return finished(Table(f"transfer-{student}", caption, header, body, ["l"] * 6 + ["r"] * len(tasks)))


def lacking(rows: Sequence[Mapping[str, Any]], of: str = "seeds") -> str:
    """How many checkpoints of one arm, whose rows these are, had too few pairs to be refined."""
    return max((unrefined_cell(row, of) for row in rows), default="")


def finished(table: Table) -> Table:
    """The table without the columns in which nothing stands, and with what the caption says of those that do."""
    kept = [i for i in range(len(table.header)) if any(row is not None and row[i] != "" for row in table.rows)]
    rows: Rows = [None if row is None else [row[i] for i in kept] for row in table.rows]
    columns = [table.columns[i] for i in kept]
    header = [table.header[i] for i in kept]
    return Table(table.name, table.caption + (NOTED if LACKING in header else ""), header, rows, columns)


def teachers(rows: Sequence[Mapping[str, Any]], titles: Titles, level: float, extractor: str) -> Table:
    """Accuracy of the teachers by style, on train and test (Table 5); `rows` name their files of answers."""
    from selfrefine.analysis import statistics  # SciPy, which no other layout needs

    asked = list(dict.fromkeys((row["split"], row["style"]) for row in rows))
    asked.sort(key=lambda pair: (pair[0] != "train", pair[1]))
    cells: dict[tuple[str, str], dict[tuple[str, str], Number]] = {}
    for row in rows:
        correct = [judged_correct(answer, extractor) for answer in read_jsonl(Path(row["answers"]))]
        number = percent(sum(correct) / len(correct), *statistics.wilson(sum(correct), len(correct), level))
        cells.setdefault((row["teacher"], row["task"]), {})[row["split"], row["style"]] = number
    body: Rows = []
    for _, keys in itertools.groupby(cells, key=lambda key: key[0]):
        body += [None] if body else []
        body += [[key[0], titles[key[1]], *(cells[key].get(pair, NONE) for pair in asked)] for key in keys]
    header = ["teacher", "benchmark", *(column_of_teachers(*pair) for pair in asked)]
    caption = f"Accuracy (%) of the teachers with {100 * level:g} % Wilson intervals."
    return Table("teachers", caption, header, body, ["l", "l", *("r" for _ in asked)])


def prompts(rows: Sequence[Mapping[str, Any]]) -> Table:
    """What is asked, by kind of benchmark and style, of whom (Table 6): one question each, as the model gets it."""
    sent: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        item = read_jsonl(Path(row["items"]))[0]
        prompt = TaskPrompt(**row["prompt"])
        shots = items_to_show(prompt, Path(row["shots"]) if row.get("shots") else None)
        chat = messages(item, prompt, row["style"], row["request"], row["system"], shots)
        text = "\n".join(f"[{message['role']}] {message['content']}" for message in chat)
        sent.setdefault((row["kind"], row["style"], text), []).append(row["name"])
    body: Rows = [[kind, style, ", ".join(names), text] for (kind, style, text), names in sent.items()]
    caption = (
        "The prompts, each with the first question of a benchmark of its kind. The model's chat template goes around "
        "the messages, and adds its own system message where it has one and none is shown."
    )
    return Table("prompts", caption, ["kind", "style", "asked", "prompt"], body, ["l", "l", "p{2.5cm}", "p{9.5cm}"])


def _quoted(text: str) -> str:
    return text if len(text) <= QUOTED else f"{text[:QUOTED].rstrip()} …"


def splits(rows: Sequence[Mapping[str, Any]], titles: Titles) -> Table:
    """Sizes, answers and dropped rows of each split, with one example (Table 9)."""
    body: Rows = []
    for row in rows:
        counts, item = read_json(Path(row["record"]))["figures"], read_jsonl(Path(row["items"]))[0]
        dropped = {reason.replace("_", " "): number for reason, number in counts["dropped"].items() if number}
        question = " ".join([item["question"], *item["choices"]])
        body.append(
            [titles[row["task"]], row["split"], str(counts["read"])]
            + [", ".join(f"{reason} {number}" for reason, number in dropped.items()) or NONE, str(counts["not_needed"])]
            + [str(counts["items"]), ", ".join(f"{name} {n}" for name, n in counts.get("answers", {}).items()) or NONE]
            + [_quoted(question), _quoted(item["answer"])]
        )
    caption = (
        "The splits: rows read, dropped by reason, left over and used; how often each option is correct; "
        "the first item."
    )
    header = ["benchmark", "split", "read", "dropped", "left over", "items", "answers", "example", "its answer"]
    columns = ["l", "l", "r", "p{2cm}", "r", "r", "p{2cm}", "p{4.5cm}", "p{2cm}"]
    return Table("splits", caption, header, body, columns)


def lengths(rows: Sequence[LengthRow], titles: Titles) -> Table:
    """Tokens per answer by arm on what it was trained on, and how many more than before that training."""
    body: Rows = []
    for row in rows:
        longer: Cell = Number(row["longer"], row["longer_low"], row["longer_high"]) if row["against"] else ""
        tokens = Number(row["tokens"], row["low"], row["high"])
        body.append([*facts_shown("lengths", row, titles), unrefined_cell(row), tokens, longer, row["against"]])
    caption = (
        f"Tokens per answer on the benchmark trained on, with {between(rows)}; "
        "the difference is paired by item and seed."
    )
    header = [*FACTS["lengths"], LACKING, "tokens", "more than before", "before"]
    return finished(Table("lengths", caption, header, body, ["l"] * 6 + ["r", "r", "l"]))


def solving(rows: Sequence[SolvingRow], titles: Titles) -> Table:
    """pass@k and maj@k of the sampled answers."""
    columns = sorted({(row["measure"], row["k"]) for row in rows}, key=lambda pair: (pair[0] != "pass", pair[1]))
    body: Rows = []
    for group in grouped(rows, lambda row: tuple(facts_shown("solving", row, titles))).values():
        found = {(row["measure"], row["k"]): percent(row["value"], row["low"], row["high"]) for row in group}
        body.append([*facts_shown("solving", group[0], titles), *(found.get(pair, NONE) for pair in columns)])
    caption = (
        "Training items solved (%) by k sampled answers: at least one correct (pass), the majority correct (maj), with "
        f"{between(rows)}."
    )
    header = [*FACTS["solving"], *(f"{measure}@{k}" for measure, k in columns)]
    return finished(Table("solving", caption, header, body, ["l"] * 6 + ["r"] * len(columns)))


def pass_at_k(rows: Sequence[PassRow], titles: Titles, student: str) -> Table:
    """pass@k and maj@k of one student's arms on the test splits."""
    columns = sorted({(row["measure"], row["k"]) for row in rows}, key=lambda pair: (pair[0] != "pass", pair[1]))
    body: Rows = []
    for group in grouped(rows, lambda row: tuple(facts_shown("pass-at-k", row, titles))).values():
        found = {(row["measure"], row["k"]): percent(row["value"], row["low"], row["high"]) for row in group}
        facts = [*facts_shown("pass-at-k", group[0], titles), lacking(group)]
        body.append([*facts, *(found.get(pair, NONE) for pair in columns)])
    caption = (
        f"{student}: test items solved (%) by k sampled answers: at least one correct (pass), the majority correct "
        f"(maj), with {between(rows)}."
    )
    header = [*FACTS["pass-at-k"], LACKING, *(f"{measure}@{k}" for measure, k in columns)]
    return finished(Table(f"pass-at-k-{student}", caption, header, body, ["l"] * 7 + ["r"] * len(columns)))


def yields(rows: Sequence[PairRow], titles: Titles) -> Table:
    """Items that gave preference pairs, and why others did not."""
    reasons = [reason for reason in rows[0]["dropped"] if sum(row["dropped"][reason] for row in rows)]
    body: Rows = []
    for row in rows:
        given: list[Cell] = [str(row["items"]), percent(row["yield"], row["low"], row["high"]), str(row["pairs"])]
        dropped = (str(row["dropped"][reason]) for reason in reasons)
        body.append([*facts_shown("yields", row, titles), "yes" if row["unrefined"] else "", *given, *dropped])
    caption = "Training items that gave preference pairs (%, with Wilson intervals), and the numbers dropped by reason."
    header = [
        *FACTS["yields"],
        LACKING,
        "items",
        "with pairs",
        "pairs",
        *(reason.replace("_", " ") for reason in reasons),
    ]
    columns = ["l"] * (1 + len(FACTS["yields"])) + ["r"] * (3 + len(reasons))
    return finished(Table("yields", caption, header, body, columns))


def cost(rows: Sequence[CostRow], costs: Costs) -> Table:
    """What one checkpoint of each arm took, by stage."""
    body: Rows = []
    for group in grouped(rows, lambda row: (row["student"], row["arm"])).values():
        body += [None] if body else []
        for row in group:
            seconds = Number(row["wall_seconds"], row["least"], row["most"], 0)
            counts = [unrefined_cell(row, "checkpoints"), str(row["checkpoints"]), f"{row['jobs']:g}"]
            tokens = f"{row['tokens']:.0f}", f"{row['tokens_trained']:.0f}"
            spent: list[Cell] = [seconds, *tokens, str(row["peak_memory_mib"])]
            body.append([*facts_shown("cost", row, {}), *counts, *spent, *spending.cells(Spent.of([row]), costs)])
    caption = (
        "Cost of one checkpoint of each arm from its teacher's answers to its evaluation: the mean over the arm's "
        "checkpoints of the largest share, and the range of the wall time. Jobs that several checkpoints share count "
        "for each. Tokens: generated and, in training, seen; trained: the latter. "
        f"{spending.told(Spent.of(rows), costs)}"
    )
    header = [*FACTS["cost"], LACKING, "checkpoints", "jobs", "wall seconds", "tokens", "trained"]
    header += ["peak memory (MiB)", *spending.header(costs)]
    return finished(Table("cost", caption, header, body, ["l"] * 4 + ["r"] * (len(header) - 4)))
