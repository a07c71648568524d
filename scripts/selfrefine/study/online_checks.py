"""Checks of recipes that sample online: groups fill updates; what generates can be trained."""

import itertools
from collections.abc import Iterator

from selfrefine.schema.config import Configuration
from selfrefine.schema.generation import Budget
from selfrefine.study.content_checks import refined_with
from selfrefine.study.resolve import training_of

# Schedules of the learning rate that need not know how many updates there will be.
OPEN = ("constant", "constant_with_warmup")


def online_recipes(study: Configuration) -> Iterator[str]:
    """Each student can be refined with the study's recipes that sample online."""
    for recipe, student in itertools.product(refined_with(study), study.study.students):
        if study.recipes[recipe].online:
            yield from _faults(study, recipe, student)


def _faults(study: Configuration, recipe: str, student: str) -> Iterator[str]:
    entry, training = study.students[student], training_of(study, student, "refine", recipe)
    online = study.recipes[recipe].online
    who = f"recipe {recipe!r} and student {student!r}"
    if online and training.batch_size % online.group:
        yield (
            f"refine.batch_size: {training.batch_size} completions of an update are no whole groups of {online.group} "
            f"(recipes.{recipe}.online.group), for {who}; set a multiple"
        )
    if online and online.generation.max_tokens >= training.max_length:
        yield (
            f"refine.max_length: {training.max_length} tokens leave no room for a prompt beside "
            f"recipes.{recipe}.online.generation.max_tokens {online.generation.max_tokens}, for {who}; raise it"
        )
    if training.tokens and training.schedule not in OPEN:
        yield (
            f"refine.schedule: {training.schedule} needs to know how many updates there will be, which a budget "
            f"(refine.tokens) leaves open for {who}; set constant or constant_with_warmup"
        )
    if isinstance(entry.thinking, Budget):
        yield (
            f"students.{student}.thinking.budget: {who} learn from whole completions; set keep or strip, or another "
            "recipe"
        )
    if training.method == "full" and study.cluster and study.cluster.gpus_to_train > 1:
        yield (
            f"cluster.gpus_to_train: {who} train all weights on what they sample, which takes one GPU; set 1, or "
            "`method: lora`"
        )
    if study.engine == "vllm" and entry.quantisation != "none":
        yield (
            f"students.{student}.quantisation: {entry.quantisation} weights cannot be handed to vLLM as they learn "
            f"(recipe {recipe!r}); set none, or `engine: transformers`"
        )
