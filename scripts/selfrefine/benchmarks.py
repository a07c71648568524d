"""From a benchmark's raw records to items: field mapping, checks, duplicates, disjoint and balanced splits.

An item is {id, kind, question, choices, answer}: `choices` are the options' texts in order (empty for `math`), `answer`
a label "A", "B", … or a number in canonical form. The id is made from kind, question and choices, so that it is the
same in every study and never depends on the order of rows.
"""

import collections
import csv
import hashlib
import itertools
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from selfrefine.answers import format_number, parse_number
from selfrefine.errors import UserError
from selfrefine.files import digest, read_json, read_jsonl

LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Mapped(BaseModel):
    """One field of a record, cut out of its text by a pattern.

    The pattern has one group around what is wanted; for `choices` it may have two, label and text, and the labels must
    then be A, B, C, … in order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if groups not in (1, 2):
            raise ValueError("needs one (group) around what is wanted, or for choices two, label and text")
        return pattern


class Fields(BaseModel):
    """Where an item's parts stand in a benchmark's records. A name may walk into objects: `choices.text`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: str | Mapped = Field(
        description="A field's name, a template such as '{context} {question}', or a pattern."
    )
    choices: str | list[str] | Mapped | None = Field(
        None,
        description="A field that holds a list, the fields of the options, or a pattern that finds each option in a text.",
    )
    labels: str | None = Field(
        None, description="A field that holds the options' own labels, where they are not A, B, C, …"
    )
    answer: str | Mapped
    answer_is: Literal["number", "label", "text", "index0", "index1"] = Field(
        description="What the answer field holds: a number, an option's label or text, or its place counted from 0 or 1."
    )


class Split(BaseModel):
    """One split: which raw file it is cut from, and how many items it holds at most."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    size: int | None = Field(None, gt=0, description="None takes all.")
    balance: bool | None = Field(
        None, description="Equally many items per answer label; None: if `choice` and `size` is given."
    )


class Mapping(BaseModel):
    """How a benchmark's records become items."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["math", "choice"]
    fields: Fields
    drop_unmapped: bool = Field(
        False, description="Drop and count records whose answer the mapping cannot read, instead of refusing the file."
    )
    near_duplicate: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Training items whose word 3-grams overlap a test item's by this Jaccard index are dropped.",
    )

    @model_validator(mode="after")
    def _agree(self):
        if (self.kind == "math") != (self.fields.answer_is == "number"):
            raise ValueError("kind 'math' goes with answer_is 'number', kind 'choice' with the others")
        if (self.kind == "choice") != (self.fields.choices is not None):
            raise ValueError("kind 'choice' needs fields.choices, kind 'math' has none")
        return self


class Recipe(Mapping):
    """What the prepare stage reads: the mapping and the split to make."""

    name: Literal["train", "test"]
    split: Split


class Unmapped(Exception):
    """A record whose answer the mapping cannot read."""


def read_records(path: Path) -> list[tuple[str, dict]]:
    """The records of a JSON Lines, JSON, CSV or Parquet file, each with the place to name in an error."""
    suffix = Path(path).suffix
    if suffix == ".jsonl":
        rows = read_jsonl(path)
    elif suffix == ".json":
        rows = read_json(path)
        if not isinstance(rows, list):
            raise UserError(f"{path}: expected a JSON array of records")
    elif suffix == ".csv":
        with open(path, encoding="utf-8", newline="") as file:
            try:
                rows = list(csv.DictReader(file, strict=True))
            except (UnicodeDecodeError, csv.Error) as error:
                raise UserError(
                    f"{path}: not a CSV file in UTF-8 ({error}); correct the file or fetch it again"
                ) from None
        for number, row in enumerate(rows, 1):
            if None in row:
                raise UserError(f"{path}:{number}: more values than the header names; quote texts that hold commas")
    elif suffix == ".parquet":
        import pyarrow.parquet

        try:
            rows = pyarrow.parquet.read_table(path).to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"{path}: not a whole Parquet file ({error}); fetch it again") from None
    else:
        raise UserError(f"{path}: unknown format {suffix!r}; use .jsonl, .json, .csv or .parquet")
    return [(f"{path}:{number}", row) for number, row in enumerate(rows, 1)]


def look_up(record: dict, name: str, place: str):
    """The value of a field, walking into objects at each dot."""
    value = record
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            have = ", ".join(sorted(value)) if isinstance(value, dict) else type(value).__name__
            raise UserError(
                f"{place}: field {name!r} is missing (the record has: {have}); correct the file or the benchmark's `fields`"
            )
        value = value[part]
    return value


def look_up_text(record: dict, name: str, place: str) -> str:
    """The text or number that a field holds, as text."""
    return _as_text(look_up(record, name, place), name, place)


