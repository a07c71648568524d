"""Whether a fetched model suits those who use it: its kind, its tokenizer, its modules."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfrefine.errors import UserError
from selfrefine.models.chat_templates import frame_of, render
from selfrefine.models.checkpoints import load_tokenizer
from selfrefine.schema.model_use import ModelUse
from selfrefine.schema.rows import Message

# Tokens that stand for pictures and sounds, which no prompt of ours holds: some text models come without their
# embeddings.
MEDIA = re.compile(r"image|audio|video|vision|speech", re.IGNORECASE)
# What templates have been seen to change: case, markup, quotes, braces, line ends, and what is long.
QUESTION: Message = {
    "role": "user",
    "content": 'How many <b>Äpfel</b> & "PEARS" are in {{ box }}?\nA) 1\n\nB) 2' + " or more" * 99 + "\nAnswer:",
}


def check_model(folder: Path, origin: str, uses: Sequence[ModelUse]) -> None:
    """`UserError` in one line, naming where the model comes from or the key, for what would fail in a later job."""
    skeleton = _skeleton(folder, origin)
    for use in uses or [ModelUse(key="students.NAME")]:
        _check_precision(skeleton, use, origin)
        _check_targets(skeleton, use, origin)
        tokenizer = _tokenizer(folder, origin, use)
        _check_embeddings(tokenizer, skeleton, origin)
        _check_template(tokenizer, use, origin)


def _skeleton(folder: Path, origin: str) -> Any:
    """The model without the content of its weights, once its files have been found to hold them all."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers import __version__ as version

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # code of its own, unknown kinds, invalid values: each has an error of another class
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{origin}: its architecture is not supported: transformers {version} cannot read it as a causal language "
            f"model ({reason}); name another model, or one that needs no code of its own"
        ) from error
    if getattr(config, "quantization_config", None) is None:
        _check_weights(folder, origin)
    return skeleton


