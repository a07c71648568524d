"""Counts the study's numbers again from the files behind them: rows of its tables, comparisons of its claims.

Not their intervals and p-values: these follow from what is counted.
"""

import csv
import math
from array import array
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import NamedTuple

from selfrefine.attempts import solved
from selfrefine.errors import UserError
from selfrefine.files import read_json, read_jsonl
from selfrefine.jobs import Records, jobs_of, tokens_of
from selfrefine.links import Results, is_listing
from selfrefine.provenance import FileState, Record

# Of each table, the columns that name the files behind a row; behind one of the costs are jobs that the index names.
BEHIND = {
    "accuracy": ("samples",),
    "arms": ("samples",),
    "comparisons": ("samples",),
    "lengths": ("samples", "against_samples"),
    "demonstrations": ("demonstrations",),
    "paths": ("sampled",),
    "solving": ("sampled",),
    "pairs": ("sampled",),
    "stages": ("artifact",),
    "costs": (),
    "claims": ("samples", "against_samples"),
}
# What a comparison of a claim is known by, beside the claim; whose cells its files must be.
FACTS = ("arm", "against", "student", "teacher", "against_teacher", "task", "refine_task", "share", "evaluation")
SIDE = ("student", "share", "evaluation")
NUMBERS = ("items", "seeds", "accuracy", "against_accuracy", "difference", "low", "high", "p", "corrected_p", "verdict")
STALE = "not counted again: what it was counted from is not what was made"


class Row(NamedTuple):
    """A row of a table: its line in the file (of a claim, which comparison it is), and its cells by column."""

    line: int | str
    cells: dict[str, str]


class Outcomes(NamedTuple):
    """A file of judged answers: the items' ids, sorted, for each 1 where the answer is right, 0 where it is not, and its tokens."""

    items: tuple[str, ...]
    right: bytes
    tokens: array


class Sides(NamedTuple):
    """The files of judged answers behind a row: of its arm, and of the arm that it is compared with."""

    own: list[str]
    against: list[str]


