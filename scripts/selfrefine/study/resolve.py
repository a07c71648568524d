"""Resolves hyperparameters, schedules, splits and the models that are loaded."""

from pathlib import Path
from typing import Any, Literal, TypeVar, cast, overload

from pydantic import ValidationError

from selfrefine.answers.extraction import MATH_VERIFY
from selfrefine.data import stock_tasks
from selfrefine.errors import UserError
from selfrefine.schema.base import describe, suggestion
from selfrefine.schema.benchmark import Split
from selfrefine.schema.config import STOCK, Configuration
from selfrefine.schema.generation import STUDENT_ENGINES
from selfrefine.schema.optimisation import InstructTraining, RefineTraining
from selfrefine.schema.prompt import Prompt
from selfrefine.schema.rows import Extractor

# Worked examples of a file whose number is not configured, where only the work is estimated.
USUAL_SHOTS = 8

# The arms that refine.
REFINING = ("refine", "cross", "refine-only")
Training = TypeVar("Training", InstructTraining, RefineTraining)


@overload
def training_of(study: Configuration, student: str, phase: Literal["instruct"]) -> InstructTraining: ...
@overload
def training_of(
    study: Configuration, student: str, phase: Literal["refine"], recipe: str | None = None
) -> RefineTraining: ...
@overload
def training_of(
    study: Configuration, student: str, phase: str, recipe: str | None = None
) -> InstructTraining | RefineTraining: ...
def training_of(
    study: Configuration, student: str, phase: str, recipe: str | None = None
) -> InstructTraining | RefineTraining:
    """The hyperparameters of a phase, "instruct" or "refine".

    The student's own take the place of the section's, and the recipe's that of both. `UserError` for
    invalid ones of the student's or the recipe's own.
    """
    if phase == "instruct":
        return _over(study.instruct, study.students[student].instruct, f"students.{student}.instruct")
    own = _over(study.refine, study.students[student].refine, f"students.{student}.refine")
    return _over(own, study.recipes[recipe].refine, f"recipes.{recipe}.refine") if recipe else own


def _over(general: Training, own: dict[str, Any], where: str) -> Training:
    """Settings with others over them."""
    if not own:
        return general
    merged = general.model_dump() | own
    if isinstance(own.get("lora", {}), dict):
        merged["lora"] = general.lora.model_dump() | own.get("lora", {})
    try:
        return type(general).model_validate(merged)
    except ValidationError as error:
        faults = "; ".join(describe(dict(fault)) + suggestion(type(general), dict(fault)) for fault in error.errors())
        raise UserError(f"configuration: {where}: {faults}") from None


def steps_of(study: Configuration, name: str) -> list[str]:
    """The recipes that a recipe's or a schedule's name stands for, in order."""
    schedule = study.schedules.get(name)
    return schedule.steps * schedule.rounds if schedule else [name]


def arms_of(study: Configuration, name: str) -> list[str] | None:
    """The arms that a recipe's or a schedule's own entry limits it to; None where it names none."""
    arms = (study.schedules.get(name) or study.recipes[name]).arms
    return None if arms is None else list(arms)


def needs_teacher(study: Configuration, name: str) -> bool:
    """Whether a recipe, or a step of a schedule, draws on demonstrations."""
    return any(study.recipes[step].needs_teacher for step in steps_of(study, name))


def recipes_in(study: Configuration, arm: str) -> list[str]:
    """The study's recipes and schedules that an arm refines with: those that can apply in it, unless they say which."""

    def applies(name: str) -> bool:
        own = arms_of(study, name)
        return arm in own if own is not None else arm != "refine-only" or not needs_teacher(study, name)

    return [name for name in study.study.recipes if applies(name)]


def split_of(study: Configuration, task: str, name: str) -> Split:
    """A split of a benchmark, by its name "train" or "test"."""
    return study.benchmarks[task].splits[cast(Literal["train", "test"], name)]


def prompt_of(study: Configuration, task: str) -> Prompt:
    """A benchmark's prompt: its kind's, with what is its own over it."""
    benchmark = study.benchmarks[task]
    general = study.prompts.get(benchmark.kind)
    own = benchmark.prompt.model_dump(exclude_none=True)
    return Prompt.model_validate((general.model_dump() if general else {}) | own)


def stock_task(study: Configuration, name: str) -> stock_tasks.StockTask:
    """One of lm-eval's own tasks, as `study.evaluate` names it."""
    include = study.lm_eval.include
    return stock_tasks.find_task(name.removeprefix(STOCK), Path(include) if include else None)


def phrases_of(study: Configuration, task: str) -> list[str]:
    """What stands before the answers to a benchmark."""
    own = study.benchmarks[task].answer_phrases
    return study.answer_phrases if own is None else own


def extractor_of(study: Configuration, task: str) -> Extractor:
    """Whose verdict on the answers to a benchmark counts: math-verify judges no options, `strict` does."""
    has_options = study.benchmarks[task].kind == "choice"
    return "strict" if has_options and study.extractor == MATH_VERIFY else study.extractor


def shots_shown(study: Configuration, task: str) -> int:
    """How many worked examples a benchmark's prompts show; of a file that is not counted, as many as usual."""
    shots = study.benchmarks[task].shots
    if shots is None:
        return 0
    return shots.number or len(shots.examples) or USUAL_SHOTS


def request_of(study: Configuration, teacher: str, task: str) -> str:
    """The extra last line of a teacher's prompt for a benchmark."""
    benchmark = study.benchmarks[task]
    if benchmark.request is not None:
        return benchmark.request
    return study.teachers[teacher].request.get(benchmark.kind, "")


def model_of_teacher(study: Configuration, teacher: str) -> str | None:
    """The model whose weights a teacher loads; None where a server or a recording answers for it."""
    entry = study.teachers[teacher]
    return entry.model if entry.engine in STUDENT_ENGINES else None


def loaded_models(study: Configuration) -> list[str]:
    """The models whose weights jobs of the study load."""
    named = (part for name in study.study.teachers for part in study.teachers[name].mixture or (name,))
    taught = (model_of_teacher(study, teacher) for teacher in named)
    return sorted({*(study.students[name].model for name in study.study.students), *filter(None, taught)})