def _check_weights(folder: Path, origin: str) -> None:
    """The files hold every weight of the model, in its shape: what is missing would be made up at random."""
    from transformers import AutoModelForCausalLM

    if (folder / "adapter_config.json").is_file():
        raise UserError(
            f"{origin}: has an adapter beside the weights (adapter_config.json); merge it into them, or remove it"
        )
    options: dict[str, Any] = {"device_map": {"": "meta"}, "use_safetensors": True, "trust_remote_code": False}
    try:
        _, found = AutoModelForCausalLM.from_pretrained(
            folder, **options, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except Exception as error:  # each kind of model has its own
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{origin}: its weights cannot be read ({reason}); fetch or copy the model again") from error
    shapes = sorted(f"{name} {[*there]}, not {[*meant]}" for name, there, meant in found["mismatched_keys"])
    faults = {"missing": sorted(found["missing_keys"]), "in another shape": shapes}
    for fault, names in faults.items():
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(
                f"{origin}: its files do not hold the model that config.json describes: {fault} are "
                f"{', '.join(names[:3])}{more}; fetch or copy the model again, with the files that belong together"
            )


def _tokenizer(folder: Path, origin: str, use: ModelUse) -> Any:
    try:
        return load_tokenizer(folder, use.chat_template)
    except UserError as error:
        said = str(error).removeprefix(f"{folder}: ").replace("students.NAME", use.key)
        raise UserError(f"{origin}: {said}") from error
    except Exception as error:  # a damaged vocabulary raises what its library happens to raise
        raise UserError(f"{origin}: its tokenizer cannot be read ({error}); fetch or copy the model again") from error


def _check_embeddings(tokenizer: Any, skeleton: Any, origin: str) -> None:
    """Every token has an embedding."""
    rows = skeleton.get_input_embeddings().weight.shape[0]
    without = sorted(token for token, place in tokenizer.get_vocab().items() if place >= rows)
    if without := [token for token in without if not MEDIA.search(token)]:
        named = ", ".join(map(repr, without[:3])) + (f" and {len(without) - 3} more" if len(without) > 3 else "")
        raise UserError(
            f"{origin}: the tokenizer has tokens without an embedding ({named}; the model has {rows}); resize the "
            "model's embeddings, or take the tokenizer that it was trained with"
        )


def _check_template(tokenizer: Any, use: ModelUse, origin: str) -> None:
    """The chat template takes the chats of the study, and puts what they say into the prompt as it is."""
    chat: list[Message] = [QUESTION] if use.system is None else [{"role": "system", "content": use.system}, QUESTION]
    try:
        prompt = render(tokenizer, chat)
        if use.key.startswith("students."):
            frame_of(tokenizer, chat)
    except UserError as error:
        key = f"{use.key}.system" if use.system is not None and _takes(tokenizer, [QUESTION]) else use.key
        raise UserError(f"{key}: {origin}: {str(error).replace('students.NAME', use.key)}") from error
    if render(tokenizer, chat) != prompt:
        raise UserError(
            f"{use.key}: {origin}: the model's chat template says something else each time; set another `chat_template`"
        )
    for message in reversed(chat):
        if message["content"].strip() not in prompt:
            of_system = message["role"] == "system"
            key, more = (f"{use.key}.system", "`system: null`, or ") if of_system else (use.key, "")
            raise UserError(
                f"{key}: {origin}: the model's chat template changes the {message['role']} message, or leaves it out; "
                f"set {more}another `chat_template`"
            )


def _takes(tokenizer: Any, chat: list[Message]) -> bool:
    try:
        render(tokenizer, chat)
    except UserError:
        return False
    return True


def _check_precision(skeleton: Any, use: ModelUse, origin: str) -> None:
    """A student's weights are not quantised already: adapters are merged into them."""
    packed = getattr(skeleton.config, "quantization_config", None)
    if packed is not None and use.key.startswith("students."):
        raise UserError(
            f"{use.key}: {origin}: its weights are quantised (quantization_config in config.json), so an adapter could "
            "not be merged into them; name the model's unquantised weights, with `quantisation: nf4` to save memory"
        )


def _check_targets(skeleton: Any, use: ModelUse, origin: str) -> None:
    """The modules to adapt are there, are matrices, and share their weights with no other."""
    import torch
    from transformers.pytorch_utils import Conv1D

    modules = {name: module for name, module in skeleton.named_modules() if name}
    matrices = {n: m for n, m in modules.items() if isinstance(m, torch.nn.Linear | torch.nn.Embedding | Conv1D)}
    known = sorted({name.rpartition(".")[2] for name in matrices})
    tied = _tied(skeleton, matrices)
    for key, targets in use.targets.items():
        for target in targets:
            named = [name for name in modules if name == target or name.endswith(f".{target}")]
            if not any(name in matrices for name in named):
                why = "is no matrix" if named else "is not there"
                raise UserError(f"{key}: {target!r} {why} in {origin}; it has {', '.join(known)}")
            if any(modules[name] is skeleton.get_output_embeddings() for name in named):
                raise UserError(
                    f"{key}: {target!r} is the head of {origin}, whose weights training reads without an adapter's, so it "
                    f"would not learn; leave {target} out"
                )
            if shared := [name for name in named if name in tied]:
                raise UserError(
                    f"{key}: {target!r} in {origin} shares its weights with {tied[shared[0]]} (tied embeddings), so what "
                    f"is evaluated would not be what was trained; leave {target} out"
                )


def _tied(skeleton: Any, matrices: dict[str, Any]) -> dict[str, str]:
    """By a module's name, another one with the same weights."""
    embeddings, head = skeleton.get_input_embeddings(), skeleton.get_output_embeddings()
    names = {id(module): name for name, module in matrices.items()}
    one, other = (names.get(id(module)) for module in (embeddings, head))
    if not getattr(skeleton.config.get_text_config(), "tie_word_embeddings", False) or one is None or other is None:
        return {}
    return {one: other, other: one}
