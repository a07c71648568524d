"""Teachers: what is asked of them, and which of their answers become demonstrations."""

import collections
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from selfrefine.engines import Generation
from selfrefine.prompts import Prompt
from selfrefine.serving import check_extra


class Teaching(BaseModel):
    """What the teach stage reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["transformers", "vllm", "openai", "recorded"]
    prompt: Prompt
    style: Literal["cot", "plain"] = "cot"
    request: str = Field("", description="An extra last line of the prompt, such as a wish for brevity.")
    system: str | None = None
    generation: Generation = Generation()
    extractor: Literal["strict", "legacy"] = "strict"
    dtype: str = Field("bfloat16", pattern="^(bfloat16|float16|float32)$")
    batch_size: int | None = Field(16, gt=0, description="Completions drawn at once (engine transformers).")
    served: str = Field("", description="The model's name at the server (engine openai).")
    revision: str = Field("", description="Tells apart different weights served under one name (engine openai).")
    extra: dict = Field({}, description="Further fields of each request's body (engine openai).")

    _extra_is_free = field_validator("extra")(check_extra)


class Keeping(BaseModel):
    """Which teacher answers become demonstrations."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep_wrong: bool = Field(
        False, description="Keep answers that miss the target (not known for the paper; default: drop)."
    )
    keep_cut: bool = Field(False, description="Keep answers cut at max_tokens: they would teach never to stop.")


def demonstrations(rows: list[dict], keeping: Keeping) -> tuple[list[dict], dict]:
    """The teacher's answers to learn from, {id, item, text, correct, finish_reason, tokens}, and how many were kept and dropped, by reason.

    Reasons, the first that holds: `cut`, `uncommitted` (no answer found), `wrong`.
    """
    kept, dropped = [], collections.Counter()
    for row in rows:
        if row["finish_reason"] == "length" and not keeping.keep_cut:
            dropped["cut"] += 1
        elif row["extracted"] is None and not keeping.keep_wrong:
            dropped["uncommitted"] += 1
        elif not row["correct"] and not keeping.keep_wrong:
            dropped["wrong"] += 1
        else:
            kept.append({name: row[name] for name in ("id", "item", "text", "correct", "finish_reason", "tokens")})
    return kept, {"answers": len(rows), "kept": len(kept), "dropped": dict(sorted(dropped.items()))}
