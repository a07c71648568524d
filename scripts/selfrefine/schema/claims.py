"""What a study claims of its arms, and the statistics by which claims are judged."""

import re
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from selfrefine.schema.base import Strict

# A number would be taken for one of the paper's claims.
CLAIM_NAME = r"^[A-Za-z][A-Za-z0-9_-]*$"
# The value of a fact that names it and leaves it open.
ANY = "any"
Value = str | int
# Facts of an arm with the values that they may have.
Facts = dict[str, Value | list[Value]]


class Compared(Strict):
    """Two sides of a comparison; they may differ in facts that both name, and in no other."""

    where: Facts = Field({}, description="Facts of both sides; `domain: in`: on the benchmark trained on last.")
    treated: Facts = Field({}, description="Facts of the arm that should be better.")
    control: Facts = Field({}, description="Facts of the arm that it is compared with.")

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if bool(self.treated) != bool(self.control):
            lacking = "control" if self.treated else "treated"
            raise ValueError(f"{lacking} is missing: a comparison has two sides")
        if self.treated and self.treated == self.control:
            raise ValueError("treated and control are alike: name a fact in which they differ")
        return self


class OwnPart(Compared):
    """A part of a claim: it is tested only if all of them are."""

    title: str = Field("", description="What the part is about, such as `with a small teacher`.")


class OwnClaim(Compared):
    """A claim: what is said of the difference between arms that are alike in all that not both sides name."""

    title: str = Field(description="The claim as a sentence.")
    says: Literal["above", "not below", "about"] = Field(
        "above",
        description="Of treated: better at all; less than statistics.margin worse; within the margin on both sides.",
    )
    parts: list[OwnPart] = Field([], description="Several comparisons in one claim, in place of treated and control.")
    effect: float | None = Field(
        None, description="Accuracy points that `study.py plan` computes power for; no result depends on it."
    )

    @model_validator(mode="after")
    def _compares(self) -> Self:
        if self.parts and (self.treated or self.where):
            raise ValueError("has parts: name where, treated and control in each of them")
        if not all(part.treated for part in self.compared):
            raise ValueError("compares nothing: name treated and control, or parts that do")
        return self

    @property
    def compared(self) -> list[OwnPart]:
        """Its parts; a claim without any is one part."""
        return self.parts or [OwnPart(where=self.where, treated=self.treated, control=self.control)]


class Claims(Strict):
    """What a study claims: the paper's seven claims, and its own by name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, OwnClaim] = Field(init=False)

    paper: bool = Field(True, description="Whether the paper's seven claims are tested.")

    @model_validator(mode="after")
    def _has_some(self) -> Self:
        if not (self.paper or self.own):
            raise ValueError("paper is false and there is no other claim: name one")
        for name in self.own:
            if not re.fullmatch(CLAIM_NAME, name):
                raise ValueError(
                    f"{name!r} cannot be a claim's name: begin with a letter; use letters, digits, - and _"
                )
        return self

    @property
    def own(self) -> dict[str, OwnClaim]:
        """The study's own claims by name."""
        return self.__pydantic_extra__ or {}


class Statistics(Strict):
    """How uncertainty is stated."""

    level: float = Field(0.95, gt=0.5, lt=1, description="Of the intervals.")
    margin: float = Field(
        5, gt=0, lt=100, description="Accuracy points that 'reaches the teacher' and 'about as good' allow for."
    )
    count_unrefined: bool = Field(
        False,
        description="Whether claims count checkpoints as refined that had too few pairs to learn from, and so are as "
        "they were.",
    )
    matched_length: float | None = Field(
        None,
        gt=1,
        description="Claims also say whether a gain is length alone. Answers count as equally long if one has at most so "
        "many times the other's tokens. None: lengths are left out.",
    )
    looks: list[int] | Literal["any"] | None = Field(
        None,
        description="Numbers of seeds at which the claims are judged, ascending, with the level spent over them; `any`: "
        "at every number. Without it the study is judged once.",
    )
    spending: Literal["obrien-fleming", "pocock"] = Field(
        "obrien-fleming", description="How the level is spent over the looks: late, or evenly."
    )

    def asked(self) -> dict[str, Any]:
        """What is asked for, as plain values; without what a study that does not ask for it never had."""
        return self.model_dump(mode="json", exclude={"matched_length"} if self.matched_length is None else None)

    @field_validator("looks")
    @classmethod
    def _looks_ascend(cls, looks: list[int] | str | None) -> list[int] | str | None:
        if isinstance(looks, list) and (not looks or looks[0] < 2 or sorted(set(looks)) != looks):
            raise ValueError("Input should be numbers of seeds from 2 on, ascending, each once")
        return looks
