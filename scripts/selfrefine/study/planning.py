"""What each job of a study asks for: GPUs, memory and time, by its model's size and its work."""

import functools
import sys
from collections.abc import Mapping
from typing import Literal, NamedTuple

from selfrefine.errors import UserError
from selfrefine.schema.assumptions import Assumptions
from selfrefine.study import resources
from selfrefine.study.checkpoint_names import student_of
from selfrefine.study.choices import embeds
from selfrefine.study.content_checks import refined_with
from selfrefine.study.design import Study
from selfrefine.study.mixtures import asked_teachers
from selfrefine.study.resolve import model_of_teacher, shots_shown, training_of
from selfrefine.study.resources import BYTES, Memory, Size
from selfrefine.study.workload import STORED_BYTES, Cost, ItemsOf, UnknownSize, Workload, sides_of

TRAINING = ("instruct", "refine", "refine_online")
# Of a number of an embedding, as items are chosen by it (data/spread.py).
EXACT_BYTES = 8
# Sequences that vLLM should be able to decode at once; it takes more where memory is left.
ROWS = 16


class Needs(NamedTuple):
    """What one job asks a cluster for: GPUs, the host's memory in MB, and minutes; None for the partition's limit."""

    gpu: int
    mem_mb: int
    runtime: int | None


class Loader(NamedTuple):
    """Whose weights a job loads: a student's or a teacher's."""

    name: str
    model: str
    dtype: str
    engine: str
    """What generates with them, where the job does not train."""
    batch_size: int
    max_tokens: int


