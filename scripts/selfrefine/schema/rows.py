"""Rows of the JSON Lines files that stages hand to each other, as typed dictionaries.

They are plain dictionaries when the program runs, so reading and writing a file costs nothing more; a type checker
knows their keys. Input from outside is checked where it is read (data/items.py, store/files.py).
"""

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict

Kind = Literal["math", "choice", "text"]
Extractor = Literal["strict", "unanimous", "legacy", "math-verify"]
FinishReason = Literal["stop", "length"]
# Of the extractor math-verify, in the rows of studies that name it: its verdict, and what it read where `extracted` is
# what `strict` did.
Verified = TypedDict(
    "Verified",
    {"math-verify": NotRequired[float], "math-verify_extracted": NotRequired[str | None]},
)


class Message(TypedDict):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


class Item(TypedDict):
    """One question of a benchmark (items.jsonl)."""

    id: str
    kind: Kind
    question: str
    choices: list[str]
    """The options in order; empty for `math` and `text`."""
    answer: str
    """A label "A", "B", …, a number in canonical form, or a text as the benchmark has it."""
    solution: NotRequired[str]
    """How the answer is reached, where the benchmark's `fields.solution` says."""


class ReadQuestion(TypedDict):
    """What a student makes of an item's question, beside its embedding (perplexities.jsonl)."""

    item: str
    tokens: int
    nll: float
    """Of its tokens' negative log-likelihoods, the mean."""
    perplexity: float


class Document(Item):
    """An item with its prompt, as an exported lm-eval task has it (docs.jsonl)."""

    prompt: str
    phrases: NotRequired[list[str]]
    """What stands before an answer, where it is not as usual."""
    extractor: NotRequired[Literal["math-verify"]]
    """A further extractor, whose verdict is wanted too."""


class StockDocument(TypedDict):
    """A document of one of lm-eval's own tasks with its prompt, as a checkpoint was asked (docs.jsonl)."""

    id: str
    question: str
    choices: list[str]
    """The options in order; empty where an answer is generated."""
    answer: str
    """The labels of the correct options; else the target's text."""
    prompt: str
    """With its worked examples and, where the task is asked through it, the chat template."""


class Judged(Verified):
    """The verdict on an answer."""

    extracted: str | None
    """What was extracted from it, by the extractor that the configuration names; a text in canonical form."""
    correct: bool
    """That extractor's verdict."""
    strict: bool
    unanimous: bool
    legacy: bool
    """Each extractor's verdict."""
    chain: bool
    """Whether it reasons before it answers."""


class SampledPath(Judged):
    """A student's path for a training item (paths.jsonl)."""

    id: str
    """`{item}-{style}-{sample}`."""
    item: str
    style: str
    """`cot`, `plain` or `rationale`."""
    sample: int
    seed: int | None
    """None where decoding was greedy."""
    text: str
    finish_reason: FinishReason
    tokens: int
    """With the stop token."""
    prompt_tokens: int


class TeacherAnswer(SampledPath):
    """A teacher's answer to an item (answers.jsonl)."""

    key: str
    """The request's, by which a recording is searched."""
    teacher: NotRequired[str]
    """Of a mixture, the teacher whose answer it is."""


class Demonstration(TypedDict):
    """A teacher's answer that a student learns from (demonstrations.jsonl)."""

    id: str
    item: str
    text: str
    correct: bool
    finish_reason: FinishReason
    tokens: int
    teacher: NotRequired[str]
    """Of a mixture's, the teacher whose answer it is."""


class Response(TypedDict):
    """One side of a pair."""

    id: str
    text: str
    source: str
    """`student cot`, `student plain`, `student rationale` or `teacher`."""
    finished: bool
    """False for a response that was cut at max_tokens."""
    correct: bool


class Pair(TypedDict):
    """A chosen and a rejected response to one item (pairs.jsonl)."""

    id: str
    item: str
    split: Literal["train", "validation"]
    prompt: Literal["cot", "plain"]
    """The style of the prompt that the student is trained on."""
    chosen: Response | None
    """None for a response without a counterpart, where a recipe's responses are unpaired."""
    rejected: Response | None


class EvaluatedAnswer(Verified):
    """A judged answer to an item of a test split (samples.jsonl)."""

    id: str
    """The item's; `{item}-{sample}` where an item has several answers."""
    item: NotRequired[str]
    """Where an item has several answers; likewise the next two."""
    sample: NotRequired[int]
    legacy_extracted: NotRequired[str | None]
    doc_id: int
    """The item's position in the exported task's docs.jsonl."""
    target: str
    text: str
    extracted: str | None
    """By the strict extractor; of one of lm-eval's own tasks, what its filter gave, or the chosen option's place."""
    strict: float
    """1 or 0, as lm-eval's metrics have it; likewise the next four."""
    unanimous: float
    legacy: float
    committed: float
    """Whether the strict extractor found an answer."""
    chain: float
    finish_reason: FinishReason
    tokens: int
    prompt_tokens: int


class RecordedCompletion(TypedDict):
    """A kept completion in a recording (all lines but the first)."""

    key: str
    """Stands for what was asked."""
    id: str
    text: str
    finish_reason: FinishReason
    tokens: int
    prompt_tokens: int


def item_of(answer: Mapping[str, Any]) -> str:
    """The item that an answer to a test split is to, a student's or a teacher's."""
    return str(answer["item"] if "item" in answer else answer["id"])


def judged_correct(answer: Mapping[str, Any], extractor: str) -> bool:
    """Whether an answer is correct by an extractor."""
    return bool(answer[verdict_key(answer, extractor)])


def verdict_key(answer: Mapping[str, Any], extractor: str) -> str:
    """The key of an extractor's verdict.

    math-verify judges neither options nor documents of lm-eval's own tasks: there `strict`'s verdict stands.
    """
    return "strict" if extractor == "math-verify" and extractor not in answer else extractor


def extracted_of(answer: Mapping[str, Any], extractor: str) -> str | None:
    """What was extracted from an answer, by math-verify where that is the extractor."""
    own = "math-verify_extracted"
    found: str | None = answer[own if extractor == "math-verify" and own in answer else "extracted"]
    return found
