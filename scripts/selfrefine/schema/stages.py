"""The settings of each stage: the slice of the configuration that it reads, after defaults."""

from typing import Any, Literal

from pydantic import Field, field_validator

from selfrefine.schema.assumptions import Costs
from selfrefine.schema.base import Strict
from selfrefine.schema.benchmark import Mapping, Split
from selfrefine.schema.claims import Claims
from selfrefine.schema.generation import Answering, ChatTemplate, Dtype, Generation, Quantisation, Thinking
from selfrefine.schema.online import Online
from selfrefine.schema.optimisation import InstructTraining, RefineTraining
from selfrefine.schema.preference import Objective, Selection
from selfrefine.schema.prompt import Phrases, TaskPrompt
from selfrefine.schema.rows import Extractor
from selfrefine.schema.sampling import Sampling
from selfrefine.schema.server import check_extra
from selfrefine.schema.source import Reading
from selfrefine.schema.ways import Preferred, WayName

Figure = Literal[
    "accuracy",
    "in-family",
    "out-family",
    "low-resource",
    "selection",
    "lengths",
    "solving",
    "pass-at-k",
    "yields",
    "cost",
    "training",
    "claims",
    "flips",
]
Layout = Literal[
    "transfer", "teachers", "prompts", "splits", "lengths", "solving", "pass-at-k", "yields", "cost", "chains"
]


class PrepareSettings(Mapping):
    """What the prepare stage reads: the mapping and the split to make."""

    name: Literal["train", "test"]
    split: Split
    reading: Reading | None = Field(None, description="How the raw file is read, if its ending does not say it all.")


class PairSettings(Strict):
    """What the pair stage reads."""

    preference: Selection
    validation: float = Field(
        0.1, gt=0, lt=1, description="Share of the items whose pairs are held out to select the checkpoint."
    )


class SampleSettings(Answering):
    """What the sample stage reads."""

    prompt: TaskPrompt
    extractor: Extractor = "strict"
    sampling: Sampling = Sampling()
    stop: list[str] = Field([], description="Strings at which generation ends.")
    answer_phrases: Phrases = ["default"]
    share: int = Field(100, gt=0, le=100, description="Percent of the training items.")
    seed: int = 0


class FetchSettings(Strict):
    """What a fetched file's content follows from: its sha256 or, without one, its source or the files of a folder."""

    suffix: str
    sha256: str | None
    source: str = ""
    parts: int = 1
    files: list[str] = Field([], description="The names of the files, where the source is a folder on this machine.")


