"""Opens the engines that hold weights, `transformers` and `vllm`, for a checkpoint or a model."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfrefine.engines.token_engine import TokenEngine, read_settings
from selfrefine.engines.vllm import VllmEngine
from selfrefine.errors import UserError
from selfrefine.models.checkpoints import identity_of, load_checkpoint, load_model, load_tokenizer, open_checkpoint
from selfrefine.models.compute import computed_in
from selfrefine.schema.generation import Answering, Compute, Dtype, Quantisation


def open_checkpoint_engine(
    record_path: Path,
    answering: Answering,
    memory: float,
    batch_invariant: bool = False,
    compute: Compute = "auto",
) -> TokenEngine:
    """The engine that answers with a checkpoint, named by its record.

    `memory` and `batch_invariant` are vLLM's (`VllmEngine`); `compute` is the dtype to multiply in (models/compute.py).
    """
    dtype, quantisation = answering.dtype, answering.quantisation
    if answering.engine == "transformers":
        template = answering.chat_template
        loaded = load_checkpoint(record_path, dtype, quantisation, compute=compute, chat_template=template)
        return _open_transformers(*loaded, answering.batch_size)
    folder, adapter, weights = open_checkpoint(record_path)
    prepared: Callable[[Path], Path] = functools.partial(_merged, record_path, dtype, quantisation)
    if adapter is None and quantisation == "none":
        prepared = lambda scratch: folder  # noqa: E731
    identity = identity_of(weights, dtype, quantisation)
    model = (load_tokenizer(folder, answering.chat_template), *read_settings(folder))
    return VllmEngine(prepared, *model, identity, computed_in(dtype, compute), memory, batch_invariant)


def open_model_engine(
    record_path: Path,
    engine: str,
    dtype: Dtype,
    batch_size: int | None,
    memory: float,
    batch_invariant: bool = False,
    compute: Compute = "auto",
) -> TokenEngine:
    """The engine that answers with a model as it was fetched; the last three as for `open_checkpoint_engine`."""
    folder, _, weights = open_checkpoint(record_path)
    identity = {**weights, "dtype": dtype}
    if engine == "transformers":
        model = load_model(folder, dtype, compute=compute)
        return _open_transformers(model, load_tokenizer(folder), identity, batch_size)
    parts = (load_tokenizer(folder), *read_settings(folder))
    return VllmEngine(lambda scratch: folder, *parts, identity, computed_in(dtype, compute), memory, batch_invariant)


def _open_transformers(model: Any, tokenizer: Any, identity: dict[str, Any], batch_size: int | None) -> TokenEngine:
    from selfrefine.engines.transformers import TransformersEngine  # imports torch

    if batch_size is None:
        raise UserError(
            "engine transformers: give the settings a `batch_size`, the number of sequences decoded at once"
        )
    return TransformersEngine(model, tokenizer, identity, batch_size)


def _merged(record_path: Path, dtype: Dtype, quantisation: Quantisation, scratch: Path) -> Path:
    """Writes a checkpoint's merged weights into a folder, and returns it."""
    # Not on the GPU: vLLM takes its memory next, and several GPUs' worth of weights may not fit on one.
    model, _, _ = load_checkpoint(record_path, dtype, quantisation, device="cpu", compute=dtype)
    model.save_pretrained(scratch)
    return scratch