def _as_text(value, name: str, place: str) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise UserError(
            f"{place}: field {name!r} holds {value!r}, not a text or number; correct the record or `fields`"
        )
    return str(value)


def to_item(record: dict, place: str, recipe: Mapping) -> dict:
    """One record as an item; `UserError` names the place of a missing field, an empty question or a wrong answer key."""
    fields = recipe.fields
    question = re.sub(r"\s+", " ", _question(record, place, fields)).strip()
    if not question:
        raise UserError(f"{place}: the question is empty; remove the record or correct it")
    choices = _choices(record, place, fields) if recipe.kind == "choice" else []
    answer = _answer(record, place, fields, choices)
    item_id = digest([recipe.kind, question, choices])
    return {"id": item_id, "kind": recipe.kind, "question": question, "choices": choices, "answer": answer}


def _question(record: dict, place: str, fields: Fields) -> str:
    if isinstance(fields.question, Mapped):
        text = look_up_text(record, fields.question.field, place)
        match = re.search(fields.question.pattern, text, re.DOTALL)
        return match[1] if match else text
    template = fields.question if "{" in fields.question else "{" + fields.question + "}"
    return re.sub(r"\{([\w.]+)\}", lambda match: look_up_text(record, match[1], place), template)


def _choices(record: dict, place: str, fields: Fields) -> list[str]:
    if isinstance(fields.choices, Mapped):
        text = look_up_text(record, fields.choices.field, place)
        found = re.findall(fields.choices.pattern, text, re.MULTILINE)
        if found and isinstance(found[0], tuple):
            labels = [label for label, _ in found]
            if labels != list(LABELS[: len(labels)]):
                raise Unmapped(f"{place}: the options are labelled {', '.join(labels)}, not A, B, C, … in order")
            found = [choice for _, choice in found]
    elif isinstance(fields.choices, list):
        found = [look_up(record, name, place) for name in fields.choices]
    else:
        found = look_up(record, fields.choices, place)
    if not isinstance(found, list) or not 2 <= len(found) <= len(LABELS):
        raise UserError(f"{place}: expected a list of 2 to {len(LABELS)} options, found {found!r}")
    choices = [re.sub(r"\s+", " ", _as_text(choice, "choices", place)).strip() for choice in found]
    if "" in choices:
        raise UserError(f"{place}: option {LABELS[choices.index('')]} is empty; remove the record or correct it")
    return choices


def _answer(record: dict, place: str, fields: Fields, choices: list[str]) -> str:
    if isinstance(fields.answer, Mapped):
        raw = look_up_text(record, fields.answer.field, place)
        match = re.search(fields.answer.pattern, raw)
        if not match:
            raise Unmapped(f"{place}: answer {raw!r} does not match {fields.answer.pattern!r}")
        raw = match[1]
    else:
        raw = look_up_text(record, fields.answer, place)
    text = raw.strip()
    if fields.answer_is == "number":
        number = parse_number(text)
        if number is None:
            raise Unmapped(f"{place}: answer {text!r} is not a number")
        return format_number(number)
    if fields.answer_is == "label":
        labels = (
            [str(label) for label in look_up(record, fields.labels, place)]
            if fields.labels
            else list(LABELS[: len(choices)])
        )
        places = [i for i, label in enumerate(labels) if label == text]
    elif fields.answer_is == "text":
        places = [i for i, choice in enumerate(choices) if choice == text]
    else:
        places = [int(text) - int(fields.answer_is[-1])] if re.fullmatch(r"\d+", text) else []
    if len(places) != 1 or not 0 <= places[0] < len(choices):
        raise Unmapped(f"{place}: answer key {text!r} names none of the {len(choices)} options ({fields.answer_is})")
    return LABELS[places[0]]


def prepare(path: Path, recipe: Recipe, held_out: list[dict]) -> tuple[list[dict], dict]:
    """A split of items from a raw file, and the counts of what was read, dropped and kept.

    The test split takes the items of lowest id first; the training split those of highest id, without the test items
    (`held_out`) and what nearly repeats them. So enlarging one leaves the other as it is, until they meet.
    """
    pool, dropped, read = _pool(path, recipe)
    if recipe.name == "train":
        taken = {item["id"] for item in held_out}
        rest = [item for item in pool if item["id"] not in taken]
        near = near_duplicates(rest, held_out, recipe.near_duplicate)
        dropped["in_test"], dropped["near_duplicate_of_test"] = len(pool) - len(rest), len(near)
        pool = [item for item in reversed(rest) if item["id"] not in near]
    items = _take(pool, recipe)
    counts = {"read": read, "dropped": dropped, "not_needed": len(pool) - len(items), "items": len(items)}
    if recipe.kind == "choice":
        counts["answers"] = dict(sorted(collections.Counter(item["answer"] for item in items).items()))
    return items, counts


