"""What a study takes: GPU hours, tokens, disk and resources of each job, reckoned from its models' sizes and from stated
assumptions (config/assumptions.yaml).

Arithmetic of a transformer: two floating-point operations per parameter and token forward, and two more backward where the
weights are frozen, as under LoRA (Kaplan et al. 2020, arXiv 2001.08361, section 2.1); recomputed activations add a forward pass.
"""

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from selfrefine import resources
from selfrefine.cli import describe
from selfrefine.engines.weights import STUDENT_ENGINES
from selfrefine.errors import UserError
from selfrefine.preferences import Recipe, Side
from selfrefine.resources import BYTES, Memory, Size
from selfrefine.study import Student, Study, Teacher, student_of, teacher_of

# Of a parameter, as weights lie on the disk.
STORED_BYTES = BYTES["bfloat16"]
# Texts that vLLM should be able to have in hand; it takes more where memory is left.
ROWS = 16
Kind = Literal["math", "choice"]
Split = Literal["train", "test"]


class Strict(BaseModel):
    """Refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Gpu(Strict):
    """One GPU, and what share of its peak the stages reach."""

    peak_tflops: float = Field(gt=0)
    memory_gb: float = Field(gt=0)
    usable: float = Field(gt=0, le=1)
    generate: float = Field(gt=0, le=1)
    train: float = Field(gt=0, le=1)


class Processor(Strict):
    """A machine without GPUs: what share of its measured matrix products the stages reach, and seconds of each job's start."""

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


class Assumptions(Strict):
    """What is reckoned with."""

    gpu: Gpu
    processor: Processor
    start_seconds: float = Field(ge=0)
    load_gb_per_second: float = Field(gt=0)
    tokens: Tokens
    yields: Yields
    items: dict[str, dict[Split, int]]
    bytes_per_token: float = Field(gt=0)
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


class Needs(NamedTuple):
    """What one job asks a cluster for: cards, memory of the host in MB, and time in minutes, None for the partition's own."""

    gpu: int
    mem_mb: int
    runtime: int | None


class UnknownSize(UserError):
    """How many items a job has cannot be told before its benchmark is prepared."""


# The file that a split's items are in once they are made.
ItemsOf = Callable[[str, str], Path]


