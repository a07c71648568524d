"""A teacher: a model and how it is asked, or a mixture of other teachers."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from selfrefine.schema.base import Strict
from selfrefine.schema.generation import Budget, Dtype, Generation, Thinking
from selfrefine.schema.rows import Kind
from selfrefine.schema.server import Server, check_extra

# What every library takes as a seed.
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
# What a mixture may say; all else is said of the teachers that it mixes.
OF_MIXTURES = ("title", "mixture", "mixture_seed")


class Teacher(Strict):
    """A teacher: the engine that answers for it, and how it is spoken to; or the teachers that it mixes."""

    title: str | None = Field(None, description="Its name in figures, tables and pages; null: its name here.")
    family: str = Field("", description="Needed, but of a mixture, whose teachers have theirs.")
    engine: Literal["transformers", "vllm", "openai", "recorded"] | None = Field(
        None, description="What answers for it; needed, but of a mixture."
    )
    mixture: dict[str, float] = Field(
        {}, description="In place of an engine: the teachers that answer in its place, with their shares of the items."
    )
    mixture_seed: Seed = Field(0, description="Of the draw of a teacher for each item.")
    model: str | None = Field(None, description="Its weights; needed by engines transformers and vllm.")
    recording: str | None = Field(None, description="Its kept completions; needed by engine recorded.")
    served: str | None = Field(None, min_length=1, description="Its name at the server; needed by engine openai.")
    revision: str = Field("", description="Tells apart different weights that are served under one name.")
    extra: dict[str, Any] = Field({}, description="Further fields of each request's body, such as reasoning_effort.")
    licence: str = Field("", description="Of what a served or recorded teacher answers; listed in the sources.")
    server: Server = Server()
    request: dict[Kind, str] = Field({}, description="An extra last line of the prompt, by kind.")
    system: str | None = None
    thinking: Thinking = Field("keep", description="What becomes of the thoughts (`<think>…</think>`) in its answers.")
    generation: Generation = Generation()
    dtype: Dtype = "bfloat16"
    batch_size: int = Field(16, gt=0, description="Completions drawn at once by engine transformers.")

    _extra_is_free = field_validator("extra")(check_extra)

    @model_validator(mode="after")
    def _can_answer(self) -> Self:
        if self.mixture:
            return self._mixes()
        if absent := [key for key in ("engine", "family") if not getattr(self, key)]:
            raise ValueError(f"needs the key {absent[0]!r}, or is a mixture of other teachers with the key 'mixture'")
        if self.mixture_seed:
            raise ValueError("mixture_seed: draws nothing without the key 'mixture'")
        needed = {"openai": "served", "recorded": "recording"}.get(str(self.engine), "model")
        if getattr(self, needed) is None:
            raise ValueError(f"engine {self.engine} needs the key {needed!r}")
        if isinstance(self.thinking, Budget):
            if self.engine == "openai":
                raise ValueError("thinking.budget: a server ends thoughts by a field of its own; set it in `extra`")
            if self.thinking.budget >= self.generation.max_tokens:
                raise ValueError("thinking.budget: must leave some of generation.max_tokens for the answer")
        if self.engine not in ("openai", "recorded"):
            if self.generation.temperature is None:
                raise ValueError(f"generation.temperature: null leaves it to a server; engine {self.engine} needs one")
            if self.licence:
                raise ValueError(f"licence: engine {self.engine} loads weights; set models.{self.model}.licence")
        return self

    @model_serializer(mode="wrap")
    def _mixing_alone(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A mixture without what others say, and others without what mixtures do."""
        hidden = set(Teacher.model_fields) - set(OF_MIXTURES) if self.mixture else {"mixture", "mixture_seed"}
        return {key: value for key, value in handler(self).items() if key not in hidden}

    def _mixes(self) -> Self:
        fields = ((key, field.get_default(call_default_factory=True)) for key, field in Teacher.model_fields.items())
        if others := [key for key, unset in fields if key not in OF_MIXTURES and getattr(self, key) != unset]:
            raise ValueError(f"a mixture answers through its teachers; set {others[0]!r} in their own entries")
        if len(self.mixture) < 2:
            raise ValueError("mixture: needs two teachers or more; name the one itself in study.teachers")
        for name, share in self.mixture.items():
            if not 0 < share < 1:
                raise ValueError(f"mixture.{name}: {share:g} is no share above 0 and below 1")
        if not math.isclose(total := math.fsum(self.mixture.values()), 1, abs_tol=1e-9):
            raise ValueError(f"mixture: the shares sum to {total:.10g}; make it 1")
        return self
