"""What must hold between the sections of a configuration, as a list of checks.

Each check yields what is wrong. It may rely on those before it: names are known before anything is looked up by them.
"""

import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping

from selfrefine.answers.extraction import missing_package
from selfrefine.errors import UserError
from selfrefine.schema.base import NAME, did_you_mean
from selfrefine.schema.config import STOCK, Configuration
from selfrefine.study.content_checks import refined_with, sampled_answers, shares_of_items, thinking_budgets
from selfrefine.study.mixtures import mixtures
from selfrefine.study.name_checks import names, titles
from selfrefine.study.online_checks import online_recipes
from selfrefine.study.resolve import (
    REFINING,
    arms_of,
    loaded_models,
    needs_teacher,
    recipes_in,
    training_of,
)


def values_once(study: Configuration) -> Iterator[str]:
    """No list has a value twice."""
    for key in ("shares", "transfer_shares", "seeds", "arms", "teacher_styles"):
        values = getattr(study.study, key) or []
        if len(set(values)) != len(values):
            yield f"study.{key}: a value stands there twice"
    ways = study.demonstrations.select or []
    if len(set(ways)) != len(ways):
        yield "demonstrations.select: a way of choosing stands there twice"


def references(study: Configuration) -> Iterator[str]:
    """What a section names is defined in another, and is named once."""
    design = study.study
    known: list[tuple[str, Collection[str], Mapping[str, object]]] = [
        ("study.students", design.students, study.students),
        ("study.teachers", design.teachers, study.teachers),
        ("study.tasks", design.tasks, study.benchmarks),
        ("study.evaluate", design.benchmarks, study.benchmarks),
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


def stock_tasks(study: Configuration) -> Iterator[str]:
    """Tasks of lm-eval are named once, by names that can stand in paths, and no benchmark is taken for one."""
    named = [name.removeprefix(STOCK) for name in study.study.evaluate if name.startswith(STOCK)]
    if len(set(named)) != len(named):
        yield "study.evaluate: a task of lm-eval stands there twice"
    for name in named:
        if not re.fullmatch(NAME, name):
            yield f"study.evaluate: {STOCK}{name} is no name of a task of lm-eval"
    for name in study.lm_eval.tasks:
        if name not in named:
            yield f"lm_eval.tasks.{name}: is not evaluated; name it in study.evaluate as {STOCK}{name}"
    for name in study.benchmarks:
        if name.startswith(STOCK.replace(":", "-")):
            yield f"benchmarks.{name}: such names stand for tasks of lm-eval; choose another"


def extractor(study: Configuration) -> Iterator[str]:
    """The package that the extractor computes with is there."""
    if missing := missing_package(study.extractor):
        yield missing


def splits(study: Configuration) -> Iterator[str]:
    """Tasks have a training split, evaluations a test split."""
    design = study.study
    for task, split in [*((t, "train") for t in design.tasks), *((t, "test") for t in design.benchmarks)]:
        if split not in study.benchmarks[task].splits:
            yield f"benchmarks.{task}.splits: has no {split!r} split, which the study needs"


def prompts(study: Configuration) -> Iterator[str]:
    """Each benchmark's kind has a prompt."""
    for task in dict.fromkeys([*study.study.tasks, *study.study.benchmarks]):
        benchmark = study.benchmarks[task]
        if benchmark.kind not in study.prompts and benchmark.prompt.instruction is None:
            yield f"prompts: has no entry for kind {benchmark.kind!r} (benchmark {task!r})"


def shots(study: Configuration) -> Iterator[str]:
    """Where prompts show items of the training split, there is one that has so many."""
    for task in dict.fromkeys([*study.study.tasks, *study.study.benchmarks]):
        asked, splits = study.benchmarks[task].shots, study.benchmarks[task].splits
        if asked is None or not asked.of_training_split:
            continue
        if "train" not in splits:
            yield f"benchmarks.{task}.shots: has no training split to take them from; name a `file` of examples"
        elif splits["train"].size is not None and asked.number is not None and splits["train"].size <= asked.number:
            yield (
                f"benchmarks.{task}.shots: {asked.number} of {splits['train'].size} training items leave none for the "
                "place of the one that is asked; lower it"
            )


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


def recipes_of_arms(study: Configuration) -> Iterator[str]:
    """Each arm that refines has a recipe, each recipe an arm, and none of refine-only draws on a teacher."""
    design = study.study
    refining = [arm for arm in REFINING if arm in design.arms]
    for name in design.recipes:
        section = "schedules" if name in study.schedules else "recipes"
        own = arms_of(study, name)
        if own is not None and "refine-only" in own and needs_teacher(study, name):
            yield f"{section}.{name}.arms: refine-only has no teacher, but {name!r} draws on one; leave it out there"
        if own is not None and refining and not set(own).intersection(refining):
            yield f"{section}.{name}.arms: none of them is among study.arms, so that {name!r} would not be used"
    for arm in refining:
        if not recipes_in(study, arm):
            which = ", ".join(map(repr, design.recipes))
            why = f"it has no teacher, and draws on none; study.recipes has {which}"
            yield f"study.arms: {arm} has no recipe: " + (
                why if arm == "refine-only" else f"the `arms` of {which} leave it out"
            )


def kto_batches(study: Configuration) -> Iterator[str]:
    """Loss kto has responses to compare."""
    for recipe, student in itertools.product(refined_with(study), study.study.students):
        if study.recipes[recipe].objective.loss != "kto":
            continue
        if training_of(study, student, "refine", recipe).micro_batch_size < 2:
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


def _trainings(study: Configuration) -> Iterator[tuple[str, str, str | None]]:
    """(student, phase, recipe) of every training that the sections describe."""
    for student in study.students:
        yield student, "instruct", None
        yield student, "refine", None
        yield from ((student, "refine", recipe) for recipe, each in study.recipes.items() if each.refine)


def batches(study: Configuration) -> Iterator[str]:
    """The examples of an update can be shared out among the GPUs of a training job."""
    processes = study.cluster.gpus_to_train if study.cluster else 1
    for name, phase, recipe in _trainings(study):
        training = training_of(study, name, phase, recipe)
        if training.batch_size % (training.micro_batch_size * processes):
            yield (
                f"{phase}.micro_batch_size: {training.micro_batch_size} examples on each of {processes} GPUs "
                f"(cluster.gpus_to_train) do not make up batch_size {training.batch_size} of student {name!r}; set one "
                f"that divides {training.batch_size} / {processes}"
            )


def full_training(study: Configuration) -> Iterator[str]:
    """All weights are trained only where they are neither packed nor float16."""
    for name, phase, recipe in _trainings(study):
        student = study.students[name]
        plain = student.quantisation == "none" and student.dtype != "float16"
        if training_of(study, name, phase, recipe).method == "full" and not plain:
            yield (
                f"{phase}.method: full trains plain weights in bfloat16 or float32, but student {name!r} has dtype "
                f"{student.dtype}, quantisation {student.quantisation}; set `method: lora` for it"
            )


CHECKS: tuple[Callable[[Configuration], Iterator[str]], ...] = (
    names,
    values_once,
    references,
    mixtures,
    titles,
    stock_tasks,
    extractor,
    splits,
    prompts,
    shots,
    model_sizes,
    recipes_of_arms,
    sampled_answers,
    thinking_budgets,
    kto_batches,
    online_recipes,
    teachers_of_students,
    schedules,
    shares,
    shares_of_items,
    teacher_styles,
    batches,
    full_training,
)


def check(study: Configuration) -> None:
    """Runs all checks; `UserError` with every fault of the first check that finds any, each as `key: what is wrong`."""
    for one in CHECKS:
        if faults := list(dict.fromkeys(one(study))):
            raise UserError("configuration: " + "; ".join(faults))
