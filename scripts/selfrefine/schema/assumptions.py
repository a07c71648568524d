"""What planning assumes about hardware, lengths and yields (config/assumptions.yaml)."""

from typing import Annotated, Any, Literal, TypedDict

from pydantic import Field, ValidationError

from selfrefine.errors import UserError
from selfrefine.schema.base import Strict, describe
from selfrefine.schema.rows import Kind

Split = Literal["train", "test"]


class Gpu(Strict):
    """One GPU, and what share of its peak the stages reach."""

    peak_tflops: float = Field(gt=0)
    memory_gb: float = Field(gt=0)
    usable: float = Field(gt=0, le=1)
    generate: float = Field(gt=0, le=1)
    train: float = Field(gt=0, le=1)


class Processor(Strict):
    """A machine without GPUs: the share of its measured rate that stages reach, and the seconds of a start."""

    generate: float = Field(gt=0, le=1)
    train: float = Field(gt=0, le=1)
    start_seconds: float = Field(ge=0, description="Of a job that loads a model.")
    job_seconds: float = Field(ge=0, description="Of any job.")


class Tokens(Strict):
    """Tokens per question, by kind of benchmark, and of the longest prompt."""

    longest_prompt: int = Field(gt=0)
    prompt: dict[Kind, float]
    cot: dict[Kind, float]
    plain: dict[Kind, float]


class Yields(Strict):
    """Shares of the training questions that give something to learn from."""

    demonstrations: float = Field(gt=0, le=1)
    pairs: float = Field(gt=0, le=1)


class PowerAssumptions(Strict):
    """What the power of the claims is computed with, in percent and accuracy points; none of it shapes a result."""

    in_domain: dict[str, Annotated[float, Field(ge=0, le=100)]] = Field(
        description="Accuracies by arm on the benchmark that it was trained on last."
    )
    out_of_domain: dict[str, Annotated[float, Field(ge=0, le=100)]] = Field(description="The same on other benchmarks.")
    out_family_gain: float = Field(
        description="A student refined by an out-family teacher over one by an in-family one."
    )
    within_arm: float = Field(
        2.0, description="One arm over the same arm made otherwise, such as with another recipe (a study's own claims)."
    )
    effects: dict[int | str, float] = Field(
        {}, description="By a claim's number or name, differences in place of those of the accuracies."
    )
    discordance: float = Field(gt=0, le=100, description="Items that two arms under one seed answer differently.")
    stable: float = Field(
        ge=0, le=1, description="Of a difference's variance, the share that is the same under each seed."
    )
    between_seeds: float = Field(ge=0, description="The standard deviation of a difference between seeds.")


class Costs(Strict):
    """What GPU hours cost in money, energy and emissions; no result depends on it but the tables of costs."""

    currency: str = Field(min_length=1, description="Of the prices, such as USD.")
    gpu_hour: dict[str, Annotated[float, Field(ge=0)] | None] = Field(
        description="By name, such as on-demand, the price of an hour of one GPU; null leaves one out."
    )
    gpu_watts: float = Field(ge=0, description="One GPU in a job, where nothing measured it.")
    host_watts: float = Field(ge=0, description="The rest of the machine, for each GPU of a job, or a job without.")
    pue: float = Field(ge=1, description="What the building draws over what its machines draw.")
    grid: float = Field(ge=0, description="Kilograms of CO2e for each kilowatt-hour.")

    @property
    def prices(self) -> dict[str, float]:
        """The prices that are given, by name."""
        return {name: price for name, price in self.gpu_hour.items() if price is not None}


class Assumptions(Strict):
    """All that planning assumes."""

    gpu: Gpu
    processor: Processor
    start_seconds: float = Field(ge=0)
    load_gb_per_second: float = Field(gt=0)
    tokens: Tokens
    yields: Yields
    items: dict[str, dict[Split, int]]
    power: PowerAssumptions
    costs: Costs
    bytes_per_token: float = Field(gt=0)
    generate_tokens_per_second: dict[str, float] = {}
    train_tokens_per_second: dict[str, float] = {}

    @classmethod
    def read(cls, values: dict[str, Any]) -> "Assumptions":
        """Validates assumptions; `UserError` lists each fault as `key: what is wrong`."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            faults = "; ".join(describe(fault) for fault in error.errors())
            raise UserError(f"assumptions: {faults}") from None


class Rate(TypedDict):
    """What a machine multiplies weights in, and how fast, as models/rate.py measures it."""

    computed_in: str
    gflops: float | None
    """Billions of floating-point operations a second; None where a GPU computes."""
