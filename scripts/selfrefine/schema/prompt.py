"""How questions are put to a model: prompts by kind and by benchmark, and worked examples."""

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from selfrefine.schema.base import Strict


class Prompt(Strict):
    """How a question of one kind is put to a model; the words are configuration."""

    instruction: str = Field(min_length=1, description="The task; {labels} stands for the benchmark's option letters.")
    cot: str = Field(
        "Answer: Let's think step by step", description="The last line where a chain of thought is elicited."
    )
    plain: str = Field("Answer:", description="The last line where none is.")


class OwnPrompt(Strict):
    """What one benchmark changes of its kind's prompt; null leaves it as it is."""

    instruction: str | None = Field(None, min_length=1, description="The task.")
    cot: str | None = Field(None, description="The last line where a chain of thought is elicited.")
    plain: str | None = Field(None, description="The last line where none is.")


class Example(Strict):
    """A worked example, as a prompt shows it before the question."""

    question: str = Field(min_length=1)
    choices: list[str] = Field([], description="The options in order; none where the answer is a number or a text.")
    answer: str = Field(min_length=1, description="An option's letter, a number, or a text.")
    solution: str = Field("", description="How the answer is reached, shown where a chain of thought is elicited.")


class Shots(Strict):
    """The worked examples of a benchmark's prompt: of the training split, of a file, or given here."""

    number: int | None = Field(
        None,
        gt=0,
        description="How many a prompt has; null: all of a file's. Of the training split if no file is named.",
    )
    seed: int = Field(0, description="Of the order in which items of the training split are taken.")
    file: str | None = Field(None, description="A JSON Lines file of {question, choices, answer, solution}.")
    examples: list[Example] = Field([], description="The examples themselves, instead of a file.")
    answer: str = Field("The answer is {answer}.", description="The line that ends each example.")

    @model_validator(mode="after")
    def _come_from_one_place(self) -> Self:
        if self.file is not None and self.examples:
            raise ValueError("has both `file` and `examples`; keep one")
        if self.file is None and not self.examples and self.number is None:
            raise ValueError("give their `number`, to take them from the training split, or a `file`")
        if "{answer}" not in self.answer:
            raise ValueError("answer: must have {answer} in it, where the example's answer stands")
        return self

    @property
    def of_training_split(self) -> bool:
        """Whether the examples are items of the training split."""
        return self.file is None and not self.examples


def _from_number(given: Any) -> Any:
    if isinstance(given, int) and not isinstance(given, bool):
        return {"number": given} if given else None
    return given


GivenShots = Annotated[
    Shots | None, BeforeValidator(_from_number, json_schema_input_type=Annotated[int, Field(ge=0)] | Shots | None)
]


def _compile(phrases: list[str]) -> list[str]:
    for phrase in phrases:
        try:
            found = re.compile(f"(?:{phrase})", re.IGNORECASE)
        except re.error as error:
            raise ValueError(f"{phrase!r} is not a regular expression: {error}") from None
        if found.fullmatch(""):
            raise ValueError(f"{phrase!r} matches the empty text, so an answer would begin anywhere")
    return phrases


AnswerPhrases = Annotated[list[str], Field(min_length=1), AfterValidator(_compile)]
Phrases = Annotated[
    list[str], Field(description="Regular expressions of what stands before an answer; `default`: the usual ones.")
]


class Asking(Strict):
    """How the questions of one benchmark are put, and how the answers to them are read."""

    prompt: OwnPrompt = Field(OwnPrompt(), description="Over its kind's prompt.")
    request: str | None = Field(None, description="Over the teachers' `request` for its kind.")
    shots: GivenShots = Field(
        None, description="Worked examples before each question: a number of the training split's items, or a file."
    )
    stop: list[Annotated[str, Field(min_length=1)]] = Field(
        [], description="Strings at which generation ends; an answer is judged up to there."
    )
    answer_phrases: AnswerPhrases | None = Field(
        None, description="Regular expressions of what stands before an answer; null: the general `answer_phrases`."
    )


class TaskPrompt(Prompt):
    """A benchmark's prompt, as the stages read it."""

    shots: Shots | None = Field(None, description="The worked examples; a file's have been read.")
