"""How a checkpoint samples paths on the training items."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from selfrefine.schema.base import Strict
from selfrefine.schema.generation import Generation


class Sampling(Strict):
    """How many paths a student samples for each training item, and how."""

    cot: int = Field(4, ge=0, description="Paths per item with a chain of thought elicited.")
    plain: int = Field(4, ge=0, description="Paths per item without.")
    rationales: int = Field(
        0,
        ge=0,
        description="Paths per item that no chain of thought solved, sampled with the correct answer given (STaR).",
    )
    hint: str = Field(
        "The right answer is {answer}. Explain how it is reached.",
        description="The line that gives it, after the prompt that elicits a chain of thought.",
    )
    generation: Generation = Generation(temperature=0.7)

    @field_validator("generation")
    @classmethod
    def _has_temperature(cls, generation: Generation) -> Generation:
        if generation.temperature is None:
            raise ValueError("temperature: null is for served teachers alone; set one")
        return generation

    @model_validator(mode="after")
    def _paths_differ(self) -> Self:
        several = [name for name in ("cot", "plain", "rationales") if getattr(self, name) > 1]
        if several and not self.generation.temperature:
            raise ValueError(
                f"{several[0]}: {getattr(self, several[0])} paths at temperature 0 would be the same; set 1, or a "
                "`generation.temperature` such as 0.7"
            )
        return self
