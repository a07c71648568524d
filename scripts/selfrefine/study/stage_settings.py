"""The settings of each stage: the slice of the configuration that it reads, and nothing else.

Each stage has a function here that cuts its slice out, with defaults filled in. Rules and keys get settings from
nowhere else.
"""

import importlib.metadata
import json
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel

from selfrefine.answers.extraction import EXTRACTORS, MATH_VERIFY, missing_package
from selfrefine.data.shots import resolved
from selfrefine.schema.benchmark import Mapping
from selfrefine.schema.config import STOCK, StockTask, Student
from selfrefine.schema.generation import Answering
from selfrefine.schema.preference import Selection
from selfrefine.schema.stages import DemonstrateSettings, InstructSettings, MixSettings, PrepareSettings
from selfrefine.schema.ways import WAYS, percent_of, way_of
from selfrefine.store.hashing import canonical_json
from selfrefine.study import figures_and_layouts
from selfrefine.study.checkpoint_names import student_of
from selfrefine.study.costs import costs_of
from selfrefine.study.design import Study
from selfrefine.study.mixtures import drawn_for, mixture_of
from selfrefine.study.resolve import extractor_of, phrases_of, prompt_of, request_of, split_of, stock_task, training_of

Slice = BaseModel | dict[str, Any]
STAGES: dict[str, Callable[..., Slice]] = {}


def settings(study: Study, stage: str, **names: str) -> dict[str, Any]:
    """What a stage reads of the configuration for the artifact of these names, as plain JSON values."""
    found = STAGES[stage](study, **names)
    return json.loads(canonical_json(found.model_dump() if isinstance(found, BaseModel) else found))


def stage(cut: Callable[..., Slice]) -> Callable[..., Slice]:
    """Registers a function for the stage of its name."""
    STAGES[cut.__name__] = cut
    return cut


@stage
def prepare(study: Study, task: str, split: Literal["train", "test"]) -> PrepareSettings:
    """A split's size, and how a benchmark's records become items."""
    benchmark = study.benchmarks[task]
    mapping = {name: getattr(benchmark, name) for name in Mapping.model_fields}
    cut = split_of(study, task, split)
    return PrepareSettings(**mapping, name=split, split=cut, reading=benchmark.files[cut.file].reading)


@stage
def teach(study: Study, teacher: str, task: str, split: str, style: str, choice: str = "") -> Slice:
    """How a teacher is asked, and what answers for it."""
    entry, drawn = study.teachers[teacher], drawn_for(study, teacher, split)
    own: dict[str, dict[str, Any]] = {
        "openai": {"served": entry.served, "revision": entry.revision, "extra": entry.extra},
        "transformers": {"dtype": entry.dtype, "batch_size": entry.batch_size},
        "vllm": {"dtype": entry.dtype, "batch_size": None},
        "recorded": {},
    }
    return {
        "engine": entry.engine,
        "prompt": prompt(study, task, style),
        "style": style,
        # A request on how to reason has no place where no reasoning is asked for.
        "request": request_of(study, teacher, task) if style == "cot" else "",
        "system": entry.system,
        "thinking": entry.thinking,
        "generation": entry.generation.model_dump(),
        "stop": study.benchmarks[task].stop,
        "answer_phrases": phrases_of(study, task),
        "extractor": extractor_of(study, task),
        **own[str(entry.engine)],
        **({"drawn": drawn.model_dump()} if drawn else {}),
    }


@stage
def mix(study: Study, teacher: str, task: str, split: str, style: str, choice: str = "") -> MixSettings:
    """How a mixture draws the teacher of each item."""
    return mixture_of(study, teacher)


@stage
def embed(study: Study, student: str, task: str) -> Slice:
    """How a student's weights read the questions."""
    entry = study.students[student]
    return entry.model_dump(include={"dtype", "quantisation", "batch_size"})


