"""The work of a study's jobs: items, tokens, disk, and hours on the assumed GPU.

Arithmetic of a transformer: two floating-point operations per parameter and token forward, and two more backward
where the weights are frozen, as under LoRA (Kaplan et al. 2020, arXiv 2001.08361, section 2.1); recomputed
activations add a forward pass.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, cast

from selfrefine.errors import UserError
from selfrefine.schema.assumptions import Assumptions, Split
from selfrefine.schema.config import STOCK, StockTask
from selfrefine.schema.optimisation import InstructTraining, RefineTraining
from selfrefine.schema.preference import Recipe, Side
from selfrefine.schema.ways import percent_of
from selfrefine.study.checkpoint_names import student_of, teacher_of
from selfrefine.study.design import Study
from selfrefine.study.mixtures import drawn_for
from selfrefine.study.resolve import model_of_teacher, shots_shown, split_of, training_of
from selfrefine.study.resources import BYTES, Size

# Of a parameter, as weights lie on the disk, and as an adapter is saved.
STORED_BYTES = BYTES["bfloat16"]
ADAPTER_BYTES = BYTES["float32"]


# Documents of a task of lm-eval: most have between 500 and 15,000.
STOCK_ITEMS = 3000


class Cost(NamedTuple):
    """What jobs take: hours, tokens that models read as prompts, generate or are trained on, and bytes on disk."""

    gpu_hours: float = 0.0
    prompt_tokens: float = 0.0
    written_tokens: float = 0.0
    trained_tokens: float = 0.0
    bytes: float = 0.0

    def plus(self, other: "Cost") -> "Cost":
        """The sum, part by part."""
        return Cost(*(mine + its for mine, its in zip(self, other, strict=True)))


class UnknownSize(UserError):
    """How many items a job has is not known before its benchmark is prepared."""


# The file that a split's items are in once they are made.
ItemsOf = Callable[[str, str], Path]


class Workload:
    """The work of each job of a study, without the time in which it starts and loads weights.

    `items_of(task, split)` names a split's file, whose items are counted if it is there. `sizes` are those of test splits
    in a design that is only considered.
    """

    def __init__(
        self,
        study: Study,
        assumed: Assumptions,
        items_of: ItemsOf | None = None,
        sizes: Mapping[str, int] | None = None,
    ):
        self.study = study
        self.assumed = assumed
        self.items_of = items_of
        self.sizes = sizes or {}
        # A study has ten thousand jobs, and few splits.
        self.items = functools.cache(self._items)
        self._by_stage: dict[str, Callable[..., Cost]] = {
            "fetch_model": self._fetch_model,
            "embed": self._embed,
            "teach": self._teach,
            "sample": self._sample,
            "evaluate": self._evaluate,
            "instruct": self._instruct,
            "refine": self._refine,
            "refine_online": self._refine_online,
        }

    def cost(self, stage: str, **names: str) -> Cost:
        """The cost of one job, by the stage and the names of its artifact; nothing for stages that need no model."""
        estimate = self._by_stage.get(stage)
        return estimate(**names) if estimate else Cost()

    def size(self, name: str) -> Size:
        """A model's size as configured; `UserError` if it is not."""
        model = self.study.models[name]
        if model.parameters is None:
            raise UserError(f"configuration: models.{name}.parameters: is missing; give the model's size in billions")
        return Size(model.parameters, model.active or model.parameters, model.vocabulary, model.kv_share)

    def _items(self, task: str, split: str) -> int:
        """The items of a split: counted where it is made already, as configured, or assumed."""
        if split == "test" and task in self.sizes:
            return self.sizes[task]
        path = self.items_of(task, split) if self.items_of else None
        if path and path.exists():
            with open(path, "rb") as file:
                return sum(1 for _ in file)
        size = split_of(self.study, task, split).size or self.assumed.items.get(task, {}).get(cast(Split, split))
        if size is None:
            raise UnknownSize(
                f"assumptions: items.{task}.{split} is missing: the split takes all that its file has; "
                "give a number in a file named with --assume"
            )
        return size

    def _tokens(self, task: str, part: Literal["prompt", "cot", "plain"]) -> float:
        of_kind = {"prompt": self.assumed.tokens.prompt, "cot": self.assumed.tokens.cot}
        # Of a task of lm-eval, nothing is known: it counts as a benchmark of options.
        kind = "choice" if task.startswith(STOCK) else self.study.benchmarks[task].kind
        return of_kind.get(part, self.assumed.tokens.plain)[kind]

    def _prompt(self, task: str) -> float:
        """Tokens of a prompt, its worked examples included."""
        examples = 0 if task.startswith(STOCK) else shots_shown(self.study, task)
        return self._tokens(task, "prompt") * (1 + examples) + self._tokens(task, "cot") * examples

    def _answer(self, task: str, style: Literal["cot", "plain"], teacher: str | None) -> float:
        """Tokens of an answer that is learned from: a teacher's or, if None, the student's own."""
        if teacher is None:
            return min(self._tokens(task, style), self.study.sampling.generation.max_tokens)
        shares = self.study.teachers[teacher].mixture or {teacher: 1.0}
        most = {part: self.study.teachers[part].generation.max_tokens for part in shares}
        return sum(share * min(self._tokens(task, style), most[part]) for part, share in shares.items())

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

    # Generation.

    def _generated(
        self,
        model: str | None,
        task: str,
        asked: Mapping[Literal["cot", "plain"], float],
        most: int,
        each: Mapping[Literal["cot", "plain"], int] = {},
    ) -> Cost:
        """The cost of completions of `most` tokens at most, by style; on a server of others where there is no model.

        `each`: how many answers a prompt gets, by style; an engine of ours reads it once.
        """
        length = self._prompt(task)
        written = sum(number * min(self._tokens(task, style), most) for style, number in asked.items())
        read = sum(number / each.get(style, 1) for style, number in asked.items()) * length
        hours = self._hours(model, read, written, 0) if model else 0.0
        return Cost(hours, sum(asked.values()) * length, written, 0.0, written * self.assumed.bytes_per_token)

    def _fetch_model(self, model: str) -> Cost:
        return Cost(bytes=self.size(model).parameters * 1e9 * STORED_BYTES)

    def _embed(self, student: str, task: str) -> Cost:
        read = self.items(task, "train") * self._tokens(task, "prompt")
        size = self.size(self.study.students[student].model)
        kept = self.items(task, "train") * size.width * BYTES["float32"]
        return Cost(self._hours(self.study.students[student].model, read, 0, 0), read, bytes=kept)

    def _teach(
        self, teacher: str, task: str, split: str, style: Literal["cot", "plain"], choice: str = "/100/"
    ) -> Cost:
        entry = self.study.teachers[teacher]
        if entry.engine == "recorded":
            return Cost()
        model = model_of_teacher(self.study, teacher)
        drawn, asked = drawn_for(self.study, teacher, split), float(self.items(task, split))
        asked *= percent_of(choice.split("/")[1]) / 100
        if drawn:
            # Draws of one seed overlap as far as they can; of several, this is the least.
            asked *= max(mixture.shares[teacher] for mixture in drawn.mixtures)
        return self._generated(model, task, {style: asked}, entry.generation.max_tokens)

    def _sample(self, start: str, task: str, share: str, seed: str) -> Cost:
        items = self.items(task, "train") * percent_of(share) / 100
        sampling = self.study.sampling
        each: dict[Literal["cot", "plain"], int] = {"cot": sampling.cot, "plain": sampling.plain}
        each = {style: number for style, number in each.items() if number}
        asked = {style: items * number for style, number in each.items()}
        model = self.study.students[student_of(start)].model
        return self._generated(model, task, asked, sampling.generation.max_tokens, each)

    def _evaluate(self, checkpoint: str, task: str) -> Cost:
        model = self.study.students[student_of(checkpoint)].model
        evaluation = self.study.evaluation
        if task.startswith(STOCK):
            of_task = self.study.lm_eval.tasks.get(task.removeprefix(STOCK), StockTask())
            return self._generated(model, task, {"cot": of_task.limit or STOCK_ITEMS}, evaluation.max_tokens)
        each: dict[Literal["cot", "plain"], int] = {evaluation.style: evaluation.samples}
        asked = {evaluation.style: self.items(task, "test") * evaluation.samples}
        return self._generated(model, task, asked, evaluation.max_tokens, each)

    # Training.

    def _instruct(self, student: str, teacher: str, task: str, share: str, seed: str) -> Cost:
        settings = training_of(self.study, student, "instruct")
        examples = self.items(task, "train") * percent_of(share) / 100 * self.assumed.yields.demonstrations
        length = self._prompt(task) + self._answer(task, "cot", teacher)
        return self._trained(
            student, examples * settings.epochs * length, settings, 2 + settings.gradient_checkpointing
        )

    def _refine(self, start: str, task: str, recipe: str, share: str, seed: str) -> Cost:
        student, preference = student_of(start), self.study.recipes[recipe]
        settings = training_of(self.study, student, "refine", recipe)
        pairs = self.items(task, "train") * percent_of(share) / 100 * self.assumed.yields.pairs * preference.per_item
        sides = sides_of(preference)
        length = 0.0
        for side in sides:
            teacher = teacher_of(start) if side.source == "teacher" else None
            answer = self._answer(task, "plain" if side.style == "plain" else "cot", teacher)
            length += self._prompt(task) + answer
        seen = pairs * settings.epochs
        if settings.tokens:
            sampled = self._sample(start, task, share, seed).written_tokens
            seen = max(settings.tokens - sampled, 0) / length
        seen = min(seen, settings.max_steps * settings.batch_size)
        # The reference's likelihoods are taken once, in a forward pass before training.
        once = 1 / settings.epochs if preference.objective.reference == "start" and len(sides) == 2 else 0
        return self._trained(student, seen * length, settings, 2 + settings.gradient_checkpointing + once)

    def _refine_online(self, start: str, task: str, recipe: str, share: str, seed: str) -> Cost:
        student, online = student_of(start), self.study.recipes[recipe].online
        settings = training_of(self.study, student, "refine", recipe)
        if online is None:
            return Cost()
        style = self.study.recipes[recipe].prompt
        most = online.generation.max_tokens
        written = min(self._tokens(task, style), most)
        # Of a completion, once sampled, and in each of the updates that learn from it.
        each = written + online.iterations * (self._prompt(task) + written)
        completions = self.items(task, "train") * percent_of(share) / 100 * settings.epochs * online.group
        completions = settings.tokens / each if settings.tokens else completions
        completions = min(completions, settings.max_steps * settings.batch_size) / online.iterations
        asked: dict[Literal["cot", "plain"], float] = {style: completions}
        sampled = self._generated(self.study.students[student].model, task, asked, most)
        tokens = completions * online.iterations * (self._prompt(task) + written)
        # Each update has a forward pass of the reference, too.
        passes = 2 + settings.gradient_checkpointing + (1 / online.iterations if online.kl else 0)
        return sampled._replace(bytes=0).plus(self._trained(student, tokens, settings, passes))

    def _trained(self, student: str, tokens: float, settings: InstructTraining | RefineTraining, passes: float) -> Cost:
        name = self.study.students[student].model
        if settings.method == "full":
            # A third backward operation for each parameter, and the weights are kept.
            passes, kept = passes + 1, self.size(name).parameters * 1e9 * STORED_BYTES
        else:
            kept = self.size(name).lora(settings.lora.r) * 1e9 * ADAPTER_BYTES
        return Cost(self._hours(name, 0, 0, tokens, passes), trained_tokens=tokens, bytes=kept)


def sides_of(preference: Recipe) -> list[Side]:
    """The sides of a pair that a recipe trains on."""
    return [side for side in (preference.chosen, preference.rejected) if side is not None]