class Tables:
    """The study's tables, their rows counted again from the files behind them."""

    def __init__(self, results: Results):
        self.results = results
        self._outcomes: dict[str, Outcomes] = {}
        # Benchmarks have few lists of items, checkpoints many answers to each: a list is kept once.
        self._items: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._solved: dict[str, dict] = {}
        self._index: dict[str, dict] = {}
        self._by: dict[tuple[str, ...], dict[tuple[str, ...], list[str]]] = {}
        self._jobs: dict[tuple[str, ...], dict[str, set[str]]] | None = None
        self._counts: dict[str, Callable[[str, str, Row], tuple[dict[str, float], list[str]]]] = {
            "demonstrations": self._count_kept,
            "pairs": self._count_kept,
            "paths": self._count_paths,
            "solving": self._count_solved,
            "stages": self._count_stage,
            "costs": self._count_costs,
        }

    def rows(self, table: str) -> list[Row]:
        """A table's rows, or the claims' comparisons; `UserError` if it is not there."""
        if _kind(table) == "claims":
            return comparisons(read_json(self.results.locate(table))["claims"])
        try:
            with open(self.results.locate(table), encoding="utf-8", errors="replace", newline="") as file:
                reader = csv.DictReader(file, restkey="beyond the columns", restval="")
                return [Row(reader.line_num, cells) for cells in reader]
        except FileNotFoundError:
            raise UserError(f"{table}: no such file; {self.results.again(table)}") from None

    def behind(self, table: str, row: Row) -> list[str]:
        """The files that a row of a table was counted from; of the costs, one file of each job."""
        if _kind(table) != "costs":
            return [name for column in BEHIND[_kind(table)] for name in row.cells.get(column, "").split()]
        return [next(iter(job.outputs)) for job in self._jobs_of(table, row).values()]

    def check(self, table: str) -> None:
        """Counts a table's rows again, and whether every cell of the study has one."""
        if self.results.state(table) is None:
            return
        try:
            rows = self.rows(table)
        except (UserError, LookupError, TypeError, AttributeError) as error:
            self._fault(table, "a table", f"none ({type(error).__name__}: {error})")
            return
        for row in rows:
            self.check_row(table, row)
        if _kind(table) in ("accuracy", "arms", "lengths"):
            there = {name for row in rows for name in row.cells.get("samples", "").split()}
            for cell in self._cells(self.results.maker(table)):
                if cell["samples"] not in there:
                    self._fault(table, f"a row of {cell['samples']}", "none")

    def check_row(self, table: str, row: Row) -> list[str]:
        """Whether a row is of the files that it names, and its numbers are theirs; in words, what was counted."""
        record_name, kind = self.results.maker(table), _kind(table)
        inputs = self.results.record(record_name).inputs
        if kind == "costs" and not self._known_jobs(record_name):
            return [STALE]
        names, where = self.behind(table, row), f"{table}:{row.line}"
        others = [name for name in names if not self._is_read(inputs, name)]
        if others or not names:
            self._fault(where, "files that the table was made from", " ".join(others) or "none")
            return []
        made = [self._made(name) for name in names]
        if None in made or made != [self.results.state(name) for name in names]:
            return [STALE]
        try:
            values, said = self._counts.get(kind, self._count_answers)(record_name, table, row)
            self._check_names(record_name, table, row)
        except (UserError, LookupError, TypeError, ValueError, ZeroDivisionError) as error:
            found = f"what cannot be counted ({type(error).__name__}: {error})"
            self._fault(where, f"answers in {' '.join(names)}", found)
            return []
        wrong = {column: value for column, value in values.items() if not _same(row.cells.get(column, ""), value)}
        if wrong:
            expected = ", ".join(f"{column} {value:.6g}" for column, value in wrong.items())
            found = ", ".join(row.cells.get(column) or "nothing" for column in wrong)
            self._fault(where, f"{expected} (counted in {' '.join(names)})", found)
        return said

    def trained(self, record: Record) -> dict[str, str]:
        """The logs of training that a figure was drawn from, by checkpoint; by their own names if the listing is not there."""
        index, logs = index_of(record), [name for name in record.inputs if name.endswith("/training.jsonl")]
        if index and self.results.state(index) == record.inputs[index]:
            return read_json(self.results.locate(index))["training"]
        return dict(zip(logs, logs, strict=True))

    def answers(self, name: str, extractor: str) -> str:
        """In words, how many of a file's answers are right."""
        return _right(name, self._read(name, extractor))

    def _fault(self, where: str, expected: str, found: str) -> None:
        table = where.split(":")[0]
        mend = f"the table was changed after it was made: {self.results.anew(table)}"
        self.results.fault(where, expected, found, mend)

    def _is_read(self, inputs: dict, name: str) -> bool:
        """Whether a table was made from a file or from its record; so it may have been if its record is gone."""
        maker = self.results.maker(name)
        return name in inputs or maker in inputs or (maker is None and self.results.state(name) is not None)

    def _made(self, name: str) -> FileState | None:
        maker = self.results.maker(name)
        return self.results.record(maker).outputs.get(name) if maker else None

    # What each kind of row counts: its numbers by column, and in words what was counted.

    def _count_answers(self, record_name: str, table: str, row: Row) -> tuple[dict[str, float], list[str]]:
        extractor, sides = self.results.record(record_name).recipe["extractor"], _sides(table, row)
        own, against = ([self._read(name, extractor) for name in names] for names in sides)
        files = zip([*sides.own, *sides.against], [*own, *against], strict=True)
        if _kind(table) == "lengths":
            said = [f"{sum(a.tokens) / len(a.items):.4g} tokens per answer in {name}" for name, a in files]
        else:
            said = [_right(name, a) for name, a in files]
        return _counted(_kind(table), own, against), said

    def _count_stage(self, record_name: str, table: str, row: Row) -> tuple[dict[str, float], list[str]]:
        record = self.results.record(self.results.maker(row.cells["artifact"]))
        values = {"wall_seconds": record.wall_seconds, "peak_memory_mib": record.peak_memory_mib}
        return values | {"tokens": tokens_of(dict(record))}, []

    def _count_kept(self, record_name: str, table: str, row: Row) -> tuple[dict[str, float], list[str]]:
        kind, (name,) = _kind(table), self.behind(table, row)
        rows = read_jsonl(self.results.locate(name))
        counts = dict(self.results.record(self.results.maker(name)).figures[kind])
        dropped = counts.pop("dropped")
        if kind == "demonstrations":
            values = counts | dropped | {"kept": len(rows)}
        else:
            values = counts | {f"dropped_{why}": n for why, n in dropped.items()} | {"pairs": len(rows)}
        return values, [f"{len(rows)} {kind} in {name}"]

    def _count_paths(self, record_name: str, table: str, row: Row) -> tuple[dict[str, float], list[str]]:
        (name,), style = self.behind(table, row), row.cells["style"]
        figures = self.results.record(self.results.maker(name)).figures
        paths = [path for path in read_jsonl(self.results.locate(name)) if path["style"] == style]
        right = {(path["item"], path["sample"]) for path in paths if path["correct"]}
        values = figures["paths"][style] | {"paths": len(paths), "correct": len(right)}
        values |= {"items": len({path["item"] for path in paths}), "items_solved": len({item for item, _ in right})}
        return values, [f"{len(right)} of {len(paths)} {style} paths right in {name}"]

    def _count_solved(self, record_name: str, table: str, row: Row) -> tuple[dict[str, float], list[str]]:
        names, cells = self.behind(table, row), row.cells
        for name in names:
            if name not in self._solved:
                self._solved[name] = solved(read_jsonl(self.results.locate(name)))
        seeds = [self._solved[name][cells["style"], cells["measure"], int(cells["k"])] for name in names]
        means = [sum(items.values()) / len(items) for items in seeds]
        values = {"seeds": len(seeds), "items": len({item for items in seeds for item in items})}
        said = [
            f"{100 * mean:.4g} % of {len(items)} items solved in {name}"
            for mean, items, name in zip(means, seeds, names, strict=True)
        ]
        return values | {"value": sum(means) / len(means)}, said

    def _count_costs(self, record_name: str, table: str, row: Row) -> tuple[dict[str, float], list[str]]:
        jobs = self._jobs_of(table, row)
        groups = [
            [jobs[name] for name in behind if name in jobs]
            for behind in self._known_jobs(record_name)[_of(row)].values()
        ]
        groups = [group for group in groups if group]
        seconds = [sum(job.wall_seconds for job in group) for group in groups]
        values = {
            "checkpoints": len(groups),
            "jobs": sum(map(len, groups)) / len(groups),
            "wall_seconds": sum(seconds) / len(groups),
            "least": min(seconds),
            "most": max(seconds),
            "tokens": sum(tokens_of(dict(job)) for group in groups for job in group) / len(groups),
            "peak_memory_mib": max(job.peak_memory_mib for job in jobs.values()),
        }
        return values, [f"{len(jobs)} jobs"]

    def _jobs_of(self, table: str, row: Row) -> dict[str, Record]:
        """The jobs of a row of the costs, by the names of their records."""
        arm = self._known_jobs(self.results.maker(table)).get(_of(row), {})
        found = {name: self.results.record(name) for names in arm.values() for name in sorted(names)}
        return {name: record for name, record in found.items() if record.stage == row.cells.get("stage")}

    def _known_jobs(self, record_name: str) -> dict[tuple[str, ...], dict[str, set[str]]]:
        """Of each student, arm and share the records behind each checkpoint; empty where the index or a record is not there."""
        if self._jobs is None:
            self._jobs = {}
            names = self._study(record_name).get("records", [])
            if all(self.results.record(name) for name in names):
                records = Records(names, lambda name: dict(self.results.record(name)))
                for (*of, checkpoint), behind in jobs_of(self._cells(record_name), records).items():
                    self._jobs.setdefault(tuple(map(str, of)), {})[checkpoint] = behind
        return self._jobs

    def _read(self, name: str, extractor: str) -> Outcomes:
        if name not in self._outcomes:
            rows = read_jsonl(self.results.locate(name))
            judged = sorted(
                (row["item"] if "item" in row else row["id"], bool(row[extractor]), row["tokens"]) for row in rows
            )
            items = tuple(item for item, _, _ in judged)
            right, tokens = bytes(right for _, right, _ in judged), array("L", [tokens for _, _, tokens in judged])
            self._outcomes[name] = Outcomes(self._items.setdefault(items, items), right, tokens)
        return self._outcomes[name]

    # Which samples belong to which arm, the study's index says.

    def _study(self, record_name: str) -> dict:
        """The study's index; empty where it is not the one that a table was made from (that is a fault)."""
        if record_name not in self._index:
            record = self.results.record(record_name)
            index = index_of(record)
            same = index is not None and self.results.state(index) == record.inputs[index]
            self._index[record_name] = read_json(self.results.locate(index)) if same else {}
        return self._index[record_name]

    def _cells(self, record_name: str) -> list[dict]:
        return self._study(record_name).get("cells", [])

    def _samples_by(self, cells: list[dict], columns: tuple[str, ...]) -> dict[tuple[str, ...], list[str]]:
        """The samples of the study's cells, by the text of these columns."""
        if columns not in self._by:
            self._by[columns] = {}
            for cell in cells:
                self._by[columns].setdefault(tuple(str(cell[c]) for c in columns), []).append(cell["samples"])
        return self._by[columns]

    def _check_names(self, record_name: str, table: str, row: Row) -> None:
        """Whether a row names the samples of its arm, of every seed, and of the arm that it is compared with."""
        cells = self._cells(record_name)
        if not cells or "samples" not in BEHIND[_kind(table)]:
            return
        (own, against), where = _sides(table, row), f"{table}:{row.line}"
        columns = tuple(c for c in cells[0] if c in row.cells and c != "samples")
        if _kind(table) == "claims":
            columns = tuple(c for c in ("arm", *SIDE, "refine_task") if c in columns)
        expected = self._samples_by(cells, columns).get(tuple(row.cells[column] for column in columns), [])
        # A comparison of a claim does not name all facts of its arm, so that its files are some of these.
        if sorted(own) != sorted(expected) and not (_kind(table) == "claims" and set(own) <= set(expected)):
            self._fault(where, f"the samples of its arm ({' '.join(expected) or 'there are none'})", " ".join(own))
        if against:
            arm, evaluation = row.cells["against"], row.cells["evaluation"]
            known = self._samples_by(cells, ("arm", "evaluation")).get((arm, evaluation), [])
            others = [name for name in against if name not in known]
            if others:
                self._fault(where, f"the samples of an arm {arm} to compare with", " ".join(others))