class Planner:
    """Estimates what the jobs of a study take, on the assumed GPUs or on those of its cluster.

    `items_of(task, split)` names a split's file, whose items are counted if it is there; `sizes` are as for `Workload`.
    `UserError` if one of the study's stages takes more GPUs than a node of the cluster has.
    """

    def __init__(
        self,
        study: Study,
        assumptions: Assumptions,
        items_of: ItemsOf | None = None,
        sizes: Mapping[str, int] | None = None,
    ):
        self.study = study
        self.assumed = assumptions
        if study.cluster and study.cluster.gpu_memory:
            own = {"memory_gb": study.cluster.gpu_memory, "peak_tflops": study.cluster.gpu_tflops}
            known = {name: value for name, value in own.items() if value is not None}
            self.assumed = assumptions.model_copy(update={"gpu": assumptions.gpu.model_copy(update=known)})
        self.work = Workload(study, self.assumed, items_of, sizes)
        # A study has ten thousand jobs, and few of these.
        self._held = functools.cache(self._memory)
        if study.cluster and study.cluster.gpu_memory:
            self._check_that_all_fit(study.cluster.gpus_per_node)

    def cost(self, stage: str, **names: str) -> Cost:
        """The cost of one job, by the stage and the names of its artifact; nothing for stages that need no model."""
        cost, loader = self.work.cost(stage, **names), self._loader(stage, **names)
        if not cost.gpu_hours or loader is None:
            return cost
        gigabytes = self.work.size(loader.model).parameters * STORED_BYTES
        seconds = self.assumed.start_seconds + gigabytes / self.assumed.load_gb_per_second
        return cost._replace(gpu_hours=cost.gpu_hours + self.gpus(stage, **names) * seconds / 3600)

    def needs(self, stage: str, attempt: int, **names: str) -> Needs:
        """What a job asks the study's cluster for at its n-th attempt, more memory and time at each.

        The number of GPUs stays: a training that is divided otherwise rounds otherwise.
        """
        cluster, loader = self.study.cluster, self._loader(stage, **names)
        if cluster is None or loader is None:
            return Needs(0, resources.host_mb(self._read(stage, **names), attempt), None)
        if cluster.gpu_memory is None:
            known = self.study.models[loader.model].parameters
            held = self._held(stage, loader, names.get("recipe")).total if known else 0
            return Needs(0, resources.host_mb(held, attempt), int(cluster.longest_hours * 60))
        try:
            hours = self.cost(stage, **names).gpu_hours
        except UnknownSize:
            hours = cluster.longest_hours
        limit = resources.minutes(hours, cluster.time_factor, attempt, cluster.longest_hours)
        each = resources.GATHERED_BYTES if self._shards(stage, loader) else BYTES[loader.dtype]
        host = resources.host_mb(self.work.size(loader.model).parameters * each, attempt)
        return Needs(self.gpus(stage, **names), host, limit)

    def _read(self, stage: str, **names: str) -> float:
        """GB that a job without a model reads: a choice of items, the embeddings of all."""
        student = names["choice"].split("/")[0] if stage == "choose" else ""
        model = self.study.students[student].model if student else ""
        if not model or self.study.models[model].parameters is None:
            return 0.0
        try:
            items = self.work.items(names["task"], "train")
        except UnknownSize:
            return 0.0
        # As they are stored, and as they are computed with.
        return items * self.work.size(model).width * (BYTES["float32"] + EXACT_BYTES) / resources.GB

    def memory(self, stage: str, **names: str) -> Memory | None:
        """What one job holds on its GPUs; None for stages that load no model."""
        loader = self._loader(stage, **names)
        return self._held(stage, loader, names.get("recipe")) if loader else None

    def gpus(self, stage: str, **names: str) -> int:
        """How many GPUs a job takes; 0 for stages that load no model."""
        loader = self._loader(stage, **names)
        return self._gpus(stage, loader, names.get("recipe")) if loader else 0

    def _gpus(self, stage: str, loader: Loader, recipe: str | None, most: int = sys.maxsize) -> int:
        gpu, memory = self.assumed.gpu, self._held(stage, loader, recipe)
        if stage in TRAINING:
            if self._shards(stage, loader):
                # Until training begins, each GPU holds all of the weights.
                whole = Memory(0.0, self.work.size(loader.model).parameters * BYTES["float32"])
                resources.gpus(whole, gpu.memory_gb, gpu.usable, most)
            resources.gpus(memory, gpu.memory_gb, gpu.usable, self._trainers, key="cluster.gpus_to_train")
            return self._trainers
        return resources.gpus(memory, gpu.memory_gb, gpu.usable, most, evenly=loader.engine == "vllm")

    @property
    def _trainers(self) -> int:
        return self.study.cluster.gpus_to_train if self.study.cluster else 1

    def _shards(self, stage: str, loader: Loader) -> bool:
        """Whether a training shares out its weights: where all of them learn, and there are several GPUs."""
        divided = stage in TRAINING and self._trainers > 1
        return divided and training_of(self.study, loader.name, phase_of(stage)).method == "full"

    def _check_that_all_fit(self, most: int) -> None:
        design = self.study.study
        kinds: list[tuple[str, str, str | None]] = []
        kinds += [("teach", name, None) for name in asked_teachers(self.study) if model_of_teacher(self.study, name)]
        for student in design.students:
            kinds.append(("evaluate", student, None))
            if embeds(self.study):
                kinds.append(("embed", student, None))
            if {"instruct", "refine", "cross"}.intersection(design.arms):
                kinds.append(("instruct", student, None))
            if {"refine", "cross", "refine-only"}.intersection(design.arms):
                kinds.append(("sample", student, None))
                kinds += [(self._refining(recipe), student, recipe) for recipe in refined_with(self.study)]
        for stage, name, recipe in kinds:
            try:
                if loader := self._loader_of(stage, name):
                    self._gpus(stage, loader, recipe, most)
            except UserError as error:
                whose = "teachers" if stage == "teach" else "students"
                raise UserError(
                    f"configuration: {whose}.{name}: rule {stage} does not fit on a node: {error}"
                ) from None

    def _refining(self, recipe: str) -> str:
        return "refine_online" if self.study.recipes[recipe].online else "refine"

    def _memory(self, stage: str, loader: Loader, recipe: str | None) -> Memory:
        size, number = self.work.size(loader.model), BYTES[self._computed_in(loader.dtype)]
        if stage == "refine_online" and recipe:
            return self._online(loader, recipe, size, number)
        if stage in TRAINING:
            return self._training(stage, loader, recipe, size, number)
        if stage == "embed":
            return resources.scoring(size, number, loader.batch_size * self.assumed.tokens.longest_prompt)
        return self._generating(loader, size, number, loader.max_tokens)

    def _online(self, loader: Loader, recipe: str, size: Size, number: float) -> Memory:
        """Training, and beside it the KV cache of engine transformers or a second copy of the weights for vLLM."""
        online = self.study.recipes[recipe].online
        trained = self._training("refine_online", loader, recipe, size, number)
        most = online.generation.max_tokens if online else loader.max_tokens
        sampled = self._generating(loader, size, number, most)
        if loader.engine == "vllm":
            return Memory(trained.divided, trained.each + sampled.total)
        whole = training_of(self.study, loader.name, "refine", recipe).method == "full"
        # A reference of whole weights is a copy of them. Activations are gone while it samples.
        reference = size.parameters * BYTES["float32"] if whole and online and online.kl else 0.0
        return Memory(trained.divided, max(trained.each, sampled.total) + reference)

    def _generating(self, loader: Loader, size: Size, number: float, most: int) -> Memory:
        # vLLM decodes as many sequences at once as the memory that is left allows.
        rows = ROWS if loader.engine == "vllm" else loader.batch_size
        tasks = {*self.study.study.tasks, *self.study.study.benchmarks}
        longest = self.assumed.tokens.longest_prompt * (1 + max(shots_shown(self.study, task) for task in tasks))
        return resources.generating(size, number, rows, longest, most)

    def _training(self, phase: str, loader: Loader, recipe: str | None, size: Size, number: float) -> Memory:
        settings = training_of(self.study, loader.name, phase_of(phase), recipe)
        responses = max(len(sides_of(self.study.recipes[recipe])), 1) if recipe else 1
        tokens = settings.micro_batch_size * responses * settings.max_length
        if settings.method == "full":
            trained, weight = size.parameters, 0.0
        else:
            packed = self.study.students[loader.name].quantisation == "nf4"
            trained, weight = size.lora(settings.lora.r), resources.PACKED_BYTES if packed else number
        lora = settings.method == "lora"
        held = resources.training(size, number, weight, trained, tokens, settings.gradient_checkpointing, lora)
        # Each process holds all of it; further ones share out the examples of an update, and weights that all learn.
        return held if self._shards(phase, loader) else held.whole

    def _computed_in(self, dtype: str) -> str:
        """What weights of a dtype are multiplied in on the nodes; on processors, which differ, the wider."""
        if self.study.compute != "auto":
            return self.study.compute
        cluster = self.study.cluster
        if cluster and cluster.gpu_memory is None:
            return "float32"
        return dtype if not cluster or cluster.gpu_bfloat16 or dtype == "float16" else "float32"

    def _loader(self, stage: str, **names: str) -> Loader | None:
        """Whose weights a job loads; None for a job that loads none."""
        if stage == "teach":
            return self._loader_of(stage, names["teacher"])
        if stage in (*TRAINING, "embed", "sample", "evaluate"):
            return self._loader_of(stage, student_of(names.get("checkpoint") or names.get("start") or names["student"]))
        return None

    def _loader_of(self, stage: str, name: str) -> Loader | None:
        study = self.study
        if stage != "teach":
            own = study.students[name]
            most = study.sampling.generation.max_tokens if stage == "sample" else study.evaluation.max_tokens
            # Hidden states and likelihoods are read off the logits' side of a model, which vLLM does not give.
            engine, most = ("transformers", 0) if stage == "embed" else (study.engine, most)
            return Loader(name, own.model, own.dtype, engine, own.batch_size, most)
        teacher, model = study.teachers[name], model_of_teacher(study, name)
        if model is None:
            return None
        most = teacher.generation.max_tokens
        return Loader(name, model, teacher.dtype, str(teacher.engine), teacher.batch_size, most)


def phase_of(stage: str) -> Literal["instruct", "refine"]:
    """The section of the configuration that has a training stage's hyper-parameters."""
    return "instruct" if stage == "instruct" else "refine"
