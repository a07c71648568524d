"""Writes a Llama model in the Hugging Face layout as an unquantised GGUF file.

llama.cpp has a converter of its own, but no package on PyPI contains it.
"""

import json
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(folder: Path, path: Path, dtype: str) -> None:
    """`dtype`: float32 or float16. `ValueError` for another architecture than Llama."""
    import torch
    from safetensors.torch import load_file

    settings = json.loads((folder / "config.json").read_text())
    if settings["architectures"] != ["LlamaForCausalLM"]:
        raise ValueError(f"{folder}: {settings['architectures']} is not a Llama")
    heads, groups = settings["num_attention_heads"], settings["num_key_value_heads"]
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(settings["max_position_embeddings"])
    writer.add_embedding_length(settings["hidden_size"])
    writer.add_block_count(settings["num_hidden_layers"])
    writer.add_feed_forward_length(settings["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_rope_dimension_count(settings["hidden_size"] // heads)
    writer.add_rope_freq_base(settings["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(settings["rms_norm_eps"])
    writer.add_vocab_size(settings["vocab_size"])
    _add_tokenizer(writer, folder, settings)
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            array = tensor.to(torch.float32).numpy()
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                array = _interleaved(array, heads if "q_proj" in name else groups)
            narrow = dtype == "float16" and array.ndim > 1
            kind = GGMLQuantizationType.F16 if narrow else GGMLQuantizationType.F32
            writer.add_tensor(_name(name), array.astype(np.float16) if narrow else array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem.startswith("model.layers."):
        layer, part = stem.removeprefix("model.layers.").split(".", 1)
        return f"blk.{layer}.{NAMES[part]}.weight"
    return f"{NAMES[stem]}.weight"


def _interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows in llama.cpp's order: it rotates neighbours, where Llama's own layout rotates halves of a head."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def _add_tokenizer(writer: GGUFWriter, folder: Path, settings: dict) -> None:
    model = json.loads((folder / "tokenizer.json").read_text())
    special = {entry["id"] for entry in model["added_tokens"] if entry["special"]}
    tokens = {**model["model"]["vocab"], **{entry["content"]: entry["id"] for entry in model["added_tokens"]}}
    ordered = sorted(tokens, key=tokens.get)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(ordered)
    writer.add_token_types([TokenType.CONTROL if tokens[token] in special else TokenType.NORMAL for token in ordered])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(settings["bos_token_id"])
    writer.add_eos_token_id(settings["eos_token_id"])
    writer.add_add_bos_token(False)
