"""Online sampling: a student learns from which of a prompt's completions are correct."""

from typing import Literal, Self

from pydantic import Field, model_validator

from selfrefine.schema.base import Strict
from selfrefine.schema.generation import Generation


class Online(Strict):
    """How a student samples and learns: a group of completions of each prompt, each rewarded by its verdict (GRPO)."""

    group: int = Field(
        8, gt=1, description="Completions of a prompt, compared with each other; divides refine.batch_size."
    )
    generation: Generation = Field(
        Generation(temperature=1.0), description="How they are sampled; log-probabilities are at this temperature too."
    )
    kl: float = Field(
        0.04, ge=0, description="Weight of the divergence from where training starts; 0: none, and no reference."
    )
    clip: float = Field(0.2, gt=0, lt=1, description="How far below 1 a token's probability ratio counts.")
    clip_above: float | None = Field(None, gt=0, description="How far above 1; null: as far as below.")
    iterations: int = Field(1, gt=0, description="Updates on the same completions; from 2 on they are clipped.")
    scale: Literal["group", "batch", "none"] = Field(
        "group", description="Whose standard deviation rewards are divided by, after their group's mean is taken off."
    )
    loss: Literal["grpo", "dapo", "dr_grpo", "bnpo"] = Field(
        "grpo", description="TRL's loss_type: how the losses of tokens are averaged."
    )
    learn_cut: bool = Field(
        False,
        description="Whether completions that were cut at max_tokens are learned from; their rewards count in their "
        "groups either way.",
    )

    @model_validator(mode="after")
    def _completions_differ(self) -> Self:
        if not self.generation.temperature:
            raise ValueError(
                f"{self.group} completions at temperature 0 would be the same; set a generation.temperature such as 1.0"
            )
        return self
