"""A benchmark kind's prompt."""

from pydantic import Field

from selfrefine.schema.base import Strict


class Prompt(Strict):
    """How a question of one kind is put to a model; the words are configuration."""

    instruction: str = Field(min_length=1, description="The task; {labels} stands for the benchmark's option letters.")
    cot: str = Field(
        "Answer: Let's think step by step", description="The last line where a chain of thought is elicited."
    )
    plain: str = Field("Answer:", description="The last line where none is.")
