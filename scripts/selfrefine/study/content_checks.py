"""Checks that every stage finds something to work on: sampled answers of a style, items of a share."""

from collections.abc import Iterator

from selfrefine.schema.config import Configuration
from selfrefine.schema.generation import Budget
from selfrefine.study.resolve import REFINING, recipes_in, steps_of

# By what a side of a pair takes, settings: one of them must be above 0.
SAMPLED = {"cot": ("cot",), "plain": ("plain",), "rationale": ("rationales",), "any": ("cot", "plain")}


def refined_with(study: Configuration) -> list[str]:
    """The recipes that some arm of the study refines with."""
    named = {name for arm in REFINING if arm in study.study.arms for name in recipes_in(study, arm)}
    return sorted({step for name in named for step in steps_of(study, name)})


def sampled_answers(study: Configuration) -> Iterator[str]:
    """Recipes that draw on sampled answers of a style find some."""
    for recipe in refined_with(study):
        for side in study.recipes[recipe].sides:
            needed = SAMPLED[side.style]
            if side.source != "student" or any(getattr(study.sampling, key) for key in needed):
                continue
            keys, what = " and ".join(needed), "answers" if side.style == "any" else f"{side.style} answers"
            what = "rationales" if side.style == "rationale" else what
            yield (
                f"sampling.{keys}: {'is' if len(needed) == 1 else 'are'} 0, but recipe {recipe!r} draws on {what}; "
                "set it to 1 or more"
            )


def thinking_budgets(study: Configuration) -> Iterator[str]:
    """Students whose thoughts have a budget have tokens left for their answers."""
    limits = {"sampling.generation.max_tokens": study.sampling.generation.max_tokens} if refined_with(study) else {}
    limits["evaluation.max_tokens"] = study.evaluation.max_tokens
    for name in study.study.students:
        thinking = study.students[name].thinking
        budget = thinking.budget if isinstance(thinking, Budget) else 0
        for key, most in limits.items():
            if budget >= most:
                yield (
                    f"students.{name}.thinking.budget: {budget} tokens of {key} ({most}) leave none for the "
                    "answer; lower the one or raise the other"
                )


def shares_of_items(study: Configuration) -> Iterator[str]:
    """No share of a training split of known size has too few items to train on, or to hold a pair out."""
    refines = bool(refined_with(study))
    trains = refines or "instruct" in study.study.arms
    for task in study.study.tasks if trains else ():
        size = study.benchmarks[task].splits["train"].size
        for share in study.study.shares if size else ():
            # As `subset` counts them.
            items = round((size or 0) * share / 100)
            if items < 1 + refines:
                least = next(n for n in range(1, 101) if round((size or 0) * n / 100) > refines or n == 100)
                yield (
                    f"study.shares: {share} % of the {size} training items of benchmark {task!r} leaves {items}, and "
                    f"{'a refinement learns from one and holds one out' if refines else 'training needs one'}; "
                    f"set at least {least} %, or a larger benchmarks.{task}.splits.train.size"
                )