@stage
def choose(study: Study, task: str, choice: str) -> Slice:
    """In which way how many items are chosen, and what of the section that way reads."""
    _, share, seed = choice.split("/")
    way = WAYS[way_of(share)]
    read = {"prefer"} if way.perplexity else set()
    read |= {"weight"} if way.perplexity and way.spread else set()
    own = study.demonstrations.model_dump(include=read)
    return {"way": way_of(share), "share": percent_of(share), "seed": int(seed or 0), **own}


@stage
def demonstrate(study: Study, teacher: str, task: str, choice: str = "") -> Slice:
    """Which of a teacher's answers become demonstrations."""
    return study.demonstrations.model_dump(include={*DemonstrateSettings.model_fields})


@stage
def instruct(study: Study, student: str, teacher: str, task: str, share: str, seed: str) -> Slice:
    """The prompt that is learned, and the hyper-parameters of phase 1."""
    return {
        "prompt": prompt(study, task, InstructSettings.model_fields["style"].default),
        **study.students[student].model_dump(include={"system", "chat_template", "dtype", "quantisation"}),
        "share": share_left(share),
        "seed": int(seed),
        "training": training_of(study, student, "instruct").model_dump(),
    }


@stage
def sample(study: Study, start: str, task: str, share: str, seed: str) -> Slice:
    """How a checkpoint is asked, and how often."""
    asked = {"cot"} if study.sampling.cot or study.sampling.rationales else set()
    asked |= {"plain"} if study.sampling.plain else set()
    unread = set() if study.sampling.rationales else {"hint"}
    return {
        **_answering(study, study.students[student_of(start)]),
        "prompt": prompt(study, task, *asked),
        "extractor": extractor_of(study, task),
        "sampling": study.sampling.model_dump(exclude=unread),
        "stop": study.benchmarks[task].stop,
        "answer_phrases": phrases_of(study, task),
        "share": share_left(share),
        "seed": int(seed),
    }


@stage
def pair(study: Study, start: str, task: str, recipe: str, share: str, seed: str) -> Slice:
    """Which sampled paths are chosen and rejected; not what is learned from them."""
    unread = {"length_ratio"} if study.recipes[recipe].length_ratio is None else set()
    selection = study.recipes[recipe].model_dump(include=set(Selection.model_fields) - unread)
    return {"preference": selection, "validation": study.validation}


@stage
def refine(study: Study, start: str, task: str, recipe: str, share: str, seed: str) -> Slice:
    """The objective of a recipe, and the hyper-parameters of phase 2."""
    student = student_of(start)
    return {
        "prompt": prompt(study, task, study.recipes[recipe].prompt),
        **study.students[student].model_dump(include={"system", "chat_template", "dtype", "quantisation"}),
        "seed": int(seed),
        "objective": study.recipes[recipe].objective.model_dump(),
        "training": _refining(study, student, recipe),
    }


@stage
def refine_online(study: Study, start: str, task: str, recipe: str, share: str, seed: str) -> Slice:
    """How a checkpoint is asked and answers as it learns, what is learned, and the hyper-parameters of phase 2."""
    student, whole = student_of(start), study.recipes[recipe]
    if whole.online is None:
        raise ValueError(f"recipe {recipe!r} does not sample online")
    return {
        **_answering(study, study.students[student]),
        "prompt": prompt(study, task, whole.prompt),
        "style": whole.prompt,
        "extractor": extractor_of(study, task),
        "stop": study.benchmarks[task].stop,
        "answer_phrases": phrases_of(study, task),
        "share": share_left(share),
        "seed": int(seed),
        "online": whole.online.model_dump(),
        # Of preference optimisation alone.
        "training": _refining(study, student, recipe, "beta", "evaluate_every"),
    }


@stage
def export_task(study: Study, task: str) -> Slice:
    """How a test split is asked."""
    return {
        "task": task,
        "prompt": prompt(study, task, study.evaluation.style),
        "style": study.evaluation.style,
        **study.evaluation.model_dump(include={"max_tokens", "samples", "temperature", "top_p"}),
        "stop": study.benchmarks[task].stop,
        "answer_phrases": phrases_of(study, task),
        # The other extractors judge every answer.
        **({"extractor": MATH_VERIFY} if extractor_of(study, task) == MATH_VERIFY else {}),
    }


