"""Weights on disk: a folder in the Hugging Face layout (safetensors) with a manifest, and the adapters trained on it."""

import os
from pathlib import Path

from selfrefine.errors import UserError
from selfrefine.files import read_json


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


def load_model(folder: Path, dtype: str, spread: bool = False):
    """A model's plain weights, on the GPU where there is one; `spread`: its layers divided among all where there are several."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    options = {"dtype": getattr(torch, dtype), "use_safetensors": True}
    if spread and torch.cuda.device_count() > 1:
        return AutoModelForCausalLM.from_pretrained(folder, device_map="auto", **options)
    return AutoModelForCausalLM.from_pretrained(folder, **options).to(device)


def open_checkpoint(manifest_path: Path) -> tuple[Path, Path | None, dict]:
    """A checkpoint's model folder, adapter folder (None for a base model) and manifest; every file must be there."""
    manifest_path = Path(manifest_path)
    manifest = read_json(manifest_path)
    model_folder = Path(manifest["model"]["folder"])
    model_manifest = read_json(model_folder / "manifest.json")
    wanted = {model_folder / name: entry for name, entry in model_manifest["files"].items()}
    wanted |= {manifest_path.parent / name: entry for name, entry in manifest["files"].items()}
    for path, entry in wanted.items():
        if not path.exists() or path.stat().st_size != entry["bytes"]:
            raise UserError(
                f"{path}: missing or of another size than its manifest says; delete the manifest beside it and run again"
            )
    adapter = manifest_path.parent if "adapter_config.json" in manifest["files"] else None
    return model_folder, adapter, manifest


def load_checkpoint(manifest_path: Path, dtype: str):
    """(model, tokenizer, identity) of a checkpoint, its adapter merged into the weights in memory."""
    folder, adapter, manifest = open_checkpoint(manifest_path)
    model, tokenizer = load_model(folder, dtype, spread=True), load_tokenizer(folder)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    weights = {
        "model": manifest["model"]["manifest_sha256"],
        "adapter": {n: e["sha256"] for n, e in manifest["files"].items()},
    }
    return model, tokenizer, {"weights": weights, "dtype": dtype}


def set_threads(threads: int) -> None:
    """Bounds the processor threads that torch uses; call it before the first computation."""
    import torch

    torch.set_num_threads(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