def _pool(path: Path, recipe: Recipe) -> tuple[list[dict], dict[str, int], int]:
    """The items of one raw file in the order of their ids, each question once; what was dropped; how many were read."""
    records = read_records(path)
    items, unmapped, repeated, contradicted = {}, 0, 0, set()
    for place, record in records:
        try:
            item = to_item(record, place, recipe)
        except Unmapped as fault:
            if not recipe.drop_unmapped:
                raise UserError(
                    f"{fault}; correct the record, or set `drop_unmapped: true` to leave such records out"
                ) from None
            unmapped += 1
            continue
        if item["id"] in items:
            repeated += 1
            if items[item["id"]]["answer"] != item["answer"]:
                contradicted.add(item["id"])
        else:
            items[item["id"]] = item
    for item_id in contradicted:
        del items[item_id]
    if not items:
        raise UserError(f"{path}: no usable record among {len(records)}; check the benchmark's `fields`")
    dropped = {"answer_unmapped": unmapped, "repeated": repeated, "contradictory_answers": len(contradicted)}
    return [items[item_id] for item_id in sorted(items)], dropped, len(records)


def _take(items: list[dict], recipe: Recipe) -> list[dict]:
    """The first items of a pool, equally many per answer where that is asked for, in the order of their ids."""
    name, split = recipe.name, recipe.split
    if not items:
        raise UserError(f"split {name!r}: no item is left; the test split or its near-duplicates cover all of the file")
    balance = split.balance if split.balance is not None else recipe.kind == "choice" and split.size is not None
    if balance:
        by_answer = collections.defaultdict(list)
        for item in items:
            by_answer[item["answer"]].append(item)
        share = -(-split.size // len(by_answer)) if split.size else min(map(len, by_answer.values()))
        short = {answer: len(found) for answer, found in sorted(by_answer.items()) if len(found) < share}
        if short:
            raise UserError(
                f"split {name!r}: {share} items per answer are asked for, but only {short} are there; lower `size` or set `balance: false`"
            )
        rounds = itertools.zip_longest(*(found[:share] for _, found in sorted(by_answer.items())))
        items = [item for one_per_answer in rounds for item in one_per_answer if item is not None]
    if split.size is not None and len(items) < split.size:
        raise UserError(
            f"split {name!r}: {split.size} items are asked for, but only {len(items)} are left; lower `size`"
        )
    return sorted(items[: split.size], key=lambda item: item["id"])


def shingles(text: str) -> frozenset[str]:
    """The word 3-grams of a text, case and punctuation aside (the whole text where it is shorter).

    Numbers count as words: benchmarks made from templates ask one story with other numbers by design.
    """
    words = re.findall(r"\w+(?:[.,]\d+)*", text.lower())
    return frozenset(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))


def near_duplicates(items: list[dict], held_out: list[dict], threshold: float) -> set[str]:
    """The ids of `items` whose question is nearly one of `held_out`: Jaccard index of word 3-grams at the threshold or over."""
    index = collections.defaultdict(list)
    sets = [shingles(" ".join([item["question"], *item["choices"]])) for item in held_out]
    for number, grams in enumerate(sets):
        for gram in grams:
            index[gram].append(number)
    near = set()
    for item in items:
        grams = shingles(" ".join([item["question"], *item["choices"]]))
        shared = collections.Counter(number for gram in grams for number in index.get(gram, ()))
        if any(count / (len(grams) + len(sets[number]) - count) >= threshold for number, count in shared.items()):
            near.add(item["id"])
    return near


def subset(ids: list[str], share: int, seed: int) -> set[str]:
    """The ids in the first `share` percent of a seeded order; smaller shares are contained in larger ones."""
    ranked = sorted(ids, key=lambda item_id: hashlib.sha256(f"{seed}:{item_id}".encode()).digest())
    return set(ranked[: round(len(ranked) * share / 100)])


def read_items(path: Path) -> dict[str, dict]:
    """The items of a prepared split, by id."""
    items = {}
    for number, row in enumerate(read_jsonl(path), 1):
        missing = {"id", "kind", "question", "choices", "answer"} - row.keys()
        if missing:
            raise UserError(
                f"{path}:{number}: not a prepared item ({', '.join(sorted(missing))} missing); run the prepare stage again"
            )
        items[row["id"]] = row
    if not items:
        raise UserError(f"{path}: holds no item; run the prepare stage again")
    return items


def known_item(items: dict[str, dict], row: dict) -> dict:
    """The item that a row of another file belongs to; `UserError` if the two files are of different studies."""
    if row["item"] not in items:
        raise UserError(
            f"{row['id']}: its item {row['item']} is not among the prepared items; run the stage that made it again"
        )
    return items[row["item"]]
