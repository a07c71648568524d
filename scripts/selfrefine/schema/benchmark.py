"""A benchmark's section: its files, how their rows become items, and its splits."""

import re
from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from selfrefine.schema.base import NAME, Strict
from selfrefine.schema.prompt import Asking
from selfrefine.schema.rows import Kind
from selfrefine.schema.source import RawFile, check_query

ORIGINS = ("field", "path", "template", "options")
TEMPLATE = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")


def check_template(template: str) -> str:
    """A template; `ValueError` for a brace that opens or closes nothing."""
    if {"{", "}"} & set(TEMPLATE.sub("", template)):
        raise ValueError(
            f"{template!r}: a brace stands alone; names stand in {{braces}}, {{{{ and }}}} are literal ones"
        )
    return template


def _word(value: object) -> object:
    """A key or value of YAML as text; booleans as JSON has them."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if isinstance(value, int | float) else value


class Mapped(Strict):
    """A part of a row: where it is, a pattern that cuts it out, and what its values mean.

    It is in a field, at a JMESPath, in a template of fields, or (for `choices`) it is the same in all rows. The pattern
    has one group around what is wanted; for `choices` it may have two, label and text. It is applied to each element of
    a list.
    """

    field: str | None = None
    path: str | None = Field(None, description="A JMESPath expression, such as `question.choices[].text`.")
    template: str | None = Field(None, description="Fields in braces, such as '{context} {question}'.")
    options: list[str] | None = Field(None, min_length=2, max_length=26, description="Options of all rows, in order.")
    pattern: str | None = None
    values: dict[str, str] | None = Field(None, description="What each value stands for, such as {true: A, false: B}.")

    @field_validator("path")
    @classmethod
    def _is_query(cls, path: str | None) -> str | None:
        return path and check_query(path)

    @field_validator("template")
    @classmethod
    def _is_template(cls, template: str | None) -> str | None:
        return template and check_template(template)

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if groups not in (1, 2):
            raise ValueError("needs one (group) around the part to take, or for choices two, label and text")
        return pattern

    @field_validator("options", mode="before")
    @classmethod
    def _quoted_options(cls, options: object) -> object:
        _refuse_booleans(options if isinstance(options, list) else [])
        return [_word(option) for option in options] if isinstance(options, list) else options

    @field_validator("values", mode="before")
    @classmethod
    def _quoted_values(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        _refuse_booleans(list(values.values()))
        return {_word(key): _word(value) for key, value in values.items()}

    @model_serializer(mode="wrap")
    def _given_alone(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


def _refuse_booleans(values: list[object]) -> None:
    if any(isinstance(value, bool) for value in values):
        raise ValueError('YAML reads yes, no, true and false as booleans; quote the words: ["yes", "no"]')


def _check_origin(part: Mapped) -> None:
    given = [name for name in ORIGINS if getattr(part, name) is not None]
    if len(given) != 1:
        raise ValueError(f"needs one of {', '.join(ORIGINS)}; it has {' and '.join(given) or 'none'}")
    if part.options and (part.pattern or part.values):
        raise ValueError("options: the same options for all rows go without pattern and values")


class Fields(Strict):
    """The fields of a benchmark's rows that hold an item's parts. A name may walk into objects: `choices.text`."""

    question: str | Mapped = Field(
        description="A field's name, a template such as '{context} {question}', or a pattern."
    )
    choices: str | list[str | Mapped] | Mapped | None = Field(
        None,
        description="A field with a list, the fields of the options, or a pattern that finds each option in a field.",
    )
    labels: str | Mapped | None = Field(
        None, description="A field that holds the options' own labels, where they are not A, B, C, …"
    )
    answer: str | Mapped
    answer_is: Literal["number", "label", "text", "index0", "index1", "scores"] = Field(
        description="What the answer field holds: a number, a text (without choices: the answer itself), or an option's "
        "label, text or position from 0 or 1, or a score for each option, of which the correct one has the highest."
    )
    solution: str | Mapped | None = Field(
        None, description="How the answer is reached, where the rows say so: worked examples of the prompt show it."
    )

    @model_validator(mode="after")
    def _templates_closed(self) -> Self:
        choices = self.choices if isinstance(self.choices, list) else [self.choices]
        for name in (self.question, self.answer, self.labels, self.solution, *choices):
            if isinstance(name, Mapped):
                _check_origin(name)
            if isinstance(name, str) and {"{", "}"} & set(name):
                check_template(name)
        if any(
            isinstance(part, Mapped) and part.options
            for part in (self.question, self.answer, self.labels, self.solution)
        ):
            raise ValueError("options: only choices may be the same in all rows")
        return self

    # A key that a benchmark does not use is no part of its settings.
    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key != "solution" or value is not None}


class Split(Strict):
    """One split: which raw file it is cut from, and how many items it holds at most."""

    file: str
    size: int | None = Field(None, gt=0, description="None takes all.")
    balance: bool | None = Field(
        None, description="Equally many items per answer label; None: if `choice` and `size` is given."
    )
    skip: int | None = Field(
        None, gt=0, description="Leave out what a split of this size would take, and near-duplicates of it."
    )

    @model_serializer(mode="wrap")
    def _given_alone(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key != "skip" or value is not None}


class Mapping(Strict):
    """How a benchmark's rows become items."""

    kind: Kind
    fields: Fields
    where: str | None = Field(
        None, description="A JMESPath expression that is true of the rows to take, such as level == `5`."
    )
    shuffle: bool = Field(False, description="Put each item's options into an order of its own, seeded by the item.")
    drop_unmapped: bool = Field(
        False,
        description="Drop and count rows whose answer or options the mapping cannot read, instead of refusing the "
        "file.",
    )
    near_duplicate: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Training items whose word 3-grams (without spaces: character 2-grams) overlap a test item's by "
        "this Jaccard index are dropped.",
    )

    @field_validator("where")
    @classmethod
    def _is_query(cls, where: str | None) -> str | None:
        return where and check_query(where)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        answer_is = self.fields.answer_is
        if (self.kind == "math") != (answer_is == "number") or self.kind == "text" and answer_is != "text":
            raise ValueError(
                "kind 'math' goes with answer_is 'number', kind 'text' with 'text', kind 'choice' with all but 'number'"
            )
        if (self.kind == "choice") != (self.fields.choices is not None):
            raise ValueError(f"kind 'choice' needs fields.choices, kind {self.kind!r} has none")
        if self.fields.labels is not None and self.kind == "text":
            raise ValueError("fields.labels: are those of options, and kind 'text' has none")
        if self.shuffle and self.kind != "choice":
            raise ValueError(f"shuffle: true puts options into another order, and kind {self.kind!r} has none")
        return self

    # What a benchmark does not use is no part of its settings: a new key leaves the keys of all others as they are.
    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unused = {"where": None, "shuffle": False, "reading": None}
        return {key: value for key, value in handler(self).items() if key not in unused or value != unused[key]}


class Benchmark(Mapping, Asking):
    """A benchmark: its title, its files, how their rows become the items of its splits, and how these are asked."""

    title: str = Field(description="Its name in the tables.")
    files: dict[str, RawFile]
    splits: dict[Literal["train", "test"], Split]

    @model_validator(mode="after")
    def _files_known(self) -> Self:
        for name in self.files:
            if not re.fullmatch(NAME, name):
                raise ValueError(
                    f"files: {name!r} cannot be a name: it stands in paths; use letters, digits, -, _ and ."
                )
        for name, split in self.splits.items():
            if split.file not in self.files:
                raise ValueError(f"splits.{name}.file {split.file!r} is none of its files ({', '.join(self.files)})")
        return self
