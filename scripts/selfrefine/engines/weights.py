"""The engines that hold the weights themselves: `transformers` and `vllm`, opened for a checkpoint or a model."""

import functools
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from selfrefine.computing import Compute, computed_in
from selfrefine.engines.tokens import TokenEngine, read_settings
from selfrefine.models import Quantisation

STUDENT_ENGINES = ("transformers", "vllm")


class Answering(BaseModel):
    """How weights answer: the part of a recipe that every stage shares in which a student generates."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal[STUDENT_ENGINES] = "transformers"
    system: str | None = None
    dtype: str = Field("bfloat16", pattern="^(bfloat16|float16|float32)$")
    quantisation: Quantisation = "none"
    batch_size: int | None = Field(
        32,
        gt=0,
        description="Completions drawn at once by engine transformers; null with vllm, which sees to it itself.",
    )


def open_checkpoint_engine(
    record_path: Path,
    answering: Answering,
    memory: float,
    batch_invariant: bool = False,
    compute: Compute = "auto",
) -> TokenEngine:
    """The engine that answers with a checkpoint, named by its record.

    `memory` and `batch_invariant` are vLLM's (`VllmEngine`), `compute` says what is computed in (computing.py).
    """
    from selfrefine.models import identity_of, load_checkpoint, load_tokenizer, open_checkpoint

    dtype, quantisation = answering.dtype, answering.quantisation
    if answering.engine == "transformers":
        from selfrefine.engines.local import TransformersEngine

        loaded = load_checkpoint(record_path, dtype, quantisation, compute=compute)
        return TransformersEngine(*loaded, answering.batch_size)
    from selfrefine.engines.vllm import VllmEngine

    folder, adapter, weights_are = open_checkpoint(record_path)
    as_they_are = adapter is None and quantisation == "none"
    weights = (lambda scratch: folder) if as_they_are else functools.partial(_merged, record_path, dtype, quantisation)
    identity = identity_of(weights_are, dtype, quantisation)
    model = (load_tokenizer(folder), *read_settings(folder))
    return VllmEngine(weights, *model, identity, computed_in(dtype, compute), memory, batch_invariant)


def open_model_engine(
    record_path: Path,
    engine: str,
    dtype: str,
    batch_size: int | None,
    memory: float,
    batch_invariant: bool = False,
    compute: Compute = "auto",
) -> TokenEngine:
    """The engine that answers with a model as it was fetched; the last three as for `open_checkpoint_engine`."""
    from selfrefine.models import load_model, load_tokenizer, open_checkpoint

    folder, _, weights = open_checkpoint(record_path)
    identity = {**weights, "dtype": dtype}
    if engine == "transformers":
        from selfrefine.engines.local import TransformersEngine

        model = load_model(folder, dtype, compute=compute)
        return TransformersEngine(model, load_tokenizer(folder), identity, batch_size)
    from selfrefine.engines.vllm import VllmEngine

    model = (load_tokenizer(folder), *read_settings(folder))
    return VllmEngine(lambda scratch: folder, *model, identity, computed_in(dtype, compute), memory, batch_invariant)


def _merged(record_path: Path, dtype: str, quantisation: str, scratch: Path) -> Path:
    """Writes a checkpoint's merged weights into a folder, and returns it."""
    from selfrefine.models import load_checkpoint

    # Not on the GPU: vLLM takes its memory next, and several GPUs' worth of weights may not fit on one.
    model, _, _ = load_checkpoint(record_path, dtype, quantisation, device="cpu", compute=dtype)
    model.save_pretrained(scratch)
    return scratch
