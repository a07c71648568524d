"""A benchmark's section: its files, how their rows become items, and its splits."""

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from selfrefine.schema.base import Strict
from selfrefine.schema.rows import Kind
from selfrefine.schema.source import Source


class Mapped(Strict):
    """A part of one field of a row, which a regular expression finds.

    The pattern has one group around what is wanted; for `choices` it may have two, label and text, and the labels must
    then be A, B, C, … in order.
    """

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
            raise ValueError("needs one (group) around the part to take, or for choices two, label and text")
        return pattern


class Fields(Strict):
    """The fields of a benchmark's rows that hold an item's parts. A name may walk into objects: `choices.text`."""

    question: str | Mapped = Field(
        description="A field's name, a template such as '{context} {question}', or a pattern."
    )
    choices: str | list[str] | Mapped | None = Field(
        None,
        description="A field with a list, the fields of the options, or a pattern that finds each option in a field.",
    )
    labels: str | None = Field(
        None, description="A field that holds the options' own labels, where they are not A, B, C, …"
    )
    answer: str | Mapped
    answer_is: Literal["number", "label", "text", "index0", "index1"] = Field(
        description="What the answer field holds: a number, or an option's label, text or position from 0 or 1."
    )


class Split(Strict):
    """One split: which raw file it is cut from, and how many items it holds at most."""

    file: str
    size: int | None = Field(None, gt=0, description="None takes all.")
    balance: bool | None = Field(
        None, description="Equally many items per answer label; None: if `choice` and `size` is given."
    )


class Mapping(Strict):
    """How a benchmark's rows become items."""

    kind: Kind
    fields: Fields
    drop_unmapped: bool = Field(
        False, description="Drop and count rows whose answer the mapping cannot read, instead of refusing the file."
    )
    near_duplicate: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Training items whose word 3-grams overlap a test item's by this Jaccard index are dropped.",
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.kind == "math") != (self.fields.answer_is == "number"):
            raise ValueError("kind 'math' goes with answer_is 'number', kind 'choice' with the others")
        if (self.kind == "choice") != (self.fields.choices is not None):
            raise ValueError("kind 'choice' needs fields.choices, kind 'math' has none")
        return self


class Benchmark(Mapping):
    """A benchmark: its title, where its files come from, and how their rows become the items of its splits."""

    title: str = Field(description="Its name in the tables.")
    files: dict[str, Source]
    splits: dict[Literal["train", "test"], Split]

    @model_validator(mode="after")
    def _files_known(self) -> Self:
        for name, split in self.splits.items():
            if split.file not in self.files:
                raise ValueError(f"splits.{name}.file {split.file!r} is none of its files ({', '.join(self.files)})")
        return self
