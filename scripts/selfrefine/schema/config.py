"""The sections of the configuration: models, students, teachers, evaluation, cluster, design."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from selfrefine.schema.assumptions import Costs
from selfrefine.schema.base import NAME, Strict
from selfrefine.schema.benchmark import Benchmark
from selfrefine.schema.claims import Claims, Statistics
from selfrefine.schema.demonstrating import Demonstrations
from selfrefine.schema.generation import ChatTemplate, Compute, Dtype, Quantisation, StudentEngine, Thinking
from selfrefine.schema.optimisation import InstructTraining, RefineTraining
from selfrefine.schema.preference import Recipe, Schedule
from selfrefine.schema.prompt import AnswerPhrases, Prompt
from selfrefine.schema.rows import Extractor, Kind
from selfrefine.schema.sampling import Sampling
from selfrefine.schema.source import Source
from selfrefine.schema.teacher import Seed, Teacher

# How `study.evaluate` begins the name of one of lm-eval's own tasks.
STOCK = "lm_eval:"
Arm = Literal["baseline", "instruct", "refine", "cross", "refine-only"]


class Weights(Source):
    """A model: where its weights come from, and their size, which only says what jobs take and shapes no result."""

    parameters: float | None = Field(None, gt=0, description="Billions; needed where a cluster's GPU memory is known.")
    active: float | None = Field(None, gt=0, description="Billions that a token passes through; null: all of them.")
    vocabulary: int = Field(150_000, gt=0, description="Entries.")
    kv_share: float = Field(1.0, gt=0, le=1, description="Key-value heads over attention heads.")


class Cluster(Strict):
    """What the nodes offer that jobs are sent to; no stage's settings depend on it, and a profile may set it."""

    gpu_memory: float | None = Field(None, gt=0, description="GB of one GPU, as in its name; null: there are none.")
    gpu_tflops: float | None = Field(None, gt=0, description="Dense bfloat16 peak of one GPU; null: as assumed.")
    gpus_per_node: int = Field(1, gt=0)
    gpus_to_train: int = Field(
        1, gt=0, description="GPUs of one training job; they share out the examples of an update."
    )
    gpu_bfloat16: bool = Field(
        True, description="Whether a GPU computes in bfloat16 (compute capability 8 and above); else float32 is used."
    )
    evaluate_together: bool = Field(
        True,
        description="Whether one job loads a checkpoint once for all its benchmarks; else each is a job of its own.",
    )
    longest_hours: float = Field(24, gt=0, description="The partition's time limit.")
    time_factor: float = Field(3, ge=1, description="A job's time limit over its estimated time.")

    @model_validator(mode="after")
    def _trains_on_one_node(self) -> Self:
        if self.gpu_memory and self.gpus_to_train > self.gpus_per_node:
            raise ValueError(f"gpus_to_train {self.gpus_to_train} is more than gpus_per_node {self.gpus_per_node}")
        return self


class Student(Strict):
    """A student: its weights, how it is spoken to, and what it overrides of the training sections."""

    title: str | None = Field(None, description="Its name in figures, tables and pages; null: its name here.")
    model: str
    family: str = Field(description="Decides which teachers are in-family.")
    teachers: list[str] | None = Field(None, description="Those of the study's teachers that teach it; null: all.")
    system: str | None = Field(None, description="The system message; null leaves it to the model's chat template.")
    chat_template: ChatTemplate | None = Field(
        None,
        description="The text of a Jinja template, or `plain` for models that were never taught a chat format; null: "
        "the model's own.",
    )
    thinking: Thinking = Field("keep", description="What becomes of the thoughts (`<think>…</think>`) in its answers.")
    dtype: Dtype = "bfloat16"
    quantisation: Quantisation = Field("none", description="nf4: its weights are rounded to four bits, as in QLoRA.")
    batch_size: int = Field(32, gt=0, description="Completions drawn at once by engine transformers.")
    instruct: dict[str, Any] = {}
    refine: dict[str, Any] = {}