class ExportTaskSettings(Strict):
    """What the export of an lm-eval task reads."""

    task: str
    prompt: TaskPrompt
    style: Literal["cot", "plain"] = Field("cot", description="The prompt under which checkpoints are evaluated.")
    max_tokens: int = Field(256, gt=0)
    samples: int = Field(1, gt=0, description="Answers to each item.")
    temperature: float = Field(0.0, ge=0, description="0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1)
    stop: list[str] = Field([], description="Strings at which generation ends.")
    answer_phrases: Phrases = ["default"]
    extractor: Literal["math-verify"] | None = Field(None, description="A further extractor, which judges answers too.")


class FetchTaskSettings(Strict):
    """What the data of one of lm-eval's own tasks follow from, besides a folder of tasks."""

    task: str
    lm_eval: str = Field("", description="lm-eval's version, which decides what the task is.")


class StockAsked(Strict):
    """How one of lm-eval's own tasks is run, and what counts."""

    metric: str | None = Field(None, description="Null: the task's first.")
    filter: str | None = Field(None, description="Null: the task's first.")
    shots: int | None = Field(None, description="Worked examples; null: the task's own number.")
    limit: int | None = Field(None, description="Only so many documents.")
    chat: bool = Field(False, description="Whether prompts go through the chat template.")


class EvaluateSettings(Answering):
    """What the evaluate stage reads besides the exported task."""

    task: str
    stock: StockAsked | None = Field(None, description="For one of lm-eval's own tasks; null: an exported one.")


class EmbedSettings(Strict):
    """What the embed stage reads."""

    dtype: Dtype = "bfloat16"
    quantisation: Quantisation = "none"
    batch_size: int = Field(32, gt=0, description="Questions read at once.")


class ChooseSettings(Strict):
    """What the choose stage reads."""

    way: WayName
    share: int = Field(gt=0, lt=100, description="Percent of the training items.")
    seed: int = Field(0, description="Of the order in which items come that nothing else tells apart.")
    prefer: Preferred = "low"
    weight: float = Field(0.25, gt=0, description="The power of the perplexity in an item's quality.")


class MixSettings(Strict):
    """What the mix stage reads: which of several teachers answers an item is drawn by its share and the seed."""

    shares: dict[str, float] = Field(description="By teacher; the answers are given in the order of their names.")
    seed: int = 0


class Drawn(Strict):
    """The items that mixtures draw for a teacher."""

    teacher: str
    mixtures: list[MixSettings]


class TeachSettings(Strict):
    """What the teach stage reads."""

    engine: Literal["transformers", "vllm", "openai", "recorded"]
    prompt: TaskPrompt
    style: Literal["cot", "plain"] = "cot"
    request: str = Field("", description="An extra last line of the prompt, such as a request to be brief.")
    system: str | None = None
    thinking: Thinking = "keep"
    generation: Generation = Generation()
    stop: list[str] = Field([], description="Strings at which generation ends.")
    answer_phrases: Phrases = ["default"]
    extractor: Extractor = "strict"
    dtype: Dtype = "bfloat16"
    batch_size: int | None = Field(16, gt=0, description="Sequences decoded at once (engine transformers).")
    served: str = Field("", description="The model's name at the server (engine openai).")
    revision: str = Field("", description="Tells apart different weights served under one name (engine openai).")
    extra: dict[str, Any] = Field({}, description="Further fields of each request's body (engine openai).")
    drawn: Drawn | None = Field(None, description="Null: every item is asked; else those that mixtures draw.")

    _extra_is_free = field_validator("extra")(check_extra)


class DemonstrateSettings(Strict):
    """Which teacher answers become demonstrations."""

    keep_wrong: bool = Field(
        False,
        description="Keep incorrect answers, and those from which none is extracted (the paper does not say).",
    )
    keep_cut: bool = Field(False, description="Keep answers cut at max_tokens: they would teach never to stop.")


class InstructSettings(Strict):
    """What the instruct stage reads."""

    prompt: TaskPrompt
    style: Literal["cot", "plain"] = Field("cot", description="The prompt that the student learns to answer.")
    system: str | None = None
    chat_template: ChatTemplate | None = None
    dtype: Dtype = "bfloat16"
    quantisation: Quantisation = "none"
    share: int = Field(100, gt=0, le=100, description="Percent of the demonstrations.")
    seed: int = 0
    training: InstructTraining = InstructTraining()


class RefineSettings(Strict):
    """What the refine stage reads."""

    prompt: TaskPrompt
    system: str | None = None
    chat_template: ChatTemplate | None = None
    dtype: Dtype = "bfloat16"
    quantisation: Quantisation = "none"
    seed: int = 0
    objective: Objective = Objective()
    training: RefineTraining = RefineTraining()


class RefineOnlineSettings(Answering):
    """What the refine_online stage reads."""

    prompt: TaskPrompt
    style: Literal["cot", "plain"] = Field("cot", description="The prompt that the student answers as it learns.")
    extractor: Extractor = "strict"
    stop: list[str] = Field([], description="Strings at which generation ends.")
    answer_phrases: Phrases = ["default"]
    share: int = Field(100, gt=0, le=100, description="Percent of the training items.")
    seed: int = 0
    online: Online = Online()
    training: RefineTraining = RefineTraining()


class TablesSettings(Strict):
    """What the tables stage reads besides the answers."""

    level: float = Field(description="Of the intervals.")
    extractor: str = Field(description="Whose verdict on an answer counts.")


class Titles(Strict):
    """What readers see instead of the configuration's names."""

    titles: dict[str, str] = Field({}, description="What each benchmark is called.")
    students: dict[str, str] = Field({}, description="What each student is called that has a title.")
    teachers: dict[str, str] = Field({}, description="What each teacher is called that has a title.")


class ClaimsSettings(Titles):
    """What the claims stage reads besides the answers."""

    level: float = Field(gt=0.5, lt=1, description="Of the intervals; 1 - level is the tests' alpha.")
    margin: float = Field(gt=0, lt=100, description="Accuracy points that 'reaches' and 'about as good' allow for.")
    looks: list[int] | Literal["any"] | None = Field(description="Numbers of seeds at which claims are judged.")
    spending: Literal["obrien-fleming", "pocock"] = Field(description="How the level is spent over the looks.")
    extractor: str = Field(description="Whose verdict on an answer counts.")
    count_unrefined: bool = Field(False, description="Whether checkpoints count that had too few pairs to be refined.")
    matched_length: float | None = Field(None, gt=1, description="Up to which ratio two answers are equally long.")
    claims: Claims = Field(Claims(), description="Which claims; unset: the paper's.")


class FlipsSettings(Titles):
    """What the flips stage reads besides the answers and the verdicts on the claims."""

    extractors: list[Extractor] = Field(description="Those that judge the answers: the study's own, and the others.")
    lacking: list[Extractor] = Field([], description="Those that would, but whose package is not installed.")
    style: Literal["cot", "plain"] = Field("cot", description="The prompt under which checkpoints are evaluated.")


class SummariseSettings(Titles):
    """What the summarise stage reads besides the tables and claims."""

    sources: list[dict[str, str]] = Field(description="What the study uses, from where, under which licence.")
    costs: Costs = Field(description="Prices and energy.")


class PageSettings(Titles):
    """What the page stage reads besides the results."""


class PlotSettings(Titles):
    """What the plot stage reads besides the tables."""

    figure: Figure
    student: str = Field("", description="Whose figure it is (low-resource, solving, yields).")


class LayoutSettings(Titles):
    """What the layout stage reads besides the tables."""

    layout: Layout
    student: str = Field("", description="Whose table it is (transfer).")
    rows: list[dict[str, Any]] = Field(
        [], description="What is shown, with the files behind it (teachers, prompts, splits, chains)."
    )
    level: float | None = Field(None, description="Of the intervals (teachers, chains).")
    extractor: str = Field("", description="Whose verdict counts (teachers).")
    costs: Costs | None = Field(None, description="Prices and energy (cost).")
