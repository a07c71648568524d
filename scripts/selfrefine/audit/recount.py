"""Counts the numbers of the study's tables and claims again, from the files that each row names.

Intervals and p-values are not counted again: they follow from these numbers.
"""

import math
from array import array
from collections.abc import Callable
from typing import Any, NamedTuple

from selfrefine.analysis.held_out import at_kept_update
from selfrefine.analysis.jobs import GpuUse, Records, gpu_use, jobs_of, parts_taken, tokens_of, trained_of
from selfrefine.analysis.pass_at_k import of_answers, solved
from selfrefine.analysis.unchanged import COLUMN, OF_ANSWERS, made_no_update, of_unrefined
from selfrefine.answers.extraction import MATH_VERIFY
from selfrefine.audit.integrity import AuditedResults
from selfrefine.audit.table_rows import BEHIND, Row, index_of, sides, table_name
from selfrefine.errors import UserError
from selfrefine.schema.record import Record
from selfrefine.schema.results import EvaluatedCell
from selfrefine.schema.rows import item_of, judged_correct
from selfrefine.store.files import read_json, read_jsonl
from selfrefine.store.locations import REJUDGED

# What a row of the costs is of.
OF_COSTS = ("student", "arm", "share", "select")
Jobs = dict[tuple[str, ...], dict[str, set[str]]]
# Columns that older results lack.
LATER = (COLUMN, "tokens_trained", *GpuUse._fields)


class Outcomes(NamedTuple):
    """A file of judged answers: the items' ids, sorted, with 1 for a correct answer, else 0, and its tokens.

    Where items have several answers, these are means over them.
    """

    items: tuple[str, ...]
    correct: "array[Any]"
    tokens: "array[Any]"


class Counted(NamedTuple):
    """A row's numbers by column, and in words what they were counted from."""

    values: dict[str, float]
    words: list[str]


class Recount:
    """Counts rows again; each file behind them is read once."""

    def __init__(self, results: AuditedResults):
        self.results = results
        self._outcomes: dict[tuple[str, str], Outcomes] = {}
        self._rejudged: dict[str, dict[str, str]] = {}
        # Many checkpoints answer the same items: a list of items is kept once.
        self._items: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._solved: dict[str, dict[tuple[str, str, int], dict[str, float]]] = {}
        self._index: dict[str, dict[str, Any]] = {}
        self._jobs: Jobs | None = None
        self._unrefined: dict[str, set[str] | None] = {}
        self._counts: dict[str, Callable[[Record, str, Row], Counted]] = {
            "demonstrations": self._count_kept,
            "pairs": self._count_kept,
            "paths": self._count_paths,
            "solving": self._count_solved,
            "pass_at_k": self._count_solved,
            "refinements": self._count_held_out,
            "stages": self._count_stage,
            "costs": self._count_costs,
            "flips": self._count_flips,
        }

    def count(self, table: str, row: Row) -> Counted:
        """A row's numbers, counted again."""
        count = self._counts.get(table_name(table), self._count_answers)
        values, words = count(self.results.made_by(table), table, row)
        unrefined = self.unrefined(table) if table_name(table) in OF_ANSWERS else None
        if unrefined is not None:
            values |= {COLUMN: len(unrefined.intersection(sides(table, row).own))}
        # Of results from before there were such columns.
        values = {name: value for name, value in values.items() if name not in LATER or name in row.cells}
        return Counted(values, words)

    def behind(self, table: str, row: Row) -> list[str]:
        """The files that a row was counted from; for the costs, one file of each job."""
        if table_name(table) != "costs":
            return [name for column in BEHIND[table_name(table)] for name in row.cells.get(column, "").split()]
        return [next(iter(job.outputs)) for job in self._jobs_of(table, row).values()]

    def answers(self, name: str, extractor: str) -> str:
        """In words, how many of a file's answers are correct."""
        return _share_correct(name, self._read(name, extractor))

    # The study's index says what belongs to which arm.

    def _index_of(self, table: str) -> dict[str, Any]:
        """The index that a table was made from; empty where it has changed since (a fault of its own)."""
        maker = self.results.maker(table)
        if maker is None:
            return {}
        if maker not in self._index:
            record = self.results.record(maker)
            name = index_of(record)
            is_same = name is not None and self.results.state(name) == record.inputs[name]
            self._index[maker] = read_json(self.results.locate(name)) if name and is_same else {}
        return self._index[maker]

    def cells(self, table: str) -> list[EvaluatedCell]:
        """The cells of the study that a table was made from: which samples belong to which arm."""
        index = self._index_of(table)
        cells: list[EvaluatedCell] = index.get("cells", [])
        # Of the teachers' answers, those under other prompts too.
        styled: list[EvaluatedCell] = []
        for files in index.get("styles", {}).values():
            styled += [{**cell, "samples": files[cell["samples"]]} for cell in cells if cell["samples"] in files]
        return [*cells, *styled]

    def jobs(self, table: str) -> Jobs:
        """The records behind each checkpoint of a student, arm and share; empty if the index or a record is missing."""
        if self._jobs is None:
            self._jobs = {}
            names = self._index_of(table).get("records", [])
            if all(self.results.is_valid(name) for name in names):
                records = Records(names, lambda name: dict(self.results.record(name)))
                for (*of, checkpoint), behind in jobs_of(self.cells(table), records).items():
                    self._jobs.setdefault(tuple(map(str, of)), {})[checkpoint] = behind
        return self._jobs

    def unrefined(self, table: str) -> set[str] | None:
        """The files of judged answers of unrefined checkpoints; None if the record of a training is missing."""
        maker = self.results.maker(table) or ""
        if maker not in self._unrefined:
            logs: dict[str, str] = self._index_of(table).get("training", {})
            makers = {name: self.results.maker(log) for name, log in logs.items()}
            records = {name: dict(self.results.record(made)) for name, made in makers.items() if made}
            names = [name for name, record in records.items() if made_no_update(record)]
            is_known = bool(logs) and len(records) == len(logs)
            self._unrefined[maker] = of_unrefined(self.cells(table), names) if is_known else None
        return self._unrefined[maker]

    # What each kind of row counts.

    def _count_answers(self, made: Record, table: str, row: Row) -> Counted:
        extractor, compared, kind = made.settings["extractor"], sides(table, row), table_name(table)
        own, against = ([self._read(name, extractor) for name in names] for names in compared)
        files = zip([*compared.own, *compared.against], [*own, *against], strict=True)
        if kind == "lengths":
            words = [f"{sum(a.tokens) / len(a.items):.4g} tokens per answer in {name}" for name, a in files]
        else:
            words = [_share_correct(name, a) for name, a in files]
        return Counted(_compare(kind, own, against), words)

    def _count_flips(self, made: Record, table: str, row: Row) -> Counted:
        extractor, compared = row.cells["extractor"], sides(table, row)
        if not compared.own:  # a claim that a choice leaves without a comparison
            return Counted({}, [])
        own, against = ([self._read(name, extractor, self._verdicts(table, name)) for name in s] for s in compared)
        values = _compare("flips", own, against)
        files = zip([*compared.own, *compared.against], [*own, *against], strict=True)
        words = [f"{_share_correct(name, answers)}, by {extractor}" for name, answers in files]
        return Counted({name: value for name, value in values.items() if name in row.cells}, words)

    def _verdicts(self, table: str, name: str) -> str:
        """The verdicts that were given to a file's answers when a table was made; "" where the file has its own."""
        if table not in self._rejudged:
            files = [path for path in self.results.made_by(table).outputs if path.endswith(f"/{REJUDGED}")]
            rows = [row for path in files for row in read_jsonl(self.results.locate(path))]
            self._rejudged[table] = {row["samples"]: row[MATH_VERIFY] for row in rows}
        return self._rejudged[table].get(name, "")

    def _count_stage(self, made: Record, table: str, row: Row) -> Counted:
        record = self.results.made_by(row.cells["artifact"])
        values = {"wall_seconds": record.wall_seconds, "peak_memory_mib": record.peak_memory_mib}
        values |= gpu_use(dict(record))._asdict()
        return Counted(values | {"tokens": tokens_of(dict(record)), COLUMN: made_no_update(dict(record))}, [])

    def _count_kept(self, made: Record, table: str, row: Row) -> Counted:
        kind, (name,) = table_name(table), self.behind(table, row)
        rows = read_jsonl(self.results.locate(name))
        counts = dict(self.results.made_by(name).figures[kind])
        dropped = counts.pop("dropped")
        if kind == "demonstrations":
            values = counts | dropped | {"kept": len(rows)}
        else:
            values = counts | {f"dropped_{why}": n for why, n in dropped.items()} | {"pairs": len(rows)}
            values |= {COLUMN: 0 in (counts.get("train"), counts.get("validation"))}
        return Counted(values, [f"{len(rows)} {kind} in {name}"])

    def _count_held_out(self, made: Record, table: str, row: Row) -> Counted:
        (name,) = self.behind(table, row)
        figures = self.results.made_by(name).figures
        values = at_kept_update(read_jsonl(self.results.locate(name)), figures["kept_update"])
        counts = {"updates": figures["updates"], "kept_update": figures["kept_update"]}
        counts["held_out"] = figures["pairs"]["validation"]
        words = [f"{100 * values['accuracy']:.4g} % of {counts['held_out']} held-out pairs ordered correctly in {name}"]
        logged = {column: value for column, value in values.items() if not math.isnan(value)}
        return Counted(counts | logged, words if "accuracy" in logged else [])

    def _count_paths(self, made: Record, table: str, row: Row) -> Counted:
        (name,), style = self.behind(table, row), row.cells["style"]
        figures = self.results.made_by(name).figures
        paths = [path for path in read_jsonl(self.results.locate(name)) if path["style"] == style]
        correct = {(path["item"], path["sample"]) for path in paths if path["correct"]}
        values = figures["paths"][style] | {"paths": len(paths), "correct": len(correct)}
        values |= {"items": len({path["item"] for path in paths}), "items_solved": len({item for item, _ in correct})}
        return Counted(values, [f"{len(correct)} of {len(paths)} {style} paths correct in {name}"])

    def _count_solved(self, made: Record, table: str, row: Row) -> Counted:
        names, cells = self.behind(table, row), row.cells
        for name in names:
            if name not in self._solved:
                rows = read_jsonl(self.results.locate(name))
                tested = table_name(table) == "pass_at_k"
                self._solved[name] = solved(of_answers(rows, made.settings["extractor"]) if tested else rows)
        seeds = [self._solved[name][cells.get("style", ""), cells["measure"], int(cells["k"])] for name in names]
        means = [sum(items.values()) / len(items) for items in seeds]
        values = {"seeds": len(seeds), "items": len({item for items in seeds for item in items})}
        words = [
            f"{100 * mean:.4g} % of {len(items)} items solved in {name}"
            for mean, items, name in zip(means, seeds, names, strict=True)
        ]
        return Counted(values | {"value": sum(means) / len(means)}, words)

    def _count_costs(self, made: Record, table: str, row: Row) -> Counted:
        jobs = self._jobs_of(table, row)
        arm = self.jobs(table)[_of(row)]
        found = [(self._taken(behind), [name for name in sorted(behind) if name in jobs]) for behind in arm.values()]
        groups = [[(taken.get(name, 1.0), jobs[name]) for name in names] for taken, names in found if names]
        seconds = [sum(share * job.wall_seconds for share, job in group) for group in groups]
        values = {
            "checkpoints": len(groups),
            "jobs": sum(map(len, groups)) / len(groups),
            "wall_seconds": sum(seconds) / len(groups),
            "least": min(seconds),
            "most": max(seconds),
            "tokens": sum(share * tokens_of(dict(job)) for group in groups for share, job in group) / len(groups),
            "tokens_trained": sum(share * trained_of(dict(job)) for group in groups for share, job in group)
            / len(groups),
            "peak_memory_mib": max(job.peak_memory_mib for job in jobs.values()),
        }
        used = [(share, gpu_use(dict(job))) for group in groups for share, job in group]
        values |= {
            name: sum(share * getattr(use, name) for share, use in used) / len(groups) for name in GpuUse._fields
        }
        unrefined = self.unrefined(table)
        if unrefined is not None:
            mine = [cell for cell in self.cells(table) if cell["samples"] in unrefined]
            arms = ((tuple(str(c.get(fact, "")) for fact in OF_COSTS), c["checkpoint"]) for c in mine)
            values |= {COLUMN: len({checkpoint for arm, checkpoint in arms if arm == _of(row)})}
        return Counted(values, [f"{len(jobs)} jobs"])

    def _taken(self, behind: set[str]) -> dict[str, float]:
        """Of the answers that mixtures draw from, the shares that they take."""
        return parts_taken(behind, Records(sorted(behind), lambda name: dict(self.results.record(name))))

    def _jobs_of(self, table: str, row: Row) -> dict[str, Record]:
        """The jobs of a row of the costs, by the names of their records."""
        arm = self.jobs(table).get(_of(row), {})
        found = {name: self.results.record(name) for names in arm.values() for name in sorted(names)}
        return {name: record for name, record in found.items() if record.stage == row.cells.get("stage")}

    def _read(self, name: str, extractor: str, verdicts: str = "") -> Outcomes:
        if (name, extractor) not in self._outcomes:
            answers: dict[str, list[tuple[bool, int]]] = {}
            rows = read_jsonl(self.results.locate(name))
            if verdicts and extractor == MATH_VERIFY:
                rows = [{**row, extractor: int(one)} for row, one in zip(rows, verdicts, strict=True)]
            for row in rows:
                answers.setdefault(item_of(row), []).append((judged_correct(row, extractor), row["tokens"]))
            items = tuple(sorted(answers))
            several = any(len(of_item) > 1 for of_item in answers.values())
            marks, lengths = (
                [sum(one[part] for one in answers[item]) / (len(answers[item]) if several else 1) for item in items]
                for part in (0, 1)
            )
            kind = "d" if several else "L"
            correct, tokens = (array(kind, values if several else map(int, values)) for values in (marks, lengths))
            self._outcomes[name, extractor] = Outcomes(self._items.setdefault(items, items), correct, tokens)
        return self._outcomes[name, extractor]


