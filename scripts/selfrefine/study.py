"""The configuration, validated: what may stand in it, what each stage reads of it, and which artifacts the study needs.

Every stage's recipe is cut out here, and nowhere else; `Study.recipe` is the only way from configuration to rules.
"""

import csv
import difflib
import io
import itertools
import json
import re
from pathlib import Path
from typing import Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from selfrefine import benchmarks, outputs, preferences
from selfrefine.cli import describe
from selfrefine.computing import Compute
from selfrefine.engines import Generation
from selfrefine.engines.weights import STUDENT_ENGINES, Answering
from selfrefine.errors import UserError
from selfrefine.files import canonical_json
from selfrefine.models import Quantisation
from selfrefine.prompts import Prompt
from selfrefine.sampling import Sampling
from selfrefine.serving import Server, check_extra
from selfrefine.sources import Source
from selfrefine.teaching import Keeping
from selfrefine.training import InstructRecipe, InstructSettings, RefineSettings

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
TASK_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
ARMS = ("baseline", "instruct", "refine", "cross", "refine-only")
DTYPE = Field("bfloat16", pattern="^(bfloat16|float16|float32)$")


class Strict(BaseModel):
    """Refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Benchmark(benchmarks.Mapping):
    """A benchmark: what it is called, where its files come from, and how records become items in splits."""

    title: str = Field(description="As the tables show it.")
    files: dict[str, Source]
    splits: dict[Literal["train", "test"], benchmarks.Split]

    @model_validator(mode="after")
    def _files_known(self):
        for name, split in self.splits.items():
            if split.file not in self.files:
                raise ValueError(f"splits.{name}.file {split.file!r} is none of its files ({', '.join(self.files)})")
        return self


class Weights(Source):
    """A model: where its weights come from, and their size, which only says what jobs take and shapes no result."""

    parameters: float | None = Field(None, gt=0, description="Billions; needed where a cluster's cards are known.")
    active: float | None = Field(None, gt=0, description="Billions that a token meets; null: all of them.")
    vocabulary: int = Field(150_000, gt=0, description="Entries.")
    kv_share: float = Field(1.0, gt=0, le=1, description="Key-value heads over attention heads.")


class Cluster(Strict):
    """What the nodes offer that jobs are sent to; no recipe depends on it, and a profile may set it."""

    gpu_memory: float | None = Field(None, gt=0, description="GB of one card, as in its name; null: there are none.")
    gpu_tflops: float | None = Field(None, gt=0, description="Dense bfloat16 peak of one card; null: as assumed.")
    gpus_per_node: int = Field(1, gt=0)
    gpus_to_train: int = Field(
        1, gt=0, description="Cards of one training job; they share out the examples of an update."
    )
    gpu_bfloat16: bool = Field(
        True, description="Whether a card computes in bfloat16 (compute capability 8 and above); else float32 is used."
    )
    evaluate_together: bool = Field(
        True,
        description="Whether one job loads a checkpoint once for all its benchmarks; else each is a job of its own.",
    )
    longest_hours: float = Field(24, gt=0, description="The partition's time limit.")
    time_factor: float = Field(3, ge=1, description="A job's time limit over the time that is reckoned for it.")

    @model_validator(mode="after")
    def _trains_on_one_node(self):
        if self.gpu_memory and self.gpus_to_train > self.gpus_per_node:
            raise ValueError(f"gpus_to_train {self.gpus_to_train} is more than gpus_per_node {self.gpus_per_node}")
        return self


class Student(Strict):
    """A student: its weights, how it is spoken to, and what it overrides of the training sections."""

    model: str
    family: str = Field(description="Decides which teachers are in-family.")
    teachers: list[str] | None = Field(None, description="Those of the study's teachers that teach it; null: all.")
    system: str | None = Field(None, description="The system message; null leaves it to the model's chat template.")
    dtype: str = DTYPE
    quantisation: Quantisation = Field("none", description="nf4: its weights are rounded to four bits, as in QLoRA.")
    batch_size: int = Field(32, gt=0, description="Completions drawn at once by engine transformers.")
    instruct: dict = {}
    refine: dict = {}


class Teacher(Strict):
    """A teacher: the engine that answers for it, and how it is spoken to."""

    family: str
    engine: Literal["transformers", "vllm", "openai", "recorded"]
    model: str | None = Field(None, description="Its weights; needed by engines transformers and vllm.")
    recording: str | None = Field(None, description="Its kept completions; needed by engine recorded.")
    served: str | None = Field(None, min_length=1, description="Its name at the server; needed by engine openai.")
    revision: str = Field("", description="Tells apart different weights that are served under one name.")
    extra: dict = Field({}, description="Further fields of each request's body, such as reasoning_effort.")
    server: Server = Server()
    request: dict[Literal["math", "choice"], str] = Field({}, description="An extra last line of the prompt, by kind.")
    system: str | None = None
    generation: Generation = Generation()
    dtype: str = DTYPE
    batch_size: int = Field(16, gt=0, description="Completions drawn at once by engine transformers.")

    _extra_is_free = field_validator("extra")(check_extra)

    @model_validator(mode="after")
    def _can_answer(self):
        needed = {"openai": "served", "recorded": "recording"}.get(self.engine, "model")
        if getattr(self, needed) is None:
            raise ValueError(f"engine {self.engine} needs the key {needed!r}")
        return self


class Evaluation(Strict):
    """How checkpoints are evaluated."""

    style: Literal["cot", "plain"] = "cot"
    max_tokens: int = Field(256, gt=0)


class Statistics(Strict):
    """How uncertainty is stated."""

    level: float = Field(0.95, gt=0.5, lt=1, description="Of the intervals.")
    margin: float = Field(
        5, gt=0, lt=100, description="Accuracy points that 'reaches the teacher' and 'about as good' allow for."
    )


class Threads(Strict):
    """Processor threads of one job, by what it does."""

    train: int = Field(1, gt=0)
    generate: int = Field(1, gt=0, description="Teaching and sampling.")
    evaluate: int = Field(1, gt=0)


class Vllm(Strict):
    """How engine vllm uses the machine; nothing here is part of a recipe."""

    memory: float = Field(
        0.9, gt=0, le=1, description="Share of each GPU's memory (without one, of the machine's) that it takes."
    )
    # Off, since it costs much: vLLM 0.32 sends every linear layer through one Triton kernel, whose tiles are fitted to the
    # shapes of a 1.7B model. With that model an H100 NVL made 5,008 tokens a second, and 12,019 without (reported in
    # vllm-project/vllm#53446); on an A100 the products of decoding took five times as long and more (#49131). Without it,
    # too, a run repeated on the same GPUs schedules alike.
    batch_invariant: bool = Field(
        False, description="Whether no request rounds otherwise for those beside it; needs compute capability 8.0."
    )


class Design(Strict):
    """What the study compares."""

    name: str = Field("study", pattern=NAME, description="Its results go to the folder of this name below results/.")
    students: list[str] = Field(min_length=1)
    teachers: list[str] = Field(min_length=1)
    tasks: list[str] = Field(min_length=1, description="Benchmarks to train on.")
    evaluate: list[str] = Field(min_length=1, description="Benchmarks to evaluate on.")
    arms: list[Literal[ARMS]] = Field(["baseline", "instruct", "refine"], min_length=1)
    recipes: list[str] = Field(["cot"], min_length=1)
    shares: list[int] = Field([100], min_length=1, description="Percent of the training data.")
    transfer_shares: list[int] | None = Field(
        None, description="Those of the shares with the arm cross and out-domain evaluation; null: all."
    )
    seeds: list[int] = Field([0], min_length=1)
    teacher_styles: list[Literal["cot", "plain"]] = Field(
        ["cot"], description="How teachers are asked; plain answers are only counted, in the table of teachers."
    )

    def transfers(self, share: int) -> bool:
        """Whether checkpoints of a share are looked at across benchmarks."""
        return self.transfer_shares is None or share in self.transfer_shares


class Study(Strict):
    """The whole configuration."""

    study: Design
    models: dict[str, Weights]
    students: dict[str, Student]
    teachers: dict[str, Teacher]
    benchmarks: dict[str, Benchmark]
    prompts: dict[Literal["math", "choice"], Prompt]
    recipes: dict[str, preferences.Recipe]
    schedules: dict[str, preferences.Schedule] = {}
    demonstrations: Keeping = Keeping()
    sampling: Sampling = Sampling()
    validation: float = Field(
        0.1, gt=0, lt=1, description="Share of the training items held out to select refined checkpoints."
    )
    instruct: InstructSettings = InstructSettings()
    refine: RefineSettings = RefineSettings()
    evaluation: Evaluation = Evaluation()
    engine: Literal[STUDENT_ENGINES] = Field(
        "transformers", description="Generates for the students, in sampling and in evaluation."
    )
    vllm: Vllm = Vllm()
    compute: Compute = Field(
        "auto",
        description="What weights are multiplied in, wherever a model computes; auto: their dtype where the machine is fast "
        "in it, else float32.",
    )
    extractor: Literal["strict", "legacy"] = "strict"
    statistics: Statistics = Statistics()
    threads: Threads = Threads()
    cluster: Cluster | None = Field(None, description="Null: jobs ask for no cards.")

    # Of a located study, the one as it was given: what is written of it names no place of this machine.
    _given: "Study | None" = PrivateAttr(None)

    @classmethod
    def read(cls, config: dict) -> "Study":
        """Validates a configuration; `UserError` lists each fault as `key: what is wrong`."""
        try:
            study = cls.model_validate(config)
        except ValidationError as error:
            faults = [describe(fault) + _suggest(cls, fault) for fault in error.errors()]
            raise UserError("configuration: " + "; ".join(faults)) from None
        study._check_names()
        for name in study.students:
            for phase in ("instruct", "refine"):
                settings, entry = study.training(name, phase), study.students[name]
                processes = study.cluster.gpus_to_train if study.cluster else 1
                if settings.batch_size % (settings.micro_batch_size * processes):
                    raise UserError(
                        f"configuration: {phase}.micro_batch_size: {settings.micro_batch_size} examples on each of "
                        f"{processes} cards (cluster.gpus_to_train) do not make up batch_size {settings.batch_size} of student "
                        f"{name!r}; set one that divides {settings.batch_size} / {processes}"
                    )
                if settings.method == "full" and (entry.quantisation != "none" or entry.dtype == "float16"):
                    raise UserError(
                        f"configuration: {phase}.method: full trains plain weights in bfloat16 or float32, but student "
                        f"{name!r} has dtype {entry.dtype}, quantisation {entry.quantisation}; set `method: lora` for it"
                    )
        return study

    def located(self, root: Path) -> "Study":
        """The study with its local files where they are: those that are not here, but in the workflow's folder, are there."""

        def found(name: str) -> str:
            return str(root / name) if not Path(name).exists() and (root / name).exists() else name

        def of(source: Source) -> Source:
            if not source.source.startswith("file:"):
                return source
            return source.model_copy(update={"source": f"file:{found(source.source.removeprefix('file:'))}"})

        benchmarks = {
            name: benchmark.model_copy(update={"files": {file: of(each) for file, each in benchmark.files.items()}})
            for name, benchmark in self.benchmarks.items()
        }
        teachers = {
            name: teacher.model_copy(update={"recording": found(teacher.recording)}) if teacher.recording else teacher
            for name, teacher in self.teachers.items()
        }
        models = {name: of(model) for name, model in self.models.items()}
        study = self.model_copy(update={"benchmarks": benchmarks, "teachers": teachers, "models": models})
        study._given = self
        return study

    def _check_names(self) -> None:
        design = self.study
        for section in ("models", "students", "teachers", "benchmarks", "recipes", "schedules"):
            pattern = TASK_NAME if section in ("benchmarks", "recipes", "schedules") else NAME
            for name in getattr(self, section):
                if not re.fullmatch(pattern, name):
                    raise UserError(
                        f"configuration: {section}: {name!r} cannot be a name: it stands in paths; use letters, digits, - and _"
                        + (" and ." if pattern == NAME else "")
                    )
        for key in ("shares", "transfer_shares", "seeds", "arms", "teacher_styles"):
            if len(set(getattr(design, key) or [])) != len(getattr(design, key) or []):
                raise UserError(f"configuration: study.{key}: a value stands there twice")
        known = [
            ("study.students", design.students, self.students),
            ("study.teachers", design.teachers, self.teachers),
            ("study.tasks", design.tasks, self.benchmarks),
            ("study.evaluate", design.evaluate, self.benchmarks),
            ("study.recipes", design.recipes, self.recipes | self.schedules),
            *(
                (f"schedules.{name}.steps", set(schedule.steps), self.recipes)
                for name, schedule in self.schedules.items()
            ),
            *((f"students.{name}.model", [student.model], self.models) for name, student in self.students.items()),
            *(
                (f"teachers.{name}.model", [t.model], self.models)
                for name, t in self.teachers.items()
                if t.model is not None
            ),
        ]
        for key, names, table in known:
            for name in names:
                if name not in table:
                    raise UserError(f"configuration: {key}: {name!r} is not defined{_did_you_mean(name, table)}")
            if len(set(names)) != len(names):
                raise UserError(f"configuration: {key}: a name stands there twice")
        for task, split in [*((t, "train") for t in design.tasks), *((t, "test") for t in design.evaluate)]:
            if split not in self.benchmarks[task].splits:
                raise UserError(
                    f"configuration: benchmarks.{task}.splits: has no {split!r} split, which the study needs"
                )
        for task in {*design.tasks, *design.evaluate}:
            if self.benchmarks[task].kind not in self.prompts:
                raise UserError(
                    f"configuration: prompts: has no entry for kind {self.benchmarks[task].kind!r} (benchmark {task!r})"
                )
        if self.cluster and self.cluster.gpu_memory:
            for model in self.loaded():
                if self.models[model].parameters is None:
                    raise UserError(
                        f"configuration: models.{model}.parameters: is missing; cluster.gpu_memory is set, and how many cards a "
                        "job takes follows from the model's size: give it in billions"
                    )
        if "refine-only" in design.arms:
            for recipe in design.recipes:
                if any(self.recipes[step].needs_teacher for step in self.steps(recipe)):
                    raise UserError(
                        f"configuration: study.arms: refine-only has no teacher, but recipe {recipe!r} draws on one"
                    )
        for recipe in {step for name in design.recipes for step in self.steps(name)}:
            if any(side.style == "rationale" for side in self.recipes[recipe].sides) and not self.sampling.rationales:
                raise UserError(
                    f"configuration: sampling.rationales: is 0, but recipe {recipe!r} draws on rationales; set it to 1 or more"
                )
        for recipe, student in itertools.product(
            sorted({step for name in design.recipes for step in self.steps(name)}), design.students
        ):
            if self.recipes[recipe].objective.loss == "kto" and self.training(student, "refine").micro_batch_size < 2:
                raise UserError(
                    f"configuration: refine.micro_batch_size: is 1 for student {student!r}, but recipe {recipe!r} needs 2 or "
                    "more: loss kto compares the texts of a batch"
                )
        for student in design.students:
            for teacher in self.students[student].teachers or []:
                if teacher not in design.teachers:
                    raise UserError(
                        f"configuration: students.{student}.teachers: {teacher!r} is none of study.teachers"
                        f"{_did_you_mean(teacher, design.teachers)}"
                    )
        for name in sorted(self.recipes.keys() & self.schedules.keys()):
            raise UserError(f"configuration: schedules.{name}: a recipe has that name too; choose another")
        if any(share not in range(1, 101) for share in design.shares):
            raise UserError("configuration: study.shares: each must be a whole percentage from 1 to 100")
        for share in design.transfer_shares or []:
            if share not in design.shares:
                raise UserError(
                    f"configuration: study.transfer_shares: {share} is none of study.shares {design.shares}"
                )
        if "cot" not in design.teacher_styles:
            raise UserError("configuration: study.teacher_styles: must have cot, from which demonstrations are made")

    def training(self, student: str, phase: str) -> InstructSettings | RefineSettings:
        """A student's training settings in phase "instruct" or "refine", its own over the general ones."""
        general, own = getattr(self, phase), getattr(self.students[student], phase)
        merged = general.model_dump() | own
        if isinstance(own.get("lora", {}), dict):
            merged["lora"] = general.lora.model_dump() | own.get("lora", {})
        try:
            return type(general).model_validate(merged)
        except ValidationError as error:
            faults = "; ".join(describe(fault) + _suggest(type(general), fault) for fault in error.errors())
            raise UserError(f"configuration: students.{student}.{phase}: {faults}") from None

    # What each stage reads.

    def settings(self, stage: str, **wildcards: str) -> dict:
        """What a job's stage reads of the configuration, defaults filled in, and nothing else."""
        settings = getattr(self, f"_{stage}")(**wildcards)
        return json.loads(canonical_json(settings.model_dump() if isinstance(settings, BaseModel) else settings))

    def _prepare(self, task: str, split: str) -> benchmarks.Recipe:
        benchmark = self.benchmarks[task]
        mapping = {name: getattr(benchmark, name) for name in benchmarks.Mapping.model_fields}
        return benchmarks.Recipe(**mapping, name=split, split=benchmark.splits[split])

    def _prompt(self, task: str, *styles: str) -> dict:
        """A benchmark's prompt, as far as questions are asked in these styles."""
        return self.prompts[self.benchmarks[task].kind].model_dump(include={"instruction", *styles})

    def _teach(self, teacher: str, task: str, split: str, style: str) -> dict:
        entry = self.teachers[teacher]
        own = {
            "openai": {"served": entry.served, "revision": entry.revision, "extra": entry.extra},
            "transformers": {"dtype": entry.dtype, "batch_size": entry.batch_size},
            "vllm": {"dtype": entry.dtype, "batch_size": None},
            "recorded": {},
        }
        return {
            "engine": entry.engine,
            "prompt": self._prompt(task, style),
            "style": style,
            # A wish for how to reason has no place where no reasoning is asked for.
            "request": entry.request.get(self.benchmarks[task].kind, "") if style == "cot" else "",
            "system": entry.system,
            "generation": entry.generation.model_dump(),
            "extractor": self.extractor,
            **own[entry.engine],
        }

    def _demonstrate(self, teacher: str, task: str) -> Keeping:
        return self.demonstrations

    def _instruct(self, student: str, teacher: str, task: str, share: str, seed: str) -> dict:
        own = self.students[student]
        return {
            "prompt": self._prompt(task, InstructRecipe.model_fields["style"].default),
            **own.model_dump(include={"system", "dtype", "quantisation"}),
            "share": int(share),
            "seed": int(seed),
            "training": self.training(student, "instruct").model_dump(),
        }

    def _sample(self, start: str, task: str, share: str, seed: str) -> dict:
        asked = {"cot"} if self.sampling.cot or self.sampling.rationales else set()
        asked |= {"plain"} if self.sampling.plain else set()
        unread = set() if self.sampling.rationales else {"hint"}
        return {
            **self._answering(self.students[student_of(start)]),
            "prompt": self._prompt(task, *asked),
            "extractor": self.extractor,
            "sampling": self.sampling.model_dump(exclude=unread),
            "share": int(share),
            "seed": int(seed),
        }

    def _pair(self, start: str, task: str, recipe: str, share: str, seed: str) -> preferences.PairRecipe:
        whole = self.recipes[recipe]
        selection = {name: getattr(whole, name) for name in preferences.Selection.model_fields}
        return preferences.PairRecipe(preference=preferences.Selection(**selection), validation=self.validation)

    def _refine(self, start: str, task: str, recipe: str, share: str, seed: str) -> dict:
        student = self.students[student_of(start)]
        return {
            "prompt": self._prompt(task, self.recipes[recipe].prompt),
            **student.model_dump(include={"system", "dtype", "quantisation"}),
            "seed": int(seed),
            "objective": self.recipes[recipe].objective.model_dump(),
            "training": self.training(student_of(start), "refine").model_dump(),
        }

    def _export_task(self, task: str) -> dict:
        return {
            "task": task,
            "prompt": self._prompt(task, self.evaluation.style),
            "style": self.evaluation.style,
            "max_tokens": self.evaluation.max_tokens,
        }

    def _evaluate(self, checkpoint: str, task: str) -> dict:
        return {"task": task, **self._answering(self.students[student_of(checkpoint)])}

    def _answering(self, student: Student) -> dict:
        """How a student answers, wherever it does: within one table all numbers come from one engine."""
        own = {name: getattr(student, name) for name in ("system", "dtype", "quantisation")}
        batch_size = None if self.engine == "vllm" else student.batch_size
        return Answering(engine=self.engine, batch_size=batch_size, **own).model_dump()

    def _tables(self) -> dict:
        return {"level": self.statistics.level, "extractor": self.extractor}

    def _claims(self) -> dict:
        known = {"level": self.statistics.level, "margin": self.statistics.margin}
        return known | {"extractor": self.extractor, "titles": self.titles()}

    def _plot(self, figure: str) -> dict:
        kind, student = outputs.kind_of(figure)
        return {"figure": kind, "student": student, "titles": {} if kind in ("training", "cost") else self.titles()}

    def _summarise(self) -> dict:
        return {"titles": self.titles(), "sources": self.sources()}

    # What the study needs.

    def checkpoints(self) -> list[dict]:
        """Each checkpoint to evaluate, {arm, student, teacher, family, task, refine_task, recipe, share, seed, checkpoint}.

        `family` is "in" or "out": whether the teacher is of the student's family. "" stands where a fact does not apply.
        """
        design = self.study
        rows = []

        def add(arm: str, checkpoint: str, **facts) -> None:
            blank = dict.fromkeys(("teacher", "family", "task", "refine_task", "recipe", "share", "seed"), "")
            if "teacher" in facts:
                alike = self.teachers[facts["teacher"]].family == self.students[facts["student"]].family
                blank["family"] = "in" if alike else "out"
            rows.append({"arm": arm, **blank, **facts, "checkpoint": checkpoint})

        for student in design.students:
            if "baseline" in design.arms:
                add("baseline", base(student), student=student)
            for share, seed in itertools.product(design.shares, design.seeds):
                at = {"student": student, "share": share, "seed": seed}
                for task, recipe in itertools.product(design.tasks, design.recipes):
                    if "refine-only" in design.arms:
                        *_, name = self.chain(base(student), task, recipe, share, seed)
                        add("refine-only", name, refine_task=task, recipe=recipe, **at)
                for teacher, task in itertools.product(self.teachers_of(student), design.tasks):
                    start = instructed(student, teacher, task, share, seed)
                    if "instruct" in design.arms:
                        add("instruct", start, teacher=teacher, task=task, **at)
                    for refine_task, recipe in itertools.product(design.tasks, design.recipes):
                        arm = "refine" if refine_task == task else "cross"
                        if arm in design.arms and (arm == "refine" or design.transfers(share)):
                            *_, name = self.chain(start, refine_task, recipe, share, seed)
                            add(arm, name, teacher=teacher, task=task, refine_task=refine_task, recipe=recipe, **at)
        return rows

    def teachers_of(self, student: str) -> list[str]:
        """The teachers of the study that teach a student."""
        own = self.students[student].teachers
        return [teacher for teacher in self.study.teachers if own is None or teacher in own]

    def steps(self, name: str) -> list[str]:
        """The recipes that a recipe's or a schedule's name stands for, in order."""
        schedule = self.schedules.get(name)
        return schedule.steps * schedule.rounds if schedule else [name]

    def chain(self, start: str, task: str, name: str, share: int, seed: int) -> list[str]:
        """The checkpoints that a recipe or schedule makes one from the other, the last one last."""
        made = []
        for recipe in self.steps(name):
            made.append(refined(made[-1] if made else start, task, recipe, share, seed))
        return made

    def cells(self) -> list[dict]:
        """Each cell of the accuracy table: a checkpoint's facts, and the evaluation task.

        A teacher is a row of arm `teacher`, judged on the same items.
        """
        cells = []
        for row in self.checkpoints():
            for task in self.study.evaluate:
                if (
                    row["share"] == ""
                    or self.study.transfers(row["share"])
                    or task in (row["task"], row["refine_task"])
                ):
                    cells.append({**row, "evaluation": task})
        for teacher, task in itertools.product(self.study.teachers, self.study.evaluate):
            blank = dict.fromkeys(
                ("student", "family", "task", "refine_task", "recipe", "share", "seed", "checkpoint"), ""
            )
            cells.append({"arm": "teacher", **blank, "teacher": teacher, "evaluation": task})
        return cells

    def served(self) -> list[str]:
        """The teachers that a server answers for."""
        return self.teaches_with("openai")

    def teaches_with(self, engine: str) -> list[str]:
        """The teachers that an engine answers for."""
        return [name for name in self.study.teachers if self.teachers[name].engine == engine]

    def asked_here(self) -> list[str]:
        """The teachers that load no weights: a server or a recording answers for them."""
        return [name for name in self.study.teachers if self.teachers[name].engine not in STUDENT_ENGINES]

    def loaded(self) -> list[str]:
        """The models whose weights jobs of the study load."""
        taught = [self.teachers[name] for name in self.study.teachers]
        names = [self.students[name].model for name in self.study.students]
        return sorted({*names, *(teacher.model for teacher in taught if teacher.engine in STUDENT_ENGINES)})

    def sources_csv(self) -> str:
        """What the study uses, from where, under which licence, as CSV."""
        text = io.StringIO()
        writer = csv.DictWriter(text, ("role", "name", "source", "licence", "sha256"), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.sources())
        return text.getvalue()

    def yaml(self) -> str:
        """The configuration, defaults included; neither what only a cluster asks for nor the order of entries shows."""
        if self._given:
            return self._given.yaml()
        ordered = Study.model_validate_json(canonical_json(self.model_dump(mode="json")))
        sizes = Weights.model_fields.keys() - Source.model_fields.keys()
        unseen = {"cluster": True, "models": dict.fromkeys(self.models, sizes)}
        return yaml.safe_dump(ordered.model_dump(mode="json", exclude=unseen), sort_keys=False)

    def figures(self) -> list[str]:
        """The figures that the study's design gives content to."""
        return outputs.figures(self.checkpoints(), self.study.evaluate)

    def layouts(self) -> list[str]:
        """The laid-out tables that the study's design gives content to."""
        return outputs.layouts(self.checkpoints())

    def _used(self) -> list[str]:
        return sorted({*self.study.tasks, *self.study.evaluate})

    def titles(self) -> dict[str, str]:
        """What the tables call each benchmark of the study."""
        return {task: self.benchmarks[task].title for task in self._used()}

    def sources(self) -> list[dict[str, str]]:
        """What the study uses {role, name, source, licence, sha256}: benchmarks, students, teachers with weights or served."""
        if self._given:
            return self._given.sources()
        rows = []
        for task in self._used():
            files = {split.file for split in self.benchmarks[task].splits.values()}
            rows += [("benchmark", task, self.benchmarks[task].files[name]) for name in sorted(files)]
        rows += [("student", name, self.models[self.students[name].model]) for name in self.study.students]
        for name in self.study.teachers:
            if self.teachers[name].model and name not in self.served():
                rows.append(("teacher", name, self.models[self.teachers[name].model]))
        listed = [
            {"role": role, "name": name, "source": s.source, "licence": s.licence, "sha256": s.sha256 or ""}
            for role, name, s in rows
        ]
        blank = {"licence": "", "sha256": ""}
        for name in self.served():
            listed.append({"role": "teacher", "name": name, "source": f"served:{self.teachers[name].served}", **blank})
        return listed