@stage
def fetch_task(study: Study, task: str) -> Slice:
    """Which of lm-eval's own tasks."""
    return {"task": task.removeprefix(STOCK), "lm_eval": importlib.metadata.version("lm-eval")}


@stage
def evaluate(study: Study, checkpoint: str, task: str) -> Slice:
    """How a checkpoint answers."""
    student = study.students[student_of(checkpoint)]
    if not task.startswith(STOCK):
        return {"task": task, **_answering(study, student)}
    answering = _answering(study, student)
    if stock_task(study, task).scores:
        # Likelihoods are read off the logits, which vLLM does not give.
        answering |= {"engine": "transformers", "batch_size": student.batch_size}
    asked = study.lm_eval.tasks.get(task.removeprefix(STOCK), StockTask()).model_dump(exclude={"title"})
    return {"task": task.removeprefix(STOCK), **answering, "stock": asked}


@stage
def tables(study: Study) -> Slice:
    """The level of the intervals, and whose verdicts count."""
    return {"level": study.statistics.level, "extractor": study.extractor}


@stage
def claims(study: Study) -> Slice:
    """The level and margin of the claims' tests, the looks over which the level is spent, and the claims."""
    own = study.claims.model_dump(exclude={name: {"effect"} for name in study.claims.own})
    return {
        **study.statistics.asked(),
        "extractor": study.extractor,
        **study.shown_names(),
        **({"claims": own} if study.claims.own else {}),
    }


@stage
def flips(study: Study) -> Slice:
    """Which extractors judge: math-verify too, where it is installed and there are answers that it can read."""
    read = any(study.benchmarks[task].kind != "choice" for task in study.study.benchmarks)
    further, missing = {study.extractor, MATH_VERIFY} if read else {study.extractor}, missing_package(MATH_VERIFY)
    extractors = [one for one in (*EXTRACTORS, MATH_VERIFY) if one in EXTRACTORS or (one in further and not missing)]
    lacking = [MATH_VERIFY] if read and missing else []
    return {"extractors": extractors, "lacking": lacking, "style": study.evaluation.style, **study.shown_names()}


@stage
def plot(study: Study, figure: str) -> Slice:
    """Which figure, and what its benchmarks and models are called."""
    kind, student = figures_and_layouts.kind_of(figure)
    names = study.shown_names() | ({"titles": {}} if kind == "cost" else {})
    return {"figure": kind, "student": student, **names}


@stage
def page(study: Study) -> Slice:
    """What the page calls each benchmark and model."""
    return study.shown_names()


@stage
def summarise(study: Study) -> Slice:
    """What benchmarks and models are called, and what the study is made of."""
    return {**study.shown_names(), "sources": study.sources(), "costs": costs_of(study).model_dump()}


def share_left(share: str) -> int:
    """The percentage that a stage takes of what it reads: all, where the items of the share were chosen before."""
    return 100 if way_of(share) else percent_of(share)


def prompt(study: Study, task: str, *styles: str) -> dict[str, Any]:
    """A benchmark's prompt, as far as questions are asked in these styles."""
    found, benchmark = prompt_of(study, task).model_dump(include={"instruction", *styles}), study.benchmarks[task]
    if benchmark.shots is None:
        return found
    return found | {"shots": resolved(benchmark.shots, benchmark.kind, f"benchmarks.{task}.shots").model_dump()}


def _refining(study: Study, student: str, recipe: str, *unread: str) -> dict[str, Any]:
    """The hyper-parameters of a refinement, with a budget of tokens or, as before there were any, with epochs."""
    training = training_of(study, student, "refine", recipe)
    return training.model_dump(exclude={*unread, "epochs" if training.tokens else "tokens"})


def _answering(study: Study, student: Student) -> dict[str, Any]:
    """How a student answers, wherever it does: within one table all numbers come from one engine."""
    own = {name: getattr(student, name) for name in ("system", "chat_template", "thinking", "dtype", "quantisation")}
    batch_size = None if study.engine == "vllm" else student.batch_size
    return Answering(engine=study.engine, batch_size=batch_size, **own).model_dump()
