"""Models of several shapes with random weights, on the GPU where there is one, and how large they are."""

import gc
import math
from pathlib import Path

SHAPES = {
    "tiny": {},
    "135m": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "1b": {
        "vocab_size": 32000,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
    "7b": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
}


def make_model(folder: Path, shape: str) -> Path:
    """A model's folder with random weights in bfloat16 and a record, made on the GPU where there is one."""
    from conftest import build_tiny_model, record_model
    from selfrefine.store.hashing import KnownHashes
    from selfrefine.store.locations import HASHES, RECORD
    from selfrefine.store.provenance import LARGE

    model = model_of(folder, shape)
    if (model / RECORD).exists():
        return model
    model.mkdir(parents=True)
    build_tiny_model(model)
    if SHAPES[shape]:
        save_random(model, SHAPES[shape])
    # Not hashed, unlike a fetched model: nothing depends on which weights they are.
    hashes = KnownHashes(model / HASHES)
    for path in list(model.iterdir()):
        if path.stat().st_size >= LARGE:
            hashes.note(path, "0" * 64)
    record_model(model)
    free()
    return model


def model_of(folder: Path, shape: str) -> Path:
    """A model's folder: in a store, where the hashes of large files are kept."""
    return folder / "store" / shape


def save_random(folder: Path, shape: dict[str, int]) -> None:
    """Replaces a folder's weights by random ones of another shape."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig.from_pretrained(folder)
    config.update({**shape, "max_position_embeddings": 4096, "tie_word_embeddings": False})
    config.update({"head_dim": config.hidden_size // config.num_attention_heads, "initializer_range": 0.02})
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device()):
        made = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    made.save_pretrained(folder)


def parameters(model: Path) -> int:
    """The weights of a model's folder, counted in its files."""
    from safetensors import safe_open

    total = 0
    for path in model.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            names = file.keys()  # no mapping: it has no other way to list them
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    return total


def size_of(model: Path, shape: str):
    """A model's size as study/resources.py describes it."""
    from selfrefine.store.files import read_json
    from selfrefine.study.resources import Size

    config, billions = read_json(model / "config.json"), parameters(model) / 1e9
    share = config["num_key_value_heads"] / config["num_attention_heads"]
    return Size(billions, billions, config["vocab_size"], share)


def device() -> str:
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def free() -> None:
    """Frees unused GPU memory and restarts the measurement of its peak."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gb() -> float | None:
    """The most GPU memory that torch has reserved, in GB."""
    import torch

    return torch.cuda.max_memory_reserved() / 1e9 if torch.cuda.is_available() else None