def base(student: str) -> str:
    """The name of a student's base checkpoint."""
    return f"{student}/base"


def instructed(student: str, teacher: str, task: str, share: int, seed: int) -> str:
    """The name of an instructed checkpoint."""
    return f"{student}/instruct/{teacher}/{task}/{share}/{seed}"


def refined(start: str, task: str, recipe: str, share: int, seed: int) -> str:
    """The name of a refined checkpoint: its start's name, and the task and recipe of the refinement."""
    return f"{start}/refine/{task}/{recipe}/{share}/{seed}"


class Refinement(NamedTuple):
    """One refinement, by what its checkpoint's name says."""

    start: str
    task: str
    recipe: str
    share: str
    seed: str


def refinements_of(checkpoint: str) -> list[Refinement]:
    """The refinements that a checkpoint went through, the first one first."""
    origin, *tails = checkpoint.split("/refine/")
    found, start = [], origin
    for tail in tails:
        found.append(Refinement(start, *tail.split("/")))
        start = refined(*found[-1])
    return found


def facts_of(step: Refinement) -> dict[str, str]:
    """What a refinement is of, {student, teacher, task, after, refine_task, recipe, share, seed}; `after`: the steps before."""
    teacher, task = (origin_of(step.start).split("/")[2:4] + ["", ""])[:2]
    return {
        "student": student_of(step.start),
        "teacher": teacher,
        "task": task,
        "after": " ".join(before.recipe for before in refinements_of(step.start)),
        "refine_task": step.task,
        "recipe": step.recipe,
        "share": step.share,
        "seed": step.seed,
    }


