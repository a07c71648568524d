"""Warns of a warm-up that is longer than its training: the learning rate asked for is never reached."""

import math
from collections.abc import Iterator

from selfrefine.study.content_checks import refined_with
from selfrefine.study.design import Study
from selfrefine.study.resolve import training_of
from selfrefine.study.workload import ItemsOf


def long_warm_ups(study: Study, items_of: ItemsOf) -> Iterator[str]:
    """A sentence for each student and recipe whose refinements end before their warm-up does.

    `items_of` as for `Workload`. Pairs are not known before they are made; their number is bounded by the items.
    """
    for student in study.study.students:
        for recipe in refined_with(study):
            settings = training_of(study, student, "refine", recipe)
            if settings.schedule == "constant":
                continue
            found = [(updates_at_most(study, student, recipe, *of, items_of), *of) for of in _splits(study)]
            short = [one for one in found if one[0] is not None and one[0] <= settings.warmup_steps]
            if short and settings.warmup_steps:
                most, task, share = max(short, key=lambda one: one[0] or 0)
                some = "" if len(short) == len(found) else f" in {len(short)} of {len(found)} trainings"
                yield (
                    f"refine.warmup_steps: {settings.warmup_steps} updates of warm-up{some}, but student {student!r} "
                    f"with recipe {recipe!r} makes at most {most} updates ({share} % of {task!r}): the learning rate "
                    f"never reaches {settings.learning_rate:g}; lower warmup_steps, or raise epochs or the items"
                )


def _splits(study: Study) -> list[tuple[str, int]]:
    return [(task, share) for task in study.study.tasks for share in study.study.shares]


def updates_at_most(study: Study, student: str, recipe: str, task: str, share: int, items_of: ItemsOf) -> int | None:
    """The updates that a refinement makes at most; None where nothing bounds it yet."""
    items = _items_at_most(study, task, items_of)
    if items is None:
        return None
    settings, preference = training_of(study, student, "refine", recipe), study.recipes[recipe]
    if settings.tokens:
        return None
    answered = round(items * share / 100)
    if preference.online:
        prompts = settings.batch_size // preference.online.group
        return min(math.ceil(math.ceil(answered / prompts) * settings.epochs), settings.max_steps)
    # Of two items or more, one at least is held out; which share is, is taken of the items with pairs.
    learned = answered - max(round(answered * study.validation), min(1, answered - 1)) if answered else 0
    examples = learned * preference.per_item * (2 if preference.unpaired else 1)
    updates = math.ceil(math.ceil(examples / settings.batch_size) * settings.epochs)
    return min(updates, settings.max_steps)


def _items_at_most(study: Study, task: str, items_of: ItemsOf) -> int | None:
    path = items_of(task, "train")
    if path.exists():
        with open(path, "rb") as file:
            return sum(1 for _ in file)
    return study.benchmarks[task].splits["train"].size
