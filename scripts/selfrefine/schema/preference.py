"""Preference recipes and schedules: which responses are chosen and rejected, and the objective."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from selfrefine.schema.base import Strict
from selfrefine.schema.online import Online

# The arms of a study that refine.
RefiningArm = Literal["refine", "cross", "refine-only"]
REASONS = ("no_chosen", "no_rejected", "same_text")
# Of recipes with a `length_ratio` also this one.
TOO_UNLIKE = "length_ratio"


class Side(Strict):
    """Which responses may stand on one side of a pair."""

    source: Literal["student", "teacher"] = Field(
        "student", description="Sampled paths, or the teacher's demonstrations."
    )
    style: Literal["cot", "plain", "rationale", "any"] = Field(
        "any", description="How the student was asked; any leaves out rationales, whose prompt gives the answer."
    )
    verdict: Literal["correct", "wrong", "any"] = "any"


class Objective(Strict):
    """What the student is trained to do with the pairs."""

    loss: Literal["sigmoid", "sigmoid_norm", "ipo", "hinge", "robust", "odds_ratio", "kto", "sft"] = Field(
        "sigmoid",
        description="TRL's loss_type; sigmoid is DPO's [P], odds_ratio is ORPO's term, kto judges each response by "
        "itself, sft learns the chosen responses alone.",
    )
    beta: float | None = Field(
        None, gt=0, description="None: the refine section's. For odds_ratio the weight of the term (ORPO's lambda)."
    )
    nll: float = Field(
        0, ge=0, description="Weight of the chosen tokens' mean negative log-likelihood beside the loss."
    )
    reference: Literal["start", "none"] = Field(
        "start", description="Frozen copy of where training starts, or none: the log-likelihoods themselves count."
    )
    margin: float = Field(
        0, ge=0, description="Without a reference: by how much the chosen response should lead (SimPO's gamma)."
    )
    restart: bool = Field(
        False,
        description="In later rounds, train from where the first began, on what the last round's student generated.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.margin and (self.reference != "none" or self.loss != "sigmoid_norm"):
            raise ValueError("margin needs `reference: none` and `loss: sigmoid_norm`: it is a lead per token")
        if self.loss == "sft" and (self.nll or self.reference != "start"):
            raise ValueError("loss sft has neither nll nor a reference")
        if self.loss == "kto" and (self.nll or self.reference != "start"):
            raise ValueError("loss kto has no nll, and needs `reference: start`")
        if self.loss == "odds_ratio" and self.reference != "none":
            raise ValueError("loss odds_ratio needs `reference: none`: it compares the student's own likelihoods")
        return self


class Selection(Strict):
    """How pairs are made from the sampled paths of one checkpoint."""

    chosen: Side
    rejected: Side | None = Field(None, description="None: no pairs but chosen responses, for loss sft.")
    fallback: Side | None = Field(
        None, description="Where an item has no chosen response: take one of these instead. None: drop the item."
    )
    prompt: Literal["cot", "plain"] = Field("cot", description="The prompt under which both sides are trained.")
    per_item: int = Field(1, gt=0, description="Pairs per item at most, no response used twice on one side.")
    unpaired: bool = Field(
        False, description="Responses without a partner count too, up to per_item on each side; for loss kto."
    )

    length_ratio: float | None = Field(
        None,
        ge=1,
        description="Pairs are made of responses of close length, the longer of at most so many times the shorter's "
        "tokens. None: lengths do not matter.",
    )

    @model_validator(mode="after")
    def _has_lengths(self) -> Self:
        if self.length_ratio is not None:
            if self.rejected is None or self.unpaired:
                raise ValueError(
                    "length_ratio compares the two responses of a pair: name a `rejected` side, not `unpaired`"
                )
            if self.needs_teacher:
                raise ValueError("length_ratio counts tokens, and a teacher's are of another tokenizer: leave one out")
        return self

    @property
    def sides(self) -> list[Side]:
        """The sides that it names."""
        return [side for side in (self.chosen, self.rejected, self.fallback) if side is not None]

    @property
    def needs_teacher(self) -> bool:
        """Whether a side draws on demonstrations."""
        return any(side.source == "teacher" for side in self.sides)


class Recipe(Selection):
    """A preference recipe: which pairs, and what is learned from them; or what is sampled and learned online."""

    # Pairs need a chosen side; online, verdicts reward whatever is sampled.
    chosen: Side | None = None  # type: ignore[assignment]
    objective: Objective = Objective()
    online: Online | None = Field(
        None, description="Sample while learning, without sampled paths and pairs; takes the place of all but `prompt`."
    )
    arms: list[RefiningArm] | None = Field(
        None, min_length=1, description="The arms that refine with it; null: those in which it can apply."
    )
    refine: dict[str, Any] = Field({}, description="What it overrides of the refine section, and of the students'.")
    cited: str = Field("", description="Where the recipe comes from.")

    @model_validator(mode="after")
    def _has_what_it_learns_from(self) -> Self:
        if self.online:
            offline = ("chosen", "rejected", "fallback", "per_item", "unpaired", "objective")
            if idle := [key for key in offline if getattr(self, key) != type(self).model_fields[key].default]:
                raise ValueError(f"`online` learns from no pairs: leave out {', '.join(idle)}")
            return self
        if self.chosen is None:
            raise ValueError("name the `chosen` side of its pairs, or how it samples `online`")
        if self.rejected is None and self.objective.loss != "sft":
            raise ValueError(f"loss {self.objective.loss} compares two responses: name the `rejected` side")
        if self.unpaired and self.objective.loss != "kto":
            raise ValueError(
                f"loss {self.objective.loss} compares two responses: only loss kto can learn `unpaired` ones"
            )
        return self


class Schedule(Strict):
    """Recipes one after the other, and how often: each starts from the last one's checkpoint and samples from it."""

    steps: list[str] = Field(min_length=1, description="Names of recipes.")
    rounds: int = Field(1, gt=0)
    arms: list[RefiningArm] | None = Field(
        None, min_length=1, description="The arms that refine with it; null: those in which it can apply."
    )
    cited: str = Field("", description="Where the schedule comes from.")