def _of(row: Row) -> tuple[str, ...]:
    """What a row of the costs is of."""
    return tuple(row.cells.get(fact, "") for fact in OF_COSTS)


def _share_correct(name: str, answers: Outcomes) -> str:
    return f"{sum(answers.correct):.6g} of {len(answers.items)} correct in {name}"


def _compare(kind: str, own: list[Outcomes], against: list[Outcomes]) -> dict[str, float]:
    """A row's numbers: of one checkpoint's answers, of an arm's seeds, or of two arms paired by item and seed."""
    items, seeds = own[0].items, len(own)
    if any(answer.items is not items for answer in (*own, *against)):
        raise UserError("the files are of different items")
    if kind == "lengths":
        tokens, before = ([sum(answer.tokens) / len(items) for answer in side] for side in (own, against))
        values = {"n": len(items), "seeds": seeds, "tokens": sum(tokens) / seeds}
        return values | ({"longer": sum(tokens) / seeds - sum(before) / len(before)} if before else {})
    correct, correct_before = (sum(sum(answer.correct) for answer in side) for side in (own, against))
    accuracy = correct / len(items) / seeds
    if kind == "accuracy":
        return {"n": len(items), "accuracy": accuracy, "correct": correct}
    if kind == "arms":
        return {"n": len(items), "accuracy": accuracy, "seeds": seeds}
    paired = max(seeds, len(against))
    # A side without seeds is compared with every seed of the other.
    left, right = (side * (paired if len(side) == 1 else 1) for side in (own, against))
    pairs = [pair for a, b in zip(left, right, strict=True) for pair in zip(a.correct, b.correct, strict=True)]
    gained, lost = sum(max(a - b, 0) for a, b in pairs), sum(max(b - a, 0) for a, b in pairs)
    values = {"difference": (gained - lost) / len(pairs), "gained": gained, "lost": lost}
    if kind == "comparisons":
        return {"n": len(items)} | values
    known = {"items": len(items), "seeds": paired, "accuracy": accuracy}
    return known | {"against_accuracy": correct_before / len(items) / len(against)} | values
