"""Token ids of prompts and completions as the model would generate them, and checks of examples."""

from typing import TYPE_CHECKING

from selfrefine.errors import UserError
from selfrefine.schema.rows import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The label of a token that carries no loss.
IGNORED = -100


def encode_completion(
    tokenizer: "PreTrainedTokenizerBase", chat: list[Message], text: str, finished: bool = True
) -> list[int]:
    """The token ids that a model would have generated to answer `chat` with `text`, the stop token last.

    The model's own chat template renders the answer. What the template adds after the stop token is left out, because
    generation ends there. A completion that was cut at max_tokens (`finished` False) has no stop token to learn.
    """
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*chat, {"role": "assistant", "content": text}], tokenize=False)
    if not whole.startswith(prompt):
        raise UserError(
            "the model's chat template does not render the prompt alone as the beginning of prompt and answer; "
            "training and generation would see different prompts: use a model with another template"
        )
    completion = whole[len(prompt) :]
    stop = tokenizer.eos_token
    completion = completion[: completion.rindex(stop)] if stop in completion else completion.rstrip("\n")
    ids = tokenizer(completion, add_special_tokens=False)["input_ids"]
    return ids + [tokenizer.eos_token_id] if finished else ids


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", chat: list[Message]) -> list[int]:
    """A chat's token ids as the engines see them."""
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def check_example(ids: list[int], labels: list[int], prompt_length: int, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Refuses an example whose prompt is learned, whose stop token is not, or which has two BOS tokens.

    `ids` and `labels` are one sequence as the trainer batches it, without padding; IGNORED labels carry no loss.
    """
    if any(label != IGNORED for label in labels[:prompt_length]):
        raise UserError("training check: the prompt carries loss; the completion mask is incorrect")
    if labels[prompt_length:] != ids[prompt_length:]:
        raise UserError("training check: the answer's labels are not its tokens")
    if ids[-1] != tokenizer.eos_token_id:
        raise UserError(
            f"training check: the last label is {tokenizer.decode(ids[-1:])!r}, not the stop token "
            f"{tokenizer.eos_token!r}"
        )
    if len(ids) > 1 and tokenizer.bos_token_id is not None and ids[:2] == [tokenizer.bos_token_id] * 2:
        raise UserError(
            f"training check: the sequence begins twice with {tokenizer.bos_token!r}; "
            "template and tokenizer both add it"
        )