class Planner:
    """Reckons the cost of a study's jobs, on the assumed cards or on those of its cluster.

    `items_of(task, split)` names a split's file, whose items are counted if it is there.
    `UserError` if one of the study's stages takes more cards than a node of the cluster has.
    """

    def __init__(self, study: Study, assumptions: Assumptions, items_of: ItemsOf | None = None):
        self.study = study
        self.items_of = items_of
        self.assumed = assumptions
        if study.cluster and study.cluster.gpu_memory:
            own = {"memory_gb": study.cluster.gpu_memory, "peak_tflops": study.cluster.gpu_tflops}
            known = {name: value for name, value in own.items() if value is not None}
            self.assumed = assumptions.model_copy(update={"gpu": assumptions.gpu.model_copy(update=known)})
        # A study has ten thousand jobs, and few of these.
        self.items = functools.cache(self._items)
        self._held = functools.cache(self._memory)
        if study.cluster and study.cluster.gpu_memory:
            self._check_that_all_fit(study.cluster.gpus_per_node)

    def cost(self, rule: str, **wildcards: str) -> Cost:
        """The cost of one job, by the rule that makes it; nothing for rules that need no model."""
        reckon = getattr(self, f"_{rule}", None)
        cost = reckon(**wildcards) if reckon else Cost()
        if not cost.gpu_hours:
            return cost
        gigabytes = self.size(self._loads(rule, **wildcards).model).parameters * STORED_BYTES
        seconds = self.assumed.start_seconds + gigabytes / self.assumed.load_gb_per_second
        return cost._replace(gpu_hours=cost.gpu_hours + self.cards(rule, **wildcards) * seconds / 3600)

    def needs(self, rule: str, attempt: int, **wildcards: str) -> Needs:
        """What a job asks the study's cluster for at its n-th attempt, more memory and time at each.

        Cards stay as many: a training that is divided otherwise rounds otherwise.
        """
        cluster, own = self.study.cluster, self._loads(rule, **wildcards)
        if cluster is None or own is None:
            return Needs(0, resources.host_mb(0, attempt), None)
        if cluster.gpu_memory is None:
            held = self.memory(rule, **wildcards).total if self.study.models[own.model].parameters else 0
            return Needs(0, resources.host_mb(held, attempt), int(cluster.longest_hours * 60))
        try:
            hours = self.cost(rule, **wildcards).gpu_hours
        except UnknownSize:
            hours = cluster.longest_hours
        limit = resources.minutes(hours, cluster.time_factor, attempt, cluster.longest_hours)
        cards = self.cards(rule, **wildcards)
        each = resources.GATHERED_BYTES if self._shards(rule, _name(rule, wildcards)) else BYTES[own.dtype]
        return Needs(cards, resources.host_mb(self.size(own.model).parameters * each, attempt), limit)

    def cards(self, rule: str, **wildcards: str) -> int:
        """How many GPUs a job takes; 0 for rules that load no model."""
        own = self._loads(rule, **wildcards)
        if own is None:
            return 0
        name = _name(rule, wildcards)
        return self._cards(rule, name, wildcards.get("recipe"))

    def _cards(self, rule: str, name: str, recipe: str | None, most: int = sys.maxsize) -> int:
        gpu, memory = self.assumed.gpu, self._held(rule, name, recipe)
        if rule in ("instruct", "refine"):
            if self._shards(rule, name):
                # Until training begins, each card holds all of the weights.
                whole = Memory(0.0, self.size(self.study.students[name].model).parameters * BYTES["float32"])
                resources.cards(whole, gpu.memory_gb, gpu.usable, most)
            resources.cards(memory, gpu.memory_gb, gpu.usable, self._trainers, key="cluster.gpus_to_train")
            return self._trainers
        return resources.cards(memory, gpu.memory_gb, gpu.usable, most, evenly=self._engine(rule, name) == "vllm")

    @property
    def _trainers(self) -> int:
        return self.study.cluster.gpus_to_train if self.study.cluster else 1

    def _shards(self, rule: str, name: str) -> bool:
        """Whether a training shares out its weights: where all of them learn, and there are several cards."""
        return (
            rule in ("instruct", "refine") and self._trainers > 1 and self.study.training(name, rule).method == "full"
        )

    def _engine(self, rule: str, name: str) -> str:
        return self.study.teachers[name].engine if rule == "teach" else self.study.engine

    def _check_that_all_fit(self, most: int) -> None:
        design = self.study.study
        kinds = [("teach", name, None) for name in design.teachers if name not in self.study.asked_here()]
        for student in design.students:
            kinds.append(("evaluate", student, None))
            if {"instruct", "refine", "cross"}.intersection(design.arms):
                kinds.append(("instruct", student, None))
            if {"refine", "cross", "refine-only"}.intersection(design.arms):
                kinds.append(("sample", student, None))
                steps = sorted({step for name in design.recipes for step in self.study.steps(name)})
                kinds += [("refine", student, recipe) for recipe in steps]
        for rule, name, recipe in kinds:
            try:
                self._cards(rule, name, recipe, most)
            except UserError as error:
                whose = "teachers" if rule == "teach" else "students"
                raise UserError(f"configuration: {whose}.{name}: rule {rule} does not fit on a node: {error}") from None

    def memory(self, rule: str, **wildcards: str) -> Memory | None:
        """What one job holds on its GPUs; None for rules that load no model."""
        own = self._loads(rule, **wildcards)
        if own is None:
            return None
        name = _name(rule, wildcards)
        return self._held(rule, name, wildcards.get("recipe"))

    def _memory(self, rule: str, name: str, recipe: str | None) -> Memory:
        own = self.study.teachers[name] if rule == "teach" else self.study.students[name]
        size, number = self.size(own.model), BYTES[self._computed_in(own.dtype)]
        if rule in ("instruct", "refine"):
            settings = self.study.training(name, rule)
            texts = len(_sides(self.study.recipes[recipe])) if recipe else 1
            tokens = settings.micro_batch_size * texts * settings.max_length
            if settings.method == "full":
                trained, weight = size.parameters, 0.0
            else:
                trained = size.lora(settings.lora.r)
                weight = resources.PACKED_BYTES if own.quantisation == "nf4" else number
            held = resources.training(size, number, weight, trained, tokens, settings.gradient_checkpointing)
            # Each process holds all of it; further ones share out the examples of an update, and weights that all learn.
            return held if self._shards(rule, name) else held.whole
        settings = {
            "teach": getattr(own, "generation", None),
            "sample": self.study.sampling.generation,
            "evaluate": self.study.evaluation,
        }[rule]
        prompt = self.assumed.tokens.longest_prompt
        # vLLM has as many texts in hand as the memory that is left allows.
        rows = ROWS if self._engine(rule, name) == "vllm" else own.batch_size
        return resources.generating(size, number, rows, prompt, settings.max_tokens)

    def _computed_in(self, dtype: str) -> str:
        """What weights of a dtype are multiplied in where jobs run; on processors, which differ, what takes more room."""
        if self.study.compute != "auto":
            return self.study.compute
        cluster = self.study.cluster
        if cluster and cluster.gpu_memory is None:
            return "float32"
        return dtype if not cluster or cluster.gpu_bfloat16 or dtype == "float16" else "float32"

    def _loads(self, rule: str, **wildcards: str) -> Student | Teacher | None:
        """The student or teacher whose weights a job loads."""
        if rule == "teach":
            teacher = self.study.teachers[wildcards["teacher"]]
            return teacher if teacher.engine in STUDENT_ENGINES else None
        if rule in ("instruct", "sample", "refine", "evaluate"):
            return self.study.students[_student(wildcards)]
        return None

    def size(self, name: str) -> Size:
        """A model's size as configured; `UserError` if it is not."""
        model = self.study.models[name]
        if model.parameters is None:
            raise UserError(f"configuration: models.{name}.parameters: is missing; give the model's size in billions")
        return Size(model.parameters, model.active or model.parameters, model.vocabulary, model.kv_share)

    def _items(self, task: str, split: str) -> int:
        """The items of a split: counted where it is made already, as configured, or assumed."""
        path = self.items_of(task, split) if self.items_of else None
        if path and path.exists():
            with open(path, "rb") as file:
                return sum(1 for _ in file)
        size = self.study.benchmarks[task].splits[split].size or self.assumed.items.get(task, {}).get(split)
        if size is None:
            raise UnknownSize(
                f"assumptions: items.{task}.{split} is missing: the split takes all that its file has; "
                "give a number in a file named with --assume"
            )
        return size

    def _tokens(self, task: str, part: str) -> float:
        return getattr(self.assumed.tokens, part)[self.study.benchmarks[task].kind]

    def _answer(self, task: str, style: str, teacher: str | None) -> float:
        """Tokens of an answer that is learned from, of a teacher's or, if None, of the student's own."""
        writer = self.study.teachers[teacher] if teacher else self.study.sampling
        return min(self._tokens(task, style), writer.generation.max_tokens)

    def _hours(self, model: str, prompt: float, written: float, trained: float, passes: float = 0) -> float:
        """Hours of work for one GPU; `passes` counts forward-sized passes over each trained token."""
        gpu, per_pass = self.assumed.gpu, 2e9 * self.size(model).active
        trainable = gpu.peak_tflops * 1e12 * gpu.train
        written_per_second = self.assumed.generate_tokens_per_second.get(model) or (
            gpu.peak_tflops * 1e12 * gpu.generate / per_pass
        )
        seconds = prompt * per_pass / trainable + written / written_per_second
        if trained:
            seconds += trained / (self.assumed.train_tokens_per_second.get(model) or trainable / (per_pass * passes))
        return seconds / 3600

    def _written(
        self, model: str | None, task: str, asked: dict[str, float], most: int, each: Mapping[str, int] = {}
    ) -> Cost:
        """The cost of completions of `most` tokens at most, by style; on a server of others where there is no model.

        `each`: how many answers a prompt gets, by style; an engine of ours reads it once.
        """
        prompt = sum(asked.values()) * self._tokens(task, "prompt")
        written = sum(number * min(self._tokens(task, style), most) for style, number in asked.items())
        read = sum(number / each.get(style, 1) for style, number in asked.items()) * self._tokens(task, "prompt")
        hours = self._hours(model, read, written, 0) if model else 0.0
        return Cost(hours, prompt, written, 0.0, written * self.assumed.bytes_per_token)

    def _fetch_model(self, model: str) -> Cost:
        return Cost(bytes=self.size(model).parameters * 1e9 * STORED_BYTES)

    def _teach(self, teacher: str, task: str, split: str, style: str) -> Cost:
        entry = self.study.teachers[teacher]
        if entry.engine == "recorded":
            return Cost()
        model = None if entry.engine == "openai" else entry.model
        return self._written(model, task, {style: self.items(task, split)}, entry.generation.max_tokens)

    def _sample(self, start: str, task: str, share: str, seed: str) -> Cost:
        items = self.items(task, "train") * int(share) / 100
        sampling = self.study.sampling
        each = {style: number for style in ("cot", "plain") if (number := getattr(sampling, style))}
        asked = {style: items * number for style, number in each.items()}
        model = self.study.students[student_of(start)].model
        return self._written(model, task, asked, sampling.generation.max_tokens, each)

    def _evaluate(self, checkpoint: str, task: str) -> Cost:
        model = self.study.students[student_of(checkpoint)].model
        evaluation = self.study.evaluation
        return self._written(model, task, {evaluation.style: self.items(task, "test")}, evaluation.max_tokens)

    def _instruct(self, student: str, teacher: str, task: str, share: str, seed: str) -> Cost:
        settings = self.study.training(student, "instruct")
        examples = self.items(task, "train") * int(share) / 100 * self.assumed.yields.demonstrations
        length = self._tokens(task, "prompt") + self._answer(task, "cot", teacher)
        return self._trained(
            student, examples * settings.epochs * length, settings, 2 + settings.gradient_checkpointing
        )

    def _refine(self, start: str, task: str, recipe: str, share: str, seed: str) -> Cost:
        student, preference = student_of(start), self.study.recipes[recipe]
        settings = self.study.training(student, "refine")
        pairs = self.items(task, "train") * int(share) / 100 * self.assumed.yields.pairs * preference.per_item
        seen = min(pairs * settings.epochs, settings.max_steps * settings.batch_size)
        sides = _sides(preference)
        length = 0.0
        for side in sides:
            style, teacher = "plain" if side.style == "plain" else "cot", side.source == "teacher" and teacher_of(start)
            length += self._tokens(task, "prompt") + self._answer(task, style, teacher or None)
        # The reference's likelihoods are taken once, in a forward pass before training.
        once = 1 / settings.epochs if preference.objective.reference == "start" and len(sides) == 2 else 0
        return self._trained(student, seen * length, settings, 2 + settings.gradient_checkpointing + once)

    def _trained(self, student: str, tokens: float, settings, passes: float) -> Cost:
        name = self.study.students[student].model
        if settings.method == "full":
            # A third backward operation for each parameter, and the weights are kept.
            passes, kept = passes + 1, self.size(name).parameters * 1e9 * STORED_BYTES
        else:
            kept = self.size(name).lora(settings.lora.r) * 1e9 * 4  # saved in float32
        return Cost(self._hours(name, 0, 0, tokens, passes), trained_tokens=tokens, bytes=kept)


def _name(rule: str, wildcards: dict[str, str]) -> str:
    """The student or teacher that a job is about."""
    return wildcards["teacher"] if rule == "teach" else _student(wildcards)


def _student(wildcards: dict[str, str]) -> str:
    return student_of(wildcards.get("checkpoint") or wildcards.get("start") or wildcards["student"])


def _sides(preference: Recipe) -> list[Side]:
    return [side for side in (preference.chosen, preference.rejected) if side is not None]
