"""The configuration of demonstrations: what a teacher is asked, and which answers count."""

from typing import Any

from pydantic import Field, field_validator

from selfrefine.schema.stages import DemonstrateSettings
from selfrefine.schema.ways import Preferred, WayName


class Demonstrations(DemonstrateSettings):
    """Which items a teacher is asked, and which of its answers become demonstrations."""

    select: list[WayName] | None = Field(
        None,
        min_length=1,
        description="How the items of a share below 100 % are chosen, before the teacher is asked; several ways make "
        "arms side by side. Null: the teacher is asked all, and a seeded share of the demonstrations is used.",
    )
    prefer: Preferred = Field(
        "low", description="Which perplexity of a question the ways uncertainty and dpp prefer, by the student itself."
    )
    weight: float = Field(
        0.25,
        gt=0,
        description="Of the way dpp: the power of the perplexity in the quality of an item, 1 / perplexity^w.",
    )

    @field_validator("select", mode="before")
    @classmethod
    def _several(cls, given: Any) -> Any:
        return [given] if isinstance(given, str) else given
