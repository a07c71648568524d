"""Token ids of prompts and completions as the model would generate them, and checks of examples."""

import functools
import unicodedata
from typing import TYPE_CHECKING

from selfrefine.answers.extraction import THOUGHT
from selfrefine.errors import UserError
from selfrefine.models.chat_templates import frame_of, render
from selfrefine.schema.rows import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The label of a token that carries no loss.
IGNORED = -100


def encode_completion(
    tokenizer: "PreTrainedTokenizerBase", chat: list[Message], text: str, finished: bool = True
) -> list[int]:
    """The token ids that a model would have generated to answer `chat` with `text`, the stop token last.

    They are the text's own, between what the chat template puts around an answer. What the template adds after the
    stop token is left out, because generation ends there. A completion that was cut at max_tokens (`finished` False)
    has nothing behind the text to learn. A special token that the text spells out is text. Where the template's prompt
    opens a thought, the `<think>` that begins a text is left out.
    """
    before, after, is_within = frame_of(tokenizer, chat)
    # The thought that such a prompt opens is not opened again.
    text = text.removeprefix(THOUGHT[0]).lstrip("\n") if is_within and text.startswith(THOUGHT[0]) else text
    # Only white space that closes an answer can be one token with its end.
    space = after[: len(after) - len(after.lstrip())] if finished else ""
    written = before + text + space
    ids = _ids(tokenizer, written, as_text=_spells_special(tokenizer, text))
    if not finished:
        return ids
    return ids + _ids(tokenizer, after[len(space) :]) + [tokenizer.eos_token_id]


def _ids(tokenizer: "PreTrainedTokenizerBase", text: str, as_text: bool = False) -> list[int]:
    options = {"split_special_tokens": True} if as_text else {}
    return list(tokenizer(text, add_special_tokens=False, **options)["input_ids"]) if text else []


def _spells_special(tokenizer: "PreTrainedTokenizerBase", text: str) -> bool:
    return any(token in text for token in _special_tokens(tokenizer))


@functools.cache
def _special_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Named ones, and others that decoding leaves out."""
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    return sorted({*tokenizer.all_special_tokens, *added})


def is_given_back(tokenizer: "PreTrainedTokenizerBase", text: str) -> bool:
    """Whether the tokens of a text decode to it, up to Unicode's normal form and to white space around it."""
    ids = _ids(tokenizer, text, as_text=_spells_special(tokenizer, text))
    found = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return _normal(found) == _normal(text)


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip()


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", chat: list[Message]) -> list[int]:
    """A chat's token ids as the engines see them."""
    return _ids(tokenizer, render(tokenizer, chat))


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
