"""Items, every response to them, and pairs, in the compact columns of the page's reader.

Beyond MOST responses, the first items of each benchmark's split are kept with all their responses, and a note says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from selfrefine.report.page.asked import Asked, WrittenPrompts, asked_as_written, asked_in, written_prompts
from selfrefine.report.page.mixtures import answered_by, of_part
from selfrefine.report.page.model_titles import ARMS, who
from selfrefine.report.page.page_inputs import PageInputs
from selfrefine.report.page.stock_answers import documents_of, response_of
from selfrefine.schema.rows import (
    EvaluatedAnswer,
    Item,
    Pair,
    Response,
    SampledPath,
    StockDocument,
    TeacherAnswer,
    extracted_of,
    item_of,
    judged_correct,
)
from selfrefine.store.files import read_json, read_jsonl
from selfrefine.store.locations import place_of
from selfrefine.store.provenance import record_of

MOST = 100_000


class ResponseSet(TypedDict):
    """Responses of one model to one benchmark's split: a file."""

    kind: Literal["evaluated", "sampled", "teacher", "pairs"]
    arm: str
    arm_title: str
    student: str
    teacher: str
    seed: str
    label: str
    benchmark: int
    file: str
    asked: dict[str, Asked]


class Reader:
    """Collects what the reader shows. Responses are referred to by their place in the columns."""

    def __init__(self, inputs: PageInputs, most: int = MOST):
        self.inputs = inputs
        self.benchmarks = list(inputs.titles)
        self.sets: list[ResponseSet] = []
        self.items: dict[tuple[str, str, str], int] = {}
        self.notes: list[str] = []
        self.prompts: list[WrittenPrompts] = []
        self._rows: list[list[Any]] = []
        self._columns: dict[str, list[Any]] = {
            name: [] for name in ("item", "set", "style", "text", "extracted", "correct", "cut", "tokens")
        }
        self._pairs: dict[str, list[Any]] = {name: [] for name in ("item", "set", "split", "prompt", "sides")}
        self._places: dict[tuple[str, str, str], int] = {}
        self._known: dict[str, list[Item]] = {}
        self._kept = self._keep(most)
        self._read()

    def data(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        titles = [self.inputs.titles[name] for name in self.benchmarks]
        return {
            "benchmarks": [*map(list, zip(self.benchmarks, titles, strict=True))],
            "items": self._rows,
            "sets": self.sets,
            "responses": self._columns,
            "pairs": self._pairs,
            "prompts": self.prompts,
        }

    def _asked(self, settings: Mapping[str, Any], style: str, task: str) -> Asked:
        return asked_in(settings, style, self.inputs.index["shots"].get(task))

    def _items_of(self, path: str) -> list[Item]:
        """A file's items, read once."""
        if path not in self._known:
            self._known[path] = read_jsonl(Path(path))
        return self._known[path]

    def _keep(self, most: int) -> dict[str, set[str]]:
        """By file of items, the ids of those whose responses are shown."""
        index = self.inputs.index
        responses = dict.fromkeys([*index["paths"], *index["answers"], *(cell["samples"] for cell in index["cells"])])
        counts = {path: _lines(path) for path in responses}
        share = min(1.0, most / max(1, sum(counts.values())))
        kept = {}
        stock = {cell["evaluation"]: documents_of(cell["samples"]) for cell in index["cells"]}
        asked = {task: path for task, path in stock.items() if task not in index["tasks"]}
        for path in [*index["tasks"].values(), *index["items"].values(), *asked.values()]:
            ids = [row["id"] for row in self._items_of(path)]
            count = max(1, int(share * len(ids))) if ids else 0
            kept[path] = set(ids[:count])
            if count < len(ids):
                self.notes.append(
                    f"first {count:,} of {len(ids):,} items; all in {path} and the files of responses to them"
                )
        return kept | {task: kept[path] for task, path in asked.items()}

    def _read(self) -> None:
        index = self.inputs.index
        for cell in index["cells"]:
            if cell["evaluation"] in index["tasks"]:
                self._add_cell(cell)
            else:
                self._add_stock(cell)
        for task, path in index["items"].items():
            for answers in index["answers"]:
                if _of_task(answers, task):
                    self._add_teacher(task, path, answers)
        for path in index["paths"]:
            self._add_paths(path)
        for path in index["pairs"]:
            self._add_pairs(path)

    def _add_cell(self, cell: Mapping[str, Any]) -> None:
        """The judged answers of an arm, or of a teacher, to a test split."""
        task, path = cell["evaluation"], Path(cell["samples"])
        asked_items, extractor = self.inputs.index["tasks"][task], self.inputs.extractor
        documents = self._items_of(asked_items)
        is_teacher = cell["arm"] == "teacher"
        answers: list[EvaluatedAnswer] = read_jsonl(path)
        places = self._add_items(documents, task, "test", self._kept[asked_items])
        for part, settings in answered_by(path).items():
            # A student is asked what the exported task says, a teacher what its own stage does.
            prompt = settings if is_teacher else read_json(record_of(asked_items))["settings"]
            asked = {prompt["style"]: self._asked({**prompt, "system": settings["system"]}, prompt["style"], task)}
            number = self._add_set("teacher" if is_teacher else "evaluated", cell, task, str(path), asked, part)
            for row in of_part(answers, part):
                if (item := item_of(row)) in places:
                    verdict = {"extracted": extracted_of(row, extractor), "correct": judged_correct(row, extractor)}
                    self._add_response(places[item], number, {**row, "style": prompt["style"], **verdict})

    def _add_stock(self, cell: Mapping[str, Any]) -> None:
        """The judged answers of an arm to one of lm-eval's own tasks, with the prompts that it was asked with."""
        task, path = cell["evaluation"], cell["samples"]
        found: list[StockDocument] = read_jsonl(Path(documents_of(path)))
        documents, metric = {one["id"]: one for one in found}, read_json(record_of(path))["settings"]["stock"]["metric"]
        prompts = written_prompts(found, self._kept[task])
        if prompts not in self.prompts:
            self.prompts.append(prompts)
        asked = {"": asked_as_written(self.prompts.index(prompts))}
        number = self._add_set("evaluated", cell, task, path, asked)
        places = self._add_items(found, task, "test", self._kept[task])
        answers: list[EvaluatedAnswer] = read_jsonl(Path(path))
        for row in answers:
            if row["id"] in places:
                self._add_response(places[row["id"]], number, response_of(row, documents[row["id"]], metric))

    def _add_teacher(self, task: str, items_file: str, path: str) -> None:
        """A teacher's answers to a training split."""
        facts = {"arm": "teacher", "student": "", "teacher": _names(path)[0], "seed": ""}
        for part, settings in answered_by(Path(path)).items():
            asked = {settings["style"]: self._asked(settings, settings["style"], task)}
            number = self._add_set("teacher", facts, task, path, asked, part)
            if chosen := _names(path)[-1].removeprefix(f"{task}-train-{settings['style']}").removeprefix("-"):
                self.sets[number]["label"] += f", items chosen: {chosen}"
            self._add_training(items_file, task, number, path, _names(path)[0], part)

    def _add_paths(self, path: str) -> None:
        """A student's sampled paths."""
        origin = self.inputs.index["origins"][path]
        task = origin["refine_task"]
        settings = read_json(record_of(path))["settings"]
        asked = {style: self._asked(settings, style, task) for style in _styles(settings["sampling"])}
        number = self._add_set("sampled", _sampled_by(origin), task, path, asked)
        self._add_training(self.inputs.index["items"][task], task, number, path, path)

    def _add_training(self, items_file: str, task: str, number: int, path: str, owner: str, part: str = "") -> None:
        """Responses to training items; `owner` tells whose ids they are, for the pairs."""
        items = self._items_of(items_file)
        places = self._add_items(items, task, "train", self._kept[items_file])
        rows: list[SampledPath | TeacherAnswer] = read_jsonl(Path(path))
        for row in of_part(rows, part):
            if row["item"] in places:
                self._places[owner, task, row["id"]] = self._add_response(places[row["item"]], number, row)

    def _add_pairs(self, path: str) -> None:
        """Preference pairs; their sides are responses that are known already, or else are added."""
        origin = self.inputs.index["origins"][path]
        task, owner = origin["refine_task"], self._paths_behind(path)
        number = self._add_set("pairs", _sampled_by(origin), task, path, {})
        self.sets[number]["label"] += f", pairs by recipe {origin['recipe']}"
        pairs: list[Pair] = read_jsonl(Path(path))
        for pair in pairs:
            place = self.items.get((task, "train", pair["item"]))
            if place is None:
                continue
            sides = [
                -1 if side is None else self._side(side, place, number, (owner, origin["teacher"]), task)
                for side in (pair["chosen"], pair["rejected"])
            ]
            sources = [side["source"] if side else "" for side in (pair["chosen"], pair["rejected"])]
            for name, value in zip(
                self._pairs, (place, number, pair["split"], pair["prompt"], [*sides, *sources]), strict=True
            ):
                self._pairs[name].append(value)

    def _side(self, side: Response, item: int, number: int, owners: Sequence[str], task: str) -> int:
        for owner in owners:
            place = self._places.get((owner, task, side["id"]))
            if place is not None and self._columns["text"][place] == side["text"]:
                return place
        cut = "stop" if side["finished"] else "length"
        return self._add_response(
            item, number, {**side, "style": "", "extracted": None, "finish_reason": cut, "tokens": 0}
        )

    def _paths_behind(self, path: str) -> str:
        """The file of sampled paths that pairs were made of."""
        inputs = read_json(record_of(path))["inputs"]
        return next(name for name in inputs if name in self.inputs.index["paths"])

    def _add_set(
        self,
        kind: Literal["evaluated", "sampled", "teacher", "pairs"],
        facts: Mapping[str, Any],
        task: str,
        file: str,
        asked: dict[str, Asked],
        part: str = "",
    ) -> int:
        arm = str(facts["arm"])
        marked = {**facts, "unrefined": int(file in self.inputs.unrefined)}
        found: ResponseSet = {
            "kind": kind,
            "arm": arm,
            "arm_title": ARMS[arm],
            "student": self.inputs.models.student(facts["student"]),
            "teacher": self.inputs.models.teacher(facts["teacher"]),
            "seed": str(facts["seed"]),
            "label": who(marked, self.inputs.titles, self.inputs.several, self.inputs.models),
            "benchmark": self.benchmarks.index(task),
            "file": file,
            "asked": asked,
        }
        found["label"] += f", answers of {self.inputs.models.teacher(part)}" if part else ""
        self.sets.append(found)
        return len(self.sets) - 1

    def _add_items(
        self, items: Iterable[Item | StockDocument], task: str, split: str, kept: set[str]
    ) -> dict[str, int]:
        """The places of a split's items by id; they are added when their split first comes."""
        places = {}
        for item in items:
            if item["id"] in kept:
                key = (task, split, item["id"])
                if key not in self.items:
                    self.items[key] = len(self._rows)
                    facts = [item["id"], self.benchmarks.index(task), split]
                    self._rows.append([*facts, item["question"], item["choices"], item["answer"]])
                places[item["id"]] = self.items[key]
        return places

    def _add_response(self, item: int, number: int, row: Mapping[str, Any]) -> int:
        judged = (row["style"], row["text"], row["extracted"], int(row["correct"]))
        values = (item, number, *judged, int(row["finish_reason"] == "length"), row["tokens"])
        for name, value in zip(self._columns, values, strict=True):
            self._columns[name].append(value)
        return len(self._columns["item"]) - 1


def _styles(sampling: Mapping[str, Any]) -> list[str]:
    counts = {"cot": sampling["cot"], "plain": sampling["plain"], "rationale": sampling.get("rationales", 0)}
    return [style for style, count in counts.items() if count]


def _sampled_by(origin: Mapping[str, str]) -> dict[str, str]:
    """The arm that was sampled, from what its paths were sampled for."""
    after, task = origin["after"], origin["task"]
    arm = ("refine" if task else "refine-only") if after else ("instruct" if task else "baseline")
    facts = {"arm": arm, "student": origin["student"], "teacher": origin["teacher"], "task": task}
    refined = {"refine_task": origin["refine_task"] if after else "", "recipe": after}
    return {**facts, **refined, **{fact: str(origin.get(fact, "")) for fact in ("share", "select", "seed")}}


def _names(path: str) -> tuple[str, ...]:
    place = place_of(path)
    assert place is not None, f"{path} is an artifact's"
    return place.names


def _of_task(answers: str, task: str) -> bool:
    """Whether a file of a teacher's answers is to a benchmark's training split."""
    return _names(answers)[-1].startswith(f"{task}-train-")


def _lines(path: str) -> int:
    with open(path, "rb") as file:
        return sum(1 for _ in file)
