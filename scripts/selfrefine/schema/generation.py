"""How a completion is generated, and how a student's weights answer."""

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field

from selfrefine.schema.base import Strict

Dtype = Literal["bfloat16", "float16", "float32"]
Compute = Literal["auto", "float32", "bfloat16", "float16"]
Quantisation = Literal["none", "nf4"]
StudentEngine = Literal["transformers", "vllm"]
STUDENT_ENGINES: tuple[StudentEngine, ...] = get_args(StudentEngine)


def _is_template(text: str) -> str:
    if text != "plain" and "messages" not in text:
        raise ValueError("is neither `plain` nor the text of a Jinja template, which goes through `messages`")
    return text


ChatTemplate = Annotated[str, AfterValidator(_is_template)]


class Budget(Strict):
    """How long a model may think."""

    budget: int = Field(
        gt=0, description="Tokens after which an unfinished thought is closed and the answer asked for."
    )


# What becomes of a completion's thoughts, `<think>…</think>`.
Thinking = Literal["keep", "strip"] | Budget


class Generation(Strict):
    """How a completion is generated."""

    max_tokens: int = Field(256, gt=0, description="A completion is cut here; its finish reason is then `length`.")
    temperature: float | None = Field(
        0.0, ge=0, description="0 is greedy; null, for served teachers alone, leaves it to the server."
    )
    top_p: float = Field(1.0, gt=0, le=1)


class Answering(Strict):
    """How weights answer: the settings that every stage shares in which a student generates."""

    engine: StudentEngine = "transformers"
    system: str | None = None
    chat_template: ChatTemplate | None = None
    thinking: Thinking = "keep"
    dtype: Dtype = "bfloat16"
    quantisation: Quantisation = "none"
    batch_size: int | None = Field(
        32,
        gt=0,
        description="Sequences that engine transformers decodes at once; null with vllm, which decides for itself.",
    )
