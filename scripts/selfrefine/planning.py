"""What a study takes: GPU hours, tokens and disk of each job, reckoned from stated assumptions (config/assumptions.yaml).

Arithmetic of a transformer: two floating-point operations per parameter and token forward, and two more backward where the
weights are frozen, as under LoRA (Kaplan et al. 2020, arXiv 2001.08361, section 2.1); recomputed activations add a forward pass.
"""

import math
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from selfrefine.cli import describe
from selfrefine.errors import UserError
from selfrefine.study import Study, student_of

Kind = Literal["math", "choice"]
Split = Literal["train", "test"]


class Strict(BaseModel):
    """Refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Gpu(Strict):
    """One GPU, and what share of its peak the stages reach."""

    peak_tflops: float = Field(gt=0)
    memory_gb: float = Field(gt=0)
    generate: float = Field(gt=0, le=1)
    train: float = Field(gt=0, le=1)


class Memory(Strict):
    """What a model takes on the GPU."""

    bytes_per_parameter: float = Field(gt=0)
    working_share: float = Field(ge=0)


class Tokens(Strict):
    """Tokens per question, by kind of benchmark."""

    prompt: dict[Kind, float]
    cot: dict[Kind, float]
    plain: dict[Kind, float]


class Yields(Strict):
    """Shares of the training questions that give something to learn from."""

    demonstrations: float = Field(gt=0, le=1)
    pairs: float = Field(gt=0, le=1)


class Model(Strict):
    """Parameters in billions, those that a token meets, and, in millions, those that one unit of LoRA rank adds."""

    parameters: float = Field(gt=0)
    active: float = Field(gt=0)
    per_rank: float = Field(gt=0)


class Assumptions(Strict):
    """What is reckoned with."""

    gpu: Gpu
    memory: Memory
    start_seconds: float = Field(ge=0)
    load_gb_per_second: float = Field(gt=0)
    tokens: Tokens
    yields: Yields
    items: dict[str, dict[Split, int]]
    bytes_per_token: float = Field(gt=0)
    models: dict[str, Model]
    generate_tokens_per_second: dict[str, float] = {}
    train_tokens_per_second: dict[str, float] = {}

    @classmethod
    def read(cls, values: dict) -> "Assumptions":
        """Validates assumptions; `UserError` lists each fault as `key: what is wrong`."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            faults = "; ".join(describe(fault) for fault in error.errors())
            raise UserError(f"assumptions: {faults}") from None


class Cost(NamedTuple):
    """What jobs take. Tokens are those that models read as prompts and write, or that training passes through."""

    gpu_hours: float = 0.0
    prompt_tokens: float = 0.0
    written_tokens: float = 0.0
    trained_tokens: float = 0.0
    bytes: float = 0.0

    def plus(self, other: "Cost") -> "Cost":
        """The sum, part by part."""
        return Cost(*(mine + its for mine, its in zip(self, other, strict=True)))


