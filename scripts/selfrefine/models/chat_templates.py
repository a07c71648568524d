"""Chat templates, the model's or the configuration's, rendered alike wherever a chat is encoded."""

import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from selfrefine.answers.extraction import THOUGHT
from selfrefine.errors import UserError
from selfrefine.schema.rows import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# For models that were never taught a chat format: each message on lines of its own, the answer closed by the stop token.
PLAIN = (
    "{{ bos_token or '' }}{% for message in messages %}{% if message['content'] %}{{ message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\\n' }}{% endif %}{% endfor %}"
)
# Some templates state the current date. One that never moves makes the prompts of a study the same on every day.
TODAY = datetime.datetime(2024, 7, 26)
# An answer that no template changes, to see what a template puts around one.
PROBE = "The answer is 5"


class Frame(NamedTuple):
    """What a chat template puts around an answer."""

    before: str
    """White space between the prompt and the answer."""
    after: str
    """What closes the turn, up to the stop token, which is not part of it."""
    within: bool
    """Whether the prompt ends within a thought that it opens."""


def choose_template(tokenizer: "PreTrainedTokenizerBase", chosen: str | None) -> None:
    """Gives a tokenizer the template of `students.NAME.chat_template`: `plain`, or a Jinja text; None: its own."""
    if chosen is not None:
        tokenizer.chat_template = PLAIN if chosen == "plain" else chosen


def render(tokenizer: "PreTrainedTokenizerBase", chat: list[Message], generation_prompt: bool = True) -> str:
    """A chat as the model reads it; `UserError` in one line where the template refuses it."""
    from jinja2 import TemplateError

    options: dict[str, Any] = {"tokenize": False, "strftime_now": TODAY.strftime}
    try:
        return str(tokenizer.apply_chat_template(chat, add_generation_prompt=generation_prompt, **options))
    except (TemplateError, TypeError, KeyError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        roles = [message["role"] for message in chat]
        advice = (
            "set `system: null`, or another `chat_template`" if "system" in roles else "set another `chat_template`"
        )
        raise UserError(
            f"the model's chat template refuses a chat of {' and '.join(roles)} ({reason}); {advice}"
        ) from error


def frame_of(tokenizer: "PreTrainedTokenizerBase", chat: list[Message]) -> Frame:
    """What the template puts around an answer to `chat`.

    Templates change answers: they cut thinking out or put an empty thought in. So only the frame is the template's.
    """
    prompt, bare = render(tokenizer, chat), render(tokenizer, chat, generation_prompt=False)
    whole = render(tokenizer, [*chat, {"role": "assistant", "content": PROBE}], generation_prompt=False)
    if PROBE not in whole or not whole.startswith((prompt, bare)):
        raise UserError(
            "the model's chat template does not render the prompt alone as the beginning of prompt and answer; "
            "training and generation would see different prompts: use a model with another template, or set "
            "`students.NAME.chat_template`"
        )
    start = whole.rindex(PROBE)
    between = whole[len(prompt) : start] if whole.startswith(prompt) else ""
    after, stop = whole[start + len(PROBE) :], str(tokenizer.eos_token)
    after = after[: after.rindex(stop)] if stop in after else after.rstrip("\n")
    return Frame("" if between.strip() else between, after, opens_thought(prompt))


def opens_thought(prompt: str) -> bool:
    """Whether a prompt ends within a thought that it opens, as some templates have it."""
    return prompt.rstrip().endswith(THOUGHT[0])