def comparisons(claims: list[dict]) -> list[Row]:
    """The comparisons behind the claims; each line names its claim, and where it stands in it."""
    rows = []
    for claim in claims:
        known = {"claim": str(claim["claim"]), "recipe": claim["recipe"]}
        number = 0
        for part in claim["parts"]:
            for found in part["comparisons"]:
                number += 1
                cells = known | {name: _text(found[name]) for name in ("part", *FACTS, *NUMBERS)}
                for name in ("gained", "lost"):
                    cells[name] = str(sum(seed[name] for seed in found["mcnemar"]))
                cells |= {name: " ".join(found[name]) for name in BEHIND["claims"]}
                named = f"{claim['claim']} ({claim['recipe']})" if claim["recipe"] else f"{claim['claim']}"
                rows.append(Row(f"claim {named}, comparison {number}", cells))
    return rows


def index_of(record: Record) -> str | None:
    """The listing of what tables or claims were made of."""
    return next((name for name in record.inputs if is_listing(name)), None)


def is_table(record: Record, name: str) -> bool:
    """Whether a file of a record is one whose rows can be counted again."""
    if record.stage == "claims":
        return name.endswith(".json")
    return record.stage == "tables" and name.endswith(".csv") and PurePosixPath(name).stem in BEHIND


def columns_behind(table: str) -> tuple[str, ...]:
    """The columns of a table that name files."""
    return BEHIND.get(_kind(table), ())