class Planner:
    """Reckons the cost of a study's jobs."""

    def __init__(self, study: Study, assumptions: Assumptions):
        self.study = study
        self.assumed = assumptions

    def cost(self, rule: str, **wildcards: str) -> Cost:
        """The cost of one job, by the rule that makes it; nothing for rules that need no model."""
        reckon = getattr(self, f"_{rule}", None)
        return reckon(**wildcards) if reckon else Cost()

    def gpus(self, model: str) -> int:
        """How many GPUs hold a model."""
        memory = self.assumed.memory
        gigabytes = self.model(model).parameters * memory.bytes_per_parameter * (1 + memory.working_share)
        return math.ceil(gigabytes / self.assumed.gpu.memory_gb)

    def model(self, name: str) -> Model:
        """What is assumed of a model; `UserError` if nothing is."""
        if name not in self.assumed.models:
            raise UserError(f"assumptions: models.{name} is missing; give its parameters in a file named with --assume")
        return self.assumed.models[name]

    def items(self, task: str, split: str) -> int:
        """The items of a split: counted where it is made already, as configured, or assumed."""
        path = Path(f"results/benchmarks/{task}/{split}.jsonl")
        if path.exists():
            with open(path, "rb") as file:
                return sum(1 for _ in file)
        size = self.study.benchmarks[task].splits[split].size or self.assumed.items.get(task, {}).get(split)
        if size is None:
            raise UserError(
                f"assumptions: items.{task}.{split} is missing: the split takes all that its file has; "
                "give a number in a file named with --assume"
            )
        return size

    def _tokens(self, task: str, part: str) -> float:
        return getattr(self.assumed.tokens, part)[self.study.benchmarks[task].kind]

    def _hours(self, model: str, prompt: float, written: float, trained: float, passes: float = 0) -> float:
        """GPU hours; `passes` counts forward-sized passes over each trained token."""
        gpu, known = self.assumed.gpu, self.model(model)
        per_pass = 2e9 * known.active
        trainable = gpu.peak_tflops * 1e12 * gpu.train
        written_per_second = self.assumed.generate_tokens_per_second.get(model) or (
            gpu.peak_tflops * 1e12 * gpu.generate / per_pass
        )
        seconds = prompt * per_pass / trainable + written / written_per_second
        if trained:
            seconds += trained / (self.assumed.train_tokens_per_second.get(model) or trainable / (per_pass * passes))
        gigabytes = known.parameters * self.assumed.memory.bytes_per_parameter
        started = self.gpus(model) * (self.assumed.start_seconds + gigabytes / self.assumed.load_gb_per_second)
        return (seconds + started) / 3600

    def _written(self, model: str | None, task: str, asked: dict[str, float]) -> Cost:
        """The cost of completions, by style; on a server of others where there is no model."""
        prompt = sum(asked.values()) * self._tokens(task, "prompt")
        written = sum(number * self._tokens(task, style) for style, number in asked.items())
        hours = self._hours(model, prompt, written, 0) if model else 0.0
        return Cost(hours, prompt, written, 0.0, written * self.assumed.bytes_per_token)

    def _fetch_model(self, model: str) -> Cost:
        return Cost(bytes=self.model(model).parameters * 1e9 * self.assumed.memory.bytes_per_parameter)

    def _teach(self, teacher: str, task: str, split: str, style: str) -> Cost:
        entry = self.study.teachers[teacher]
        if entry.engine == "recorded":
            return Cost()
        return self._written(None if entry.engine == "openai" else entry.model, task, {style: self.items(task, split)})

    def _sample(self, start: str, task: str, share: str, seed: str) -> Cost:
        items = self.items(task, "train") * int(share) / 100
        sampling = self.study.sampling
        asked = {"cot": items * sampling.cot, "plain": items * sampling.plain}
        return self._written(self.study.students[student_of(start)].model, task, asked)

    def _evaluate(self, checkpoint: str, task: str) -> Cost:
        model = self.study.students[student_of(checkpoint)].model
        return self._written(model, task, {self.study.evaluation.style: self.items(task, "test")})

    def _instruct(self, student: str, teacher: str, task: str, share: str, seed: str) -> Cost:
        settings = self.study.training(student, "instruct")
        examples = self.items(task, "train") * int(share) / 100 * self.assumed.yields.demonstrations
        tokens = examples * settings.epochs * (self._tokens(task, "prompt") + self._tokens(task, "cot"))
        return self._trained(student, tokens, settings, 2 + settings.gradient_checkpointing)

    def _refine(self, start: str, task: str, recipe: str, share: str, seed: str) -> Cost:
        student, preference = student_of(start), self.study.recipes[recipe]
        settings = self.study.training(student, "refine")
        pairs = self.items(task, "train") * int(share) / 100 * self.assumed.yields.pairs * preference.per_item
        seen = min(pairs * settings.epochs, settings.max_steps * settings.batch_size)
        sides = [side for side in (preference.chosen, preference.rejected) if side is not None]
        length = sum(
            self._tokens(task, "prompt") + self._tokens(task, "plain" if side.style == "plain" else "cot")
            for side in sides
        )
        # The reference's likelihoods are taken once, in a forward pass before training.
        once = 1 / settings.epochs if preference.objective.reference == "start" and len(sides) == 2 else 0
        return self._trained(student, seen * length, settings, 2 + settings.gradient_checkpointing + once)

    def _trained(self, student: str, tokens: float, settings, passes: float) -> Cost:
        name = self.study.students[student].model
        adapter = self.model(name).per_rank * 1e6 * settings.lora.r * 4  # saved in float32
        return Cost(self._hours(name, 0, 0, tokens, passes), trained_tokens=tokens, bytes=adapter)
