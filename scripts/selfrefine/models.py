"""Weights on disk: a folder in the Hugging Face layout (safetensors) with a record, and the adapters trained on it."""

import gc
import os
from pathlib import Path
from typing import Literal

from selfrefine.computing import Compute, bound_threads, computed_in
from selfrefine.errors import UserError
from selfrefine.names import ADAPTER, TRAINING
from selfrefine.processes import state
from selfrefine.provenance import SET_ASIDE, files_of, read_record

Quantisation = Literal["none", "nf4"]


def convert_gguf(path: Path, folder: Path, origin: str) -> None:
    """Writes a GGUF file's weights (dequantised, bfloat16), configuration and tokenizer as a Hugging Face folder.

    `UserError`, naming the file's origin, if it is truncated or not a GGUF.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    path = Path(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
        )
    except Exception as error:  # the readers raise whatever the damaged bytes lead them to
        raise UserError(
            f"{origin}: cannot be read as GGUF ({error}); the file is damaged or cut off, fetch it again"
        ) from error
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_tokenizer(folder: Path):
    """A model's tokenizer, with a padding token and a chat template; pads on the left."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.chat_template is None:
        raise UserError(
            f"{folder}: the tokenizer has no chat template; use an instruction-tuned model or set one in its tokenizer"
        )
    return tokenizer


def load_model(
    folder: Path,
    dtype: str,
    quantisation: str = "none",
    training: bool = False,
    device: str | None = None,
    compute: Compute = "auto",
):
    """A model's weights: on `device`, or on the GPUs where there are any, spread over all of them or, for training, on the process's own.

    They are rounded to `dtype`, and multiplied in what `compute` says (computing.py). `quantisation` "nf4" rounds the linear layers' weights to QLoRA's four bits with doubly quantised constants (Dettmers et
    al. 2023, arXiv 2305.14314). For training they stay packed, which takes a quarter of the memory; for generation they are
    unpacked to `dtype` once, which is faster and gives the very weights that the adapter was trained on. A processor that
    computes in another dtype unpacks them for training too: packed ones would be unpacked to that one, less rounded.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    computed = computed_in(dtype, compute)
    options = {
        "dtype": getattr(torch, dtype),
        "use_safetensors": True,
        "device_map": {"": device} if device else _placement(training),
    }
    if quantisation == "none":
        return as_computed(AutoModelForCausalLM.from_pretrained(folder, **options), computed)
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise UserError(
            "quantisation nf4 needs the package bitsandbytes; install envs/requirements.txt again, or set the student's "
            "`quantisation: none`"
        ) from None
    packing = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, computed),
    )
    model = AutoModelForCausalLM.from_pretrained(folder, **options, quantization_config=packing)
    if training and (computed == dtype or torch.cuda.is_available()):
        return model
    return as_computed(model.dequantize(dtype=options["dtype"]), computed)


def as_computed(model, computed: str):
    """A model, its weights turned into the dtype that is computed in, a wider one: the same numbers."""
    import torch

    model = model.to(getattr(torch, computed))
    model.config.dtype = getattr(torch, computed)
    return model


def _placement(training: bool) -> dict | str:
    import torch

    if not torch.cuda.is_available():
        return {"": "cpu"}
    if training:
        return {"": state().local_process_index}
    return "auto" if torch.cuda.device_count() > 1 else {"": 0}


def open_checkpoint(record_path: Path) -> tuple[Path, Path | None, dict]:
    """The model's folder of a checkpoint, its adapter's (None where it has whole weights), and what its weights are, by sha256.

    `record_path` is the record of the checkpoint, or of a model as it was fetched. The model's folder of a checkpoint that was
    trained in full is its own. Every file must be there.
    """
    record_path = Path(record_path)
    own = {path.relative_to(record_path.parent).as_posix(): made for path, made in files_of(record_path).items()}
    own.pop(TRAINING, None)
    for name, made in own.items():
        path = record_path.parent / name
        if not path.exists() or path.stat().st_size != made.bytes:
            raise UserError(f"{path}: missing, or of another size than {record_path} says; {SET_ASIDE}")
    files, model = {name: made.sha256 for name, made in own.items()}, read_record(record_path).model
    if not model:
        return record_path.parent, None, {"model": files}
    model_folder, _, weights = open_checkpoint(Path(model))
    is_adapter = ADAPTER in own
    return (
        model_folder if is_adapter else record_path.parent,
        record_path.parent if is_adapter else None,
        # A model that was itself trained in full is known by what came of that.
        {"model": weights.get("trained", weights["model"]), "trained": files},
    )


def load_checkpoint(
    record_path: Path,
    dtype: str,
    quantisation: str = "none",
    device: str | None = None,
    compute: Compute = "auto",
):
    """(model, tokenizer, identity) of a checkpoint, its adapter merged into the weights in memory, as `load_model` reads them.

    Merged weights are rounded to `dtype`, whatever is computed in.
    """
    folder, adapter, weights = open_checkpoint(record_path)
    model, tokenizer = load_model(folder, dtype, quantisation, device=device, compute=dtype), load_tokenizer(folder)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return as_computed(model, computed_in(dtype, compute)), tokenizer, identity_of(weights, dtype, quantisation)


def identity_of(weights: dict, dtype: str, quantisation: str) -> dict:
    """What identifies a checkpoint's weights, loaded with a dtype and a quantisation."""
    return {"weights": weights, "dtype": dtype, "quantisation": quantisation}


def settle_torch(threads: int, engine: str = "transformers") -> None:
    """Bounds the processor threads that torch uses, and imports what loads weights; call it before the first computation.

    A third of the time that these imports take is saved. bitsandbytes, which PEFT imports, has torch's compiler loaded; only
    engine `vllm` compiles. transformers loads scikit-learn for assisted decoding and SciPy for a loss of object detection. And
    what modules make stays, so that looking for garbage among it finds none.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    bound_threads(threads)
    if engine == "vllm":
        return
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    gc.disable()
    import transformers.utils

    transformers.utils.is_sklearn_available = transformers.utils.is_scipy_available = lambda: False
    import peft  # noqa: F401
    import transformers.models.auto.modeling_auto  # noqa: F401

    gc.freeze()
    gc.enable()