def _kind(table: str) -> str:
    return PurePosixPath(table).stem


def _text(value) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _of(row: Row) -> tuple[str, ...]:
    """Whose costs a row says."""
    return tuple(row.cells.get(column, "") for column in ("student", "arm", "share"))


def _right(name: str, answers: Outcomes) -> str:
    return f"{sum(answers.right)} of {len(answers.items)} right in {name}"


def _sides(table: str, row: Row) -> Sides:
    names = row.cells.get("samples", "").split()
    if _kind(table) == "comparisons":
        return Sides(names[:-1], names[-1:])
    return Sides(names, row.cells.get("against_samples", "").split())


def _counted(kind: str, own: list[Outcomes], against: list[Outcomes]) -> dict[str, float]:
    """A row's numbers: of one checkpoint's answers, of an arm's seeds, or of two arms paired by item and seed."""
    items, seeds = own[0].items, len(own)
    if any(answer.items is not items for answer in (*own, *against)):
        raise UserError("the files are of different items")
    if kind == "lengths":
        tokens, before = ([sum(answer.tokens) / len(items) for answer in side] for side in (own, against))
        values = {"n": len(items), "seeds": seeds, "tokens": sum(tokens) / seeds}
        return values | ({"longer": sum(tokens) / seeds - sum(before) / len(before)} if before else {})
    right, right_before = (sum(sum(answer.right) for answer in side) for side in (own, against))
    accuracy = right / len(items) / seeds
    if kind in ("accuracy", "arms"):
        return {"n": len(items), "accuracy": accuracy} | (
            {"correct": right} if kind == "accuracy" else {"seeds": seeds}
        )
    paired = max(seeds, len(against))
    # A side without seeds meets every seed of the other.
    left, other = (side * (paired if len(side) == 1 else 1) for side in (own, against))
    pairs = [pair for a, b in zip(left, other, strict=True) for pair in zip(a.right, b.right, strict=True)]
    gained, lost = pairs.count((1, 0)), pairs.count((0, 1))
    values = {"difference": (gained - lost) / len(pairs), "gained": gained, "lost": lost}
    if kind == "comparisons":
        return {"n": len(items)} | values
    known = {"items": len(items), "seeds": paired, "accuracy": accuracy}
    return known | {"against_accuracy": right_before / len(items) / len(against)} | values


def _same(cell: str, value: float) -> bool:
    """Whether a table's cell, of six digits, is a number."""
    try:
        return math.isclose(float(cell), value, rel_tol=1e-5, abs_tol=1e-9)
    except ValueError:
        return False