class Evaluation(Strict):
    """How checkpoints are evaluated."""

    style: Literal["cot", "plain"] = "cot"
    max_tokens: int = Field(256, gt=0)
    samples: int = Field(1, gt=0, description="Answers to each test item; from 2 on they are sampled.")
    temperature: float = Field(0.0, ge=0, description="0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.samples > 1 and not self.temperature:
            raise ValueError(
                f"{self.samples} samples at temperature 0 would be the same; set a temperature, such as 0.7"
            )
        return self


class StockTask(Strict):
    """How one of lm-eval's own tasks is run, and what counts."""

    title: str | None = Field(None, description="Its name in the tables; null: the task's own.")
    metric: str | None = Field(None, description="The metric that says whether an answer is correct; null: the first.")
    filter: str | None = Field(None, description="The filter whose answers count; null: the task's first.")
    shots: int | None = Field(None, ge=0, description="Worked examples in a prompt; null: the task's own number.")
    limit: int | None = Field(None, gt=0, description="Only so many documents; null: all.")
    chat: bool = Field(False, description="Whether prompts go through the model's chat template.")


class StockTasks(Strict):
    """lm-eval's own tasks, which `study.evaluate` names as lm_eval:TASK."""

    include: str | None = Field(None, description="A folder with further tasks, as for `lm_eval --include_path`.")
    tasks: dict[str, StockTask] = Field({}, description="Settings by task, where they are not as usual.")


class Threads(Strict):
    """Processor threads of one job, by what it does."""

    train: int = Field(1, gt=0)
    generate: int = Field(1, gt=0, description="Teachers' answers and sampling.")
    evaluate: int = Field(1, gt=0)


class Vllm(Strict):
    """How engine vllm uses the machine; nothing here is part of any settings."""

    memory: float = Field(
        0.9, gt=0, le=1, description="Share of each GPU's memory (without one, of the machine's) that it takes."
    )
    beside_training: float = Field(
        0.3, gt=0, lt=1, description="The share that it takes beside a training that samples online."
    )
    # Off, since it costs much: vLLM 0.32 sends every linear layer through one Triton kernel, whose tiles are fitted
    # to the shapes of a 1.7B model. With that model an H100 NVL made 5,008 tokens a second, and 12,019 without
    # (reported in vllm-project/vllm#53446); on an A100 the products of decoding took five times as long and more
    # (#49131). Without it, too, a run repeated on the same GPUs schedules alike.
    batch_invariant: bool = Field(
        False, description="Whether no request rounds otherwise for those beside it; needs compute capability 8.0."
    )


class StudyDesign(Strict):
    """What the study compares."""

    name: str = Field("study", pattern=NAME, description="Its results go to the folder of this name below results/.")
    students: list[str] = Field(min_length=1)
    teachers: list[str] = Field(min_length=1)
    tasks: list[str] = Field(min_length=1, description="Benchmarks to train on.")
    evaluate: list[str] = Field(
        min_length=1, description="Benchmarks to evaluate on, and tasks of lm-eval as lm_eval:TASK."
    )
    arms: list[Arm] = Field(["baseline", "instruct", "refine"], min_length=1)
    recipes: list[str] = Field(["cot"], min_length=1)
    shares: list[int] = Field([100], min_length=1, description="Percent of the training data.")
    transfer_shares: list[int] | None = Field(
        None, description="Those of the shares with the arm cross and out-of-domain evaluation; null: all."
    )
    seeds: list[Seed] = Field([0], min_length=1)
    teacher_styles: list[Literal["cot", "plain"]] = Field(
        ["cot"], description="How teachers are asked; plain answers are only counted, in the table of teachers."
    )

    @property
    def benchmarks(self) -> list[str]:
        """The study's own benchmarks that it evaluates on."""
        return [name for name in self.evaluate if not name.startswith(STOCK)]

    def transfers(self, share: int) -> bool:
        """Whether checkpoints of a share are refined and evaluated across benchmarks."""
        return self.transfer_shares is None or share in self.transfer_shares


class Configuration(Strict):
    """The whole configuration, section by section; study/checks.py checks what must hold between sections."""

    study: StudyDesign
    models: dict[str, Weights]
    students: dict[str, Student]
    teachers: dict[str, Teacher]
    benchmarks: dict[str, Benchmark]
    prompts: dict[Kind, Prompt]
    recipes: dict[str, Recipe]
    schedules: dict[str, Schedule] = {}
    demonstrations: Demonstrations = Demonstrations()
    sampling: Sampling = Sampling()
    validation: float = Field(
        0.1, gt=0, lt=1, description="Share of the training items held out to select refined checkpoints."
    )
    instruct: InstructTraining = InstructTraining()
    refine: RefineTraining = RefineTraining()
    evaluation: Evaluation = Evaluation()
    lm_eval: StockTasks = StockTasks()
    engine: StudentEngine = Field(
        "transformers", description="Generates for the students, in sampling and in evaluation."
    )
    vllm: Vllm = Vllm()
    compute: Compute = Field(
        "auto",
        description="What weights are multiplied in, wherever a model computes; auto: their dtype where the machine is "
        "fast in it, else float32.",
    )
    extractor: Extractor = Field(
        "strict", description="Whose verdict on an answer counts; math-verify needs a package."
    )
    answer_phrases: AnswerPhrases = Field(
        ["default"],
        description="Regular expressions of what stands before an answer (extractors strict and unanimous); `default`: the "
        "usual ones.",
    )
    statistics: Statistics = Statistics()
    claims: Claims = Field(
        Claims(), description="Which claims are tested: the paper's, and by name the study's own (config/README.md)."
    )
    threads: Threads = Threads()
    cluster: Cluster | None = Field(None, description="Null: jobs ask for no GPUs.")
    costs: Costs | None = Field(None, description="Null: prices and energy as in config/assumptions.yaml.")
