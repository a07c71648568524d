"""What the sample stage reads."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from selfrefine.engines import Generation
from selfrefine.engines.weights import Answering
from selfrefine.prompts import Prompt


class Sampling(BaseModel):
    """How many answers a student draws for each training item, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cot: int = Field(4, ge=0, description="Answers per item with a chain of thought elicited.")
    plain: int = Field(4, ge=0, description="Answers per item without.")
    rationales: int = Field(
        0,
        ge=0,
        description="Answers per item that no chain of thought solved, drawn with the right answer given (STaR).",
    )
    hint: str = Field(
        "The right answer is {answer}. Explain how it is reached.",
        description="What gives it, after the prompt that elicits a chain of thought.",
    )
    generation: Generation = Generation(temperature=0.7)


class SampleRecipe(Answering):
    """What the sample stage reads."""

    prompt: Prompt
    extractor: Literal["strict", "legacy"] = "strict"
    sampling: Sampling = Sampling()
    share: int = Field(100, gt=0, le=100, description="Percent of the training items.")
    seed: int = 0