def origin_of(checkpoint: str) -> str:
    """The name of the checkpoint that the first refinement of a checkpoint started from."""
    return checkpoint.split("/refine/", 1)[0]


def student_of(checkpoint: str) -> str:
    """The student that a checkpoint's name begins with."""
    return checkpoint.split("/", 1)[0]


def teacher_of(checkpoint: str) -> str | None:
    """The teacher that a checkpoint was instructed by, None for one that was not."""
    parts = checkpoint.split("/")
    return parts[2] if len(parts) > 2 and parts[1] == "instruct" else None


def _did_you_mean(name: str, known) -> str:
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; defined are {', '.join(sorted(map(str, known)))}"


def _suggest(model: type[BaseModel], fault: dict) -> str:
    if fault["type"] != "extra_forbidden":
        return ""
    known = _fields_at(model, fault["loc"][:-1])
    return _did_you_mean(fault["loc"][-1], known) if known else ""


def _fields_at(model: type[BaseModel], path: tuple) -> list[str]:
    """The keys that may stand at a place of the configuration."""
    for part in path:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            inner = [a for a in getattr(model, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)]
            if not inner:
                return []
            model = inner[-1]
            continue
        if part not in model.model_fields:
            return []
        model = model.model_fields[part].annotation
    if not isinstance(model, type):
        model = next(
            (a for a in getattr(model, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)), model
        )
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []
