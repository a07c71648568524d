"""What must hold between the sections of a configuration, as a list of checks.

Each check yields what is wrong. It may rely on those before it: names are known before anything is looked up by them.
"""

import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping

from selfrefine.errors import UserError
from selfrefine.schema.base import NAME, TASK_NAME, did_you_mean
from selfrefine.schema.config import Configuration
from selfrefine.study.resolve import loaded_models, steps_of, training_of


def names(study: Configuration) -> Iterator[str]:
    """Names can be parts of paths."""
    for section in ("models", "students", "teachers", "benchmarks", "recipes", "schedules"):
        pattern = TASK_NAME if section in ("benchmarks", "recipes", "schedules") else NAME
        for name in getattr(study, section):
            if not re.fullmatch(pattern, name):
                allowed = "letters, digits, - and _" + (" and ." if pattern == NAME else "")
                yield f"{section}: {name!r} cannot be a name: it stands in paths; use {allowed}"


def values_once(study: Configuration) -> Iterator[str]:
    """No list has a value twice."""
    for key in ("shares", "transfer_shares", "seeds", "arms", "teacher_styles"):
        values = getattr(study.study, key) or []
        if len(set(values)) != len(values):
            yield f"study.{key}: a value stands there twice"


def references(study: Configuration) -> Iterator[str]:
    """What a section names is defined in another, and is named once."""
    design = study.study
    known: list[tuple[str, Collection[str], Mapping[str, object]]] = [
        ("study.students", design.students, study.students),
        ("study.teachers", design.teachers, study.teachers),
        ("study.tasks", design.tasks, study.benchmarks),
        ("study.evaluate", design.evaluate, study.benchmarks),
        ("study.recipes", design.recipes, {**study.recipes, **study.schedules}),
        *((f"schedules.{name}.steps", set(each.steps), study.recipes) for name, each in study.schedules.items()),
        *((f"students.{name}.model", [each.model], study.models) for name, each in study.students.items()),
        *(
            (f"teachers.{name}.model", [each.model], study.models)
            for name, each in study.teachers.items()
            if each.model
        ),
    ]
    for key, named, table in known:
        yield from (f"{key}: {name!r} is not defined{did_you_mean(name, table)}" for name in named if name not in table)
        if len(set(named)) != len(named):
            yield f"{key}: a name stands there twice"


def splits(study: Configuration) -> Iterator[str]:
    """Tasks have a training split, evaluations a test split."""
    design = study.study
    for task, split in [*((t, "train") for t in design.tasks), *((t, "test") for t in design.evaluate)]:
        if split not in study.benchmarks[task].splits:
            yield f"benchmarks.{task}.splits: has no {split!r} split, which the study needs"


def prompts(study: Configuration) -> Iterator[str]:
    """Each benchmark's kind has a prompt."""
    for task in dict.fromkeys([*study.study.tasks, *study.study.evaluate]):
        kind = study.benchmarks[task].kind
        if kind not in study.prompts:
            yield f"prompts: has no entry for kind {kind!r} (benchmark {task!r})"


def model_sizes(study: Configuration) -> Iterator[str]:
    """Where GPUs are asked for, the sizes of the models are known."""
    if study.cluster is None or study.cluster.gpu_memory is None:
        return
    for model in loaded_models(study):
        if study.models[model].parameters is None:
            yield (
                f"models.{model}.parameters: is missing; cluster.gpu_memory is set, and how many GPUs a job takes "
                "follows from the model's size: give it in billions"
            )


def recipes_without_teacher(study: Configuration) -> Iterator[str]:
    """No recipe of the arm refine-only draws on a teacher, since it has none."""
    if "refine-only" not in study.study.arms:
        return
    for recipe in study.study.recipes:
        if any(study.recipes[step].needs_teacher for step in steps_of(study, recipe)):
            yield f"study.arms: refine-only has no teacher, but recipe {recipe!r} draws on one"


def _steps(study: Configuration) -> list[str]:
    return sorted({step for name in study.study.recipes for step in steps_of(study, name)})


def rationales(study: Configuration) -> Iterator[str]:
    """Recipes that draw on rationales find some: they are sampled."""
    for recipe in _steps(study):
        if any(side.style == "rationale" for side in study.recipes[recipe].sides) and not study.sampling.rationales:
            yield f"sampling.rationales: is 0, but recipe {recipe!r} draws on rationales; set it to 1 or more"


def kto_batches(study: Configuration) -> Iterator[str]:
    """Loss kto has responses to compare."""
    for recipe, student in itertools.product(_steps(study), study.study.students):
        if study.recipes[recipe].objective.loss != "kto":
            continue
        if training_of(study, student, "refine").micro_batch_size < 2:
            yield (
                f"refine.micro_batch_size: is 1 for student {student!r}, but recipe {recipe!r} needs 2 or more: loss "
                "kto compares the responses of a batch"
            )


def teachers_of_students(study: Configuration) -> Iterator[str]:
    """A student's own teachers are among the study's."""
    for student, teacher in ((s, t) for s in study.study.students for t in study.students[s].teachers or []):
        if teacher not in study.study.teachers:
            close = did_you_mean(teacher, study.study.teachers)
            yield f"students.{student}.teachers: {teacher!r} is none of study.teachers{close}"


def schedules(study: Configuration) -> Iterator[str]:
    """No schedule has a recipe's name."""
    for name in sorted(study.recipes.keys() & study.schedules.keys()):
        yield f"schedules.{name}: a recipe has that name too; choose another"


def shares(study: Configuration) -> Iterator[str]:
    """Shares are percentages, and those with transfer are among them."""
    design = study.study
    if any(share not in range(1, 101) for share in design.shares):
        yield "study.shares: each must be a whole percentage from 1 to 100"
    for share in design.transfer_shares or []:
        if share not in design.shares:
            yield f"study.transfer_shares: {share} is none of study.shares {design.shares}"


def teacher_styles(study: Configuration) -> Iterator[str]:
    """Teachers are asked for chains of thought: demonstrations are made of these."""
    if "cot" not in study.study.teacher_styles:
        yield "study.teacher_styles: must have cot, from which demonstrations are made"


def batches(study: Configuration) -> Iterator[str]:
    """The examples of an update can be shared out among the GPUs of a training job."""
    processes = study.cluster.gpus_to_train if study.cluster else 1
    for name, phase in itertools.product(study.students, ("instruct", "refine")):
        training = training_of(study, name, phase)
        if training.batch_size % (training.micro_batch_size * processes):
            yield (
                f"{phase}.micro_batch_size: {training.micro_batch_size} examples on each of {processes} GPUs "
                f"(cluster.gpus_to_train) do not make up batch_size {training.batch_size} of student {name!r}; set one "
                f"that divides {training.batch_size} / {processes}"
            )


def full_training(study: Configuration) -> Iterator[str]:
    """All weights are trained only where they are neither packed nor float16."""
    for name, phase in itertools.product(study.students, ("instruct", "refine")):
        student = study.students[name]
        plain = student.quantisation == "none" and student.dtype != "float16"
        if training_of(study, name, phase).method == "full" and not plain:
            yield (
                f"{phase}.method: full trains plain weights in bfloat16 or float32, but student {name!r} has dtype "
                f"{student.dtype}, quantisation {student.quantisation}; set `method: lora` for it"
            )


CHECKS: tuple[Callable[[Configuration], Iterator[str]], ...] = (
    names,
    values_once,
    references,
    splits,
    prompts,
    model_sizes,
    recipes_without_teacher,
    rationales,
    kto_batches,
    teachers_of_students,
    schedules,
    shares,
    teacher_styles,
    batches,
    full_training,
)


def check(study: Configuration) -> None:
    """Runs all checks; `UserError` with every fault of the first check that finds any, each as `key: what is wrong`."""
    for one in CHECKS:
        if faults := list(dict.fromkeys(one(study))):
            raise UserError("configuration: " + "; ".join(faults))
