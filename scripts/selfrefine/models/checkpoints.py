"""Weights on disk: folders in the Hugging Face layout, and the adapters trained on them."""

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from selfrefine.errors import UserError
from selfrefine.models.chat_templates import choose_template
from selfrefine.models.compute import bound_threads, computed_in
from selfrefine.models.processes import state
from selfrefine.schema.generation import Compute, Dtype, Quantisation
from selfrefine.store.files import naming_write_errors
from selfrefine.store.locations import ADAPTER, SET_ASIDE, TRAINING
from selfrefine.store.provenance import files_of, read_record

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def convert_gguf(path: Path, folder: Path, origin: str) -> None:
    """Converts a GGUF file (weights dequantised to bfloat16, configuration, tokenizer) into a Hugging Face folder.

    `UserError`, naming the file's origin, if it is truncated, not a GGUF, or of an architecture that is not supported.
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
        if "architecture" in str(error) and "not supported" in str(error):
            raise UserError(
                f"{origin}: transformers cannot convert a GGUF file of this architecture ({error}); take the model's "
                "safetensors, or another model"
            ) from error
        raise UserError(
            f"{origin}: cannot be read as GGUF ({error}); the file is damaged or cut off, fetch it again"
        ) from error
    with naming_write_errors(folder / "model.safetensors"):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def load_tokenizer(folder: Path, chat_template: str | None = None) -> "PreTrainedTokenizerBase":
    """A model's tokenizer, with a padding token and a chat template; pads on the left.

    `chat_template` stands in place of the tokenizer's own (chat_templates.py).
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"{folder}: the tokenizer has no stop token, so no answer would end; set `eos_token` in its "
            "tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    choose_template(tokenizer, chat_template)
    if tokenizer.chat_template is None:
        raise UserError(
            f"{folder}: the tokenizer has no chat template; set `students.NAME.chat_template` to a Jinja template or "
            "to `plain`, or use an instruction-tuned model"
        )
    return tokenizer


def load_model(
    folder: Path,
    dtype: Dtype,
    quantisation: Quantisation = "none",
    training: bool = False,
    device: str | None = None,
    compute: Compute = "auto",
) -> "PreTrainedModel":
    """A model's weights, rounded to `dtype` and multiplied in what `compute` says (compute.py).

    They lie on `device`. Without one, they lie on the GPUs if there are any: for training on the process's own, else
    spread over all. `quantisation` "nf4" rounds the linear layers' weights to QLoRA's four bits with doubly quantised
    constants (Dettmers et al. 2023, arXiv 2305.14314). For training they stay packed, which takes a quarter of the
    memory. For generation they are unpacked to `dtype` once, which is faster and gives exactly the weights that the
    adapter was trained on. A CPU that computes in another dtype unpacks them for training too, since packed weights
    would be unpacked to that dtype, less rounded.
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
            "quantisation nf4 needs the package bitsandbytes; install envs/requirements.txt again, or set the "
            "student's `quantisation: none`"
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


def as_computed(model: "PreTrainedModel", computed: str) -> "PreTrainedModel":
    """A model with its weights cast to the wider dtype that they are multiplied in: the same numbers."""
    import torch

    model = model.to(getattr(torch, computed))
    model.config.dtype = getattr(torch, computed)
    return model


def _placement(training: bool) -> dict[str, str | int] | str:
    import torch

    if not torch.cuda.is_available():
        return {"": "cpu"}
    if training:
        return {"": state().local_process_index}
    return "auto" if torch.cuda.device_count() > 1 else {"": 0}


class Checkpoint(NamedTuple):
    """Where a checkpoint's weights lie, and what they are."""

    folder: Path
    """The model's: the checkpoint's own if all weights were trained."""
    adapter: Path | None
    """The folder of the adapter; None if the checkpoint has whole weights."""
    weights: dict[str, dict[str, str]]
    """sha256 by file name, of the `model` and of what was `trained` on it."""


def open_checkpoint(record_path: Path) -> Checkpoint:
    """The checkpoint with this record, or a model as it was fetched. `UserError` if a file is missing or cut off."""
    record_path = Path(record_path)
    own = {path.relative_to(record_path.parent).as_posix(): made for path, made in files_of(record_path).items()}
    own.pop(TRAINING, None)
    for name, made in own.items():
        path = record_path.parent / name
        if not path.exists() or path.stat().st_size != made.bytes:
            raise UserError(f"{path}: missing, or of another size than {record_path} says; {SET_ASIDE}")
    files, model = {name: made.sha256 for name, made in own.items()}, read_record(record_path).model
    if not model:
        return Checkpoint(record_path.parent, None, {"model": files})
    model_folder, _, weights = open_checkpoint(Path(model))
    is_adapter = ADAPTER in own
    return Checkpoint(
        model_folder if is_adapter else record_path.parent,
        record_path.parent if is_adapter else None,
        # A model whose weights were all trained is identified by the trained weights.
        {"model": weights.get("trained", weights["model"]), "trained": files},
    )


def load_checkpoint(
    record_path: Path,
    dtype: Dtype,
    quantisation: Quantisation = "none",
    device: str | None = None,
    compute: Compute = "auto",
    chat_template: str | None = None,
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase", dict[str, Any]]:
    """(model, tokenizer, identity) of a checkpoint, as `load_model` reads it, its adapter merged into the weights.

    Merged weights are rounded to `dtype`, whatever dtype they are multiplied in.
    """
    folder, adapter, weights = open_checkpoint(record_path)
    model = load_model(folder, dtype, quantisation, device=device, compute=dtype)
    tokenizer = load_tokenizer(folder, chat_template)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return as_computed(model, computed_in(dtype, compute)), tokenizer, identity_of(weights, dtype, quantisation)


def identity_of(weights: dict[str, dict[str, str]], dtype: str, quantisation: str) -> dict[str, Any]:
    """What identifies a checkpoint's weights, loaded with a dtype and a quantisation."""
    return {"weights": weights, "dtype": dtype, "quantisation": quantisation}


def prepare_torch(threads: int, engine: str = "transformers") -> None:
    """Sets torch's number of threads and imports what loads weights; call it before the first computation.

    It saves a third of the time that these imports take. PEFT imports bitsandbytes, which has torch's compiler loaded;
    only engine `vllm` compiles. transformers loads scikit-learn for assisted decoding and SciPy for a loss of object
    detection. What modules create stays alive, so garbage collection would find nothing in it.
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
