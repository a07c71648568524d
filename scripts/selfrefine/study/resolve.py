"""Resolves hyperparameters, schedules, splits and the models that are loaded."""

from typing import Literal, cast, overload

from pydantic import ValidationError

from selfrefine.errors import UserError
from selfrefine.schema.base import describe, suggestion
from selfrefine.schema.benchmark import Split
from selfrefine.schema.config import Configuration
from selfrefine.schema.generation import STUDENT_ENGINES
from selfrefine.schema.optimisation import InstructTraining, RefineTraining


@overload
def training_of(study: Configuration, student: str, phase: Literal["instruct"]) -> InstructTraining: ...
@overload
def training_of(study: Configuration, student: str, phase: Literal["refine"]) -> RefineTraining: ...
@overload
def training_of(study: Configuration, student: str, phase: str) -> InstructTraining | RefineTraining: ...
def training_of(study: Configuration, student: str, phase: str) -> InstructTraining | RefineTraining:
    """A student's hyperparameters in phase "instruct" or "refine"; `UserError` for invalid ones of its own."""
    general = study.instruct if phase == "instruct" else study.refine
    own = study.students[student].instruct if phase == "instruct" else study.students[student].refine
    merged = general.model_dump() | own
    if isinstance(own.get("lora", {}), dict):
        merged["lora"] = general.lora.model_dump() | own.get("lora", {})
    try:
        return type(general).model_validate(merged)
    except ValidationError as error:
        faults = "; ".join(describe(dict(fault)) + suggestion(type(general), dict(fault)) for fault in error.errors())
        raise UserError(f"configuration: students.{student}.{phase}: {faults}") from None


def steps_of(study: Configuration, name: str) -> list[str]:
    """The recipes that a recipe's or a schedule's name stands for, in order."""
    schedule = study.schedules.get(name)
    return schedule.steps * schedule.rounds if schedule else [name]


def split_of(study: Configuration, task: str, name: str) -> Split:
    """A split of a benchmark, by its name "train" or "test"."""
    return study.benchmarks[task].splits[cast(Literal["train", "test"], name)]


def model_of_teacher(study: Configuration, teacher: str) -> str | None:
    """The model whose weights a teacher loads; None where a server or a recording answers for it."""
    entry = study.teachers[teacher]
    return entry.model if entry.engine in STUDENT_ENGINES else None


def loaded_models(study: Configuration) -> list[str]:
    """The models whose weights jobs of the study load."""
    taught = (model_of_teacher(study, teacher) for teacher in study.study.teachers)
    return sorted({*(study.students[name].model for name in study.study.students), *filter(None, taught)})
