"""From a path back to the artifact of a study that lies there."""

import itertools
import re
from collections.abc import Iterable, Iterator

from selfrefine.errors import UserError
from selfrefine.schema.config import STOCK
from selfrefine.schema.ways import SHARE
from selfrefine.store.locations import artifact_folder
from selfrefine.study.artifact import Artifact
from selfrefine.study.artifacts import Artifacts
from selfrefine.study.checkpoint_names import base, instructed, refined, teacher_of
from selfrefine.study.choices import choices_of
from selfrefine.study.design import Study
from selfrefine.study.resolve import steps_of

# The last part of a path of what has a share and a seed, and of a refinement's.
SHARED = re.compile(rf"(.+)-({SHARE})-seed([0-9]+)")
ROUND = re.compile(r"(.+)-round([0-9]+)")


def artifact_at(artifacts: Artifacts, stage: str, names: tuple[str, ...], key: str) -> Artifact:
    """The artifact of a path's parts; `UserError` where this configuration has none with these names and this key."""
    if known := next((one for one in artifacts.known(stage, names) if one.key == key), None):
        return known
    keys = set()
    for artifact in _called(artifacts, stage, names):
        if artifact.key == key:
            return artifact
        keys.add(artifact.key)
    place = artifact_folder(stage, names, key)
    if not keys:
        raise UserError(f"{place}: this configuration has no such artifact")
    raise UserError(f"{place}: in this configuration its key is {' or '.join(sorted(keys))}")


def _called(artifacts: Artifacts, stage: str, names: tuple[str, ...]) -> Iterator[Artifact]:
    """The artifacts of a stage with these names; several where a name's hyphens can be read in two ways."""
    study, (*before, last) = artifacts.study, names
    tasks = study.benchmarks
    found: Iterable[Artifact]
    if stage == "fetch":
        pairs = ((task, file) for task, file in _halves(last) if task in tasks and file in tasks[task].files)
        found = (artifacts.raw(*pair) for pair in pairs)
    elif stage == "fetch_model":
        found = (artifacts.model(name) for name in study.models if name == last)
    elif stage == "prepare":
        pairs = ((task, split) for task, split in _halves(last) if task in tasks and split in tasks[task].splits)
        found = (artifacts.items(*pair) for pair in pairs)
    elif stage == "export_task":
        found = (artifacts.lm_eval_task(task) for task in tasks if task == last)
    elif stage == "fetch_task":
        found = (artifacts.stock_task(name) for name in study.stock() if name == f"{STOCK}{last}")
    elif stage == "embed":
        found = (artifacts.embeddings(before[0], task) for task in tasks if before and task == last)
    elif stage == "choose":
        named = itertools.product(tasks, choices_of(study))
        found = (artifacts.chosen(task, one) for task, one in named if f"{task}-{one.name}" == last)
    elif stage in ("teach", "mix", "demonstrate"):
        found = _of_teacher(artifacts, stage, before[0], last)
    elif stage in ("instruct", "refine", "refine_online"):
        found = map(artifacts.checkpoint, _checkpoints_called(study, names))
    else:
        found = _of_checkpoint(artifacts, stage, tuple(before), last)
    return (artifact for artifact in found if (artifact.stage, artifact.names) == (stage, names))


def _of_teacher(artifacts: Artifacts, stage: str, teacher: str, last: str) -> Iterator[Artifact]:
    study = artifacts.study
    choices = choices_of(study)
    for task in study.benchmarks if teacher in study.teachers else ():
        if stage == "demonstrate":
            if task == last:
                yield artifacts.demonstrations(teacher, task)
            yield from (artifacts.demonstrations(teacher, task, one) for one in choices if f"{task}-{one.name}" == last)
            continue
        split, _, style = last.removeprefix(f"{task}-").partition("-")
        if split in study.benchmarks[task].splits and style in ("cot", "plain"):
            yield artifacts.answers(teacher, task, split, style)
        for one in choices:
            if last == f"{task}-train-cot-{one.name}":
                yield artifacts.answers(teacher, task, "train", "cot", one)


def _of_checkpoint(artifacts: Artifacts, stage: str, names: tuple[str, ...], last: str) -> Iterator[Artifact]:
    study = artifacts.study
    for checkpoint in _checkpoints_called(study, names):
        if stage == "evaluate":
            names_of_stock = {name.replace(":", "-"): name for name in study.stock()}
            if last in study.benchmarks or last in names_of_stock:
                yield artifacts.evaluation(checkpoint, names_of_stock.get(last, last))
        elif found := SHARED.fullmatch(last):
            what, share, seed = found.groups()
            if stage == "sample" and what in study.benchmarks:
                yield artifacts.paths(checkpoint, what, share, seed)
            for task, recipe in _halves(what) if stage == "pair" else ():
                if task in study.benchmarks and recipe in study.recipes:
                    yield artifacts.pairs(checkpoint, task, recipe, share, seed)


def _checkpoints_called(study: Study, names: tuple[str, ...]) -> Iterator[str]:
    """The checkpoints that have these names in paths."""
    student, *rest = names
    if student not in study.students:
        return
    if rest == ["base"]:
        yield base(student)
        return
    if not rest or not (found := SHARED.fullmatch(rest[0])):
        return
    origin, share, seed = found.groups()
    starts = [base(student)] if origin == "base" else []
    for teacher, task in _halves(origin):
        if teacher in study.teachers and task in study.benchmarks:
            starts.append(instructed(student, teacher, task, share, int(seed)))
    if len(rest) == 1:
        yield from (start for start in starts if teacher_of(start))
    elif len(rest) == 2 and (step := ROUND.fullmatch(rest[1])):
        for start, (task, recipe) in itertools.product(starts, _halves(step[1])):
            if task in study.benchmarks and recipe in study.recipes:
                yield from _rounds(study, start, task, recipe, int(step[2]), share, int(seed))


def _rounds(study: Study, start: str, task: str, recipe: str, number: int, share: str, seed: int) -> Iterator[str]:
    """The checkpoints that any recipe or schedule of the study has after `number` steps, the last by `recipe`."""
    chains = (steps_of(study, name) for name in study.study.recipes)
    for steps in {tuple(steps[:number]) for steps in chains if len(steps) >= number}:
        if steps[-1] == recipe:
            name = start
            for step in steps:
                name = refined(name, task, step, share, seed)
            yield name


def _halves(joined: str) -> Iterator[tuple[str, str]]:
    """The ways to read a name as two with a hyphen between them."""
    parts = joined.split("-")
    return (("-".join(parts[:i]), "-".join(parts[i:])) for i in range(1, len(parts)))
