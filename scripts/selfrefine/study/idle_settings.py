"""Warns of settings that are given and change nothing."""

from collections.abc import Iterator

from selfrefine.answers.extraction import MATH_VERIFY
from selfrefine.schema.config import Configuration
from selfrefine.schema.ways import WAYS
from selfrefine.study.content_checks import refined_with
from selfrefine.study.mixtures import asked_teachers
from selfrefine.study.resolve import training_of

# What is said to a server alone.
SERVED = ("served", "server", "revision", "extra")


def idle_settings(study: Configuration) -> Iterator[str]:
    """A sentence for each setting that the configuration names and nothing reads."""
    for name in asked_teachers(study):
        teacher = study.teachers[name]
        for key in SERVED if teacher.engine != "openai" else ():
            if key in teacher.model_fields_set:
                yield f"teachers.{name}.{key}: changes nothing: engine {teacher.engine} asks no server"
        if teacher.generation.top_p < 1 and teacher.generation.temperature == 0 and teacher.engine != "openai":
            yield f"teachers.{name}.generation.top_p: changes nothing at temperature 0"
    if study.evaluation.top_p < 1 and not study.evaluation.temperature:
        yield "evaluation.top_p: changes nothing at temperature 0; set evaluation.temperature"
    if study.extractor == MATH_VERIFY and all(study.benchmarks[n].kind == "choice" for n in study.study.benchmarks):
        yield f"extractor: {MATH_VERIFY} changes nothing: all benchmarks have options, which strict judges"
    if study.extractor == "legacy" and "answer_phrases" in study.model_fields_set:
        yield "answer_phrases: changes nothing: extractor legacy has its own"
    yield from _of_choosing(study)
    yield from _of_sampling(study)
    yield from _of_training(study)


def _of_choosing(study: Configuration) -> Iterator[str]:
    ways, given = study.demonstrations.select or [], study.demonstrations.model_fields_set
    if ways and all(share == 100 for share in study.study.shares):
        yield "demonstrations.select: changes nothing: at 100 % there is nothing to choose; name smaller study.shares"
    if "prefer" in given and not any(WAYS[way].perplexity for way in ways):
        yield "demonstrations.prefer: changes nothing: no way of demonstrations.select looks at perplexities"
    if "weight" in given and not any(WAYS[way].perplexity and WAYS[way].spread for way in ways):
        yield "demonstrations.weight: changes nothing: no way of demonstrations.select weighs perplexity and diversity"


def _of_sampling(study: Configuration) -> Iterator[str]:
    sides = [side for recipe in refined_with(study) for side in study.recipes[recipe].sides]
    if study.sampling.rationales and refined_with(study) and not any(side.style == "rationale" for side in sides):
        yield "sampling.rationales: are sampled and then used by none of the study's recipes; set it to 0"
    if "hint" in study.sampling.model_fields_set and not study.sampling.rationales:
        yield "sampling.hint: changes nothing while sampling.rationales is 0"


def _of_training(study: Configuration) -> Iterator[str]:
    """Warm-up of a schedule that has none; the adapter's settings where all weights are trained."""
    sections = {"instruct": study.instruct.model_fields_set, "refine": study.refine.model_fields_set}
    for student in study.study.students:
        entry = study.students[student]
        for phase, key, own in (("instruct", "warmup", entry.instruct), ("refine", "warmup_steps", entry.refine)):
            if not (
                refined_with(study) if phase == "refine" else {"instruct", "refine", "cross"} & {*study.study.arms}
            ):
                continue
            training = training_of(study, student, phase)
            for named, why in ((key, "schedule constant has no warm-up"), ("lora", "method full trains all weights")):
                idle = training.schedule == "constant" if named == key else training.method == "full"
                if idle and named in own:
                    yield f"students.{student}.{phase}.{named}: changes nothing: {why}"
                elif idle and named in sections[phase]:
                    yield f"{phase}.{named}: changes nothing for student {student!r}: {why}"
