"""Hyperparameters of the two training phases.

Each default names its source: [P] the paper, [R] the first author's public script for LoRA, [I] inferred where neither
says.
"""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from selfrefine.schema.base import Strict


class Lora(Strict):
    """A low-rank adapter's shape."""

    r: int = Field(8, gt=0, description="[R]")
    alpha: float = Field(16, gt=0, description="[R]")
    dropout: float = Field(0.1, ge=0, lt=1, description="[R]")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="Names of modules, as the model has them; all-linear: all but the head."
    )

    @field_validator("targets", mode="before")
    @classmethod
    def _names(cls, targets: Any) -> Any:
        """One name stands for a list of one."""
        if isinstance(targets, str) and targets != "all-linear":
            if "," in targets or not targets.strip():
                raise ValueError(
                    f"{targets!r} is not a module's name; write a list, as in [q_proj, v_proj], or all-linear"
                )
            targets = [targets]
        if isinstance(targets, list):
            if not targets:
                raise ValueError("names no module; name some, as in [q_proj, v_proj], or write all-linear")
            if "all-linear" in targets:
                raise ValueError("all-linear stands alone, not in a list")
            for name in targets:
                if isinstance(name, str) and (not name.strip() or "," in name or targets.count(name) > 1):
                    raise ValueError(f"{name!r} is not one module's name, or stands there twice; see [q_proj, v_proj]")
        return targets


class Optimisation(Strict):
    """Settings of both training phases."""

    learning_rate: float = Field(2e-5, gt=0)
    weight_decay: float = Field(1e-4, ge=0, description="[P]")
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    batch_size: int = Field(
        128, gt=0, description="Examples per update, whatever the hardware. [I] for instruct, [P] for refine."
    )
    micro_batch_size: int = Field(8, gt=0, description="Examples per forward pass on one device; divides batch_size.")
    max_length: int = Field(1024, gt=0, description="Longer examples are dropped and counted, never cut.")
    max_grad_norm: float = Field(1.0, gt=0)
    gradient_checkpointing: bool = Field(False, description="Recompute activations: less memory, slower.")
    method: Literal["lora", "full"] = Field("lora", description="An adapter on frozen weights [R], or all weights.")
    save_every: int = Field(
        50, gt=0, description="Updates between checkpoints; an interrupted run goes on from the last."
    )
    lora: Lora = Lora()

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size}"
            )
        return self


class InstructTraining(Optimisation):
    """Phase 1: supervised fine-tuning on demonstrations."""

    epochs: float = Field(4, gt=0, description="[P]")
    learning_rate: float = Field(2e-5, gt=0, description="[P]")
    warmup: float = Field(0.03, ge=0, le=1, description="Share of all updates. [P]")


class RefineTraining(Optimisation):
    """Phase 2: preference optimisation against the frozen starting checkpoint."""

    learning_rate: float = Field(1e-6, gt=0, description="[P]")
    epochs: float = Field(3, gt=0, description="Training also ends after max_steps.")
    max_steps: int = Field(1000, gt=0, description="[P]")
    warmup_steps: int = Field(100, ge=0, description="[P]")
    beta: float = Field(0.1, gt=0, description="[I]")
    evaluate_every: int = Field(50, gt=0, description="Updates between computations of the validation loss.")
    tokens: int | None = Field(
        None,
        gt=0,
        description="A budget: the tokens that the student samples for a refinement and those that its updates pass, "
        "together. It takes the place of epochs; max_steps still ends training.",
    )
