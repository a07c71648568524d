"""The bodies of the chat-completions protocol: what a request says, and what an answer says."""

import datetime
from typing import Any, TypedDict

from selfrefine.engines.interface import Request
from selfrefine.engines.openai.token_counts import estimated_tokens, likely
from selfrefine.engines.stop_strings import cut
from selfrefine.schema.rows import FinishReason
from selfrefine.store.files import writable

ENDED = ("stop", "eos", "eos_token", "stop_sequence", "end_turn")
CUT = ("length", "max_tokens")
TOOLS = ("tool_calls", "function_call")
FILTERED = "content_filter"
# What stands around a thought in the text of an answer.
THINKING = ("<think>", "</think>")
# The stop strings that OpenAI takes in one request; answers are cut at the others when they arrive.
MOST_STOPS = 4


class Malformed(Exception):
    """A body that holds no answer: cut off, not JSON, or without choices."""


class KeptAnswer(TypedDict):
    """What a store keeps of an answer."""

    key: str
    id: str
    at: str
    text: str
    """Empty where the answer is `unusable`."""
    finish_reason: FinishReason
    prompt_tokens: int
    tokens: int
    counted: bool
    """False where the server gave no usage, so that the tokens are estimated."""
    unusable: str | None
    """Why there is no text; None where there is."""
    model: str
    fingerprint: str
    response: str
    """The server's id of the answer."""


def body_of(request: Request, served: str, extra: dict[str, Any], limit_field: str = "max_tokens") -> dict[str, Any]:
    """A request's body; `limit_field` is what the server calls the limit on a completion's tokens.

    Some servers take temperature or top_p, not both, and some neither: what is null, or changes nothing, is left out.
    """
    settings = request.generation
    body: dict[str, Any] = {"model": served, "messages": request.messages, limit_field: settings.max_tokens}
    body |= {} if settings.temperature is None else {"temperature": settings.temperature}
    body |= {} if settings.top_p == 1 else {"top_p": settings.top_p}
    body |= extra | ({"seed": request.seed} if settings.temperature else {})
    return body | ({"stop": list(request.stop[:MOST_STOPS])} if request.stop else {})


def answer_of(request: Request, body: dict[str, Any]) -> KeptAnswer:
    """What to keep of an answer's body; `Malformed` if it is none."""
    try:
        choice = body["choices"][0]
        message = choice["message"]
        reason = choice.get("finish_reason")
        # Servers differ in whether they keep the string, and in how many they look for.
        content, stopped = cut(_text(message.get("content")), request.stop)
        content = content.strip()
        thought = _text(message.get("reasoning_content") or message.get("reasoning"))
        refused = bool(message.get("refusal"))
    except (KeyError, IndexError, TypeError, AttributeError):
        raise Malformed("an answer without choices") from None
    usage = _usage(body)
    prompt_tokens, tokens = usage or (likely(request), estimated_tokens(content or thought))
    # Where nothing follows a thought, servers differ in what they call its end.
    unfinished = content.rfind(THINKING[0]) > content.rfind(THINKING[1])
    has_ended = reason in ENDED and content and not unfinished
    at_limit = reason in CUT or unfinished or (not has_ended and tokens >= request.generation.max_tokens)
    text = content or ("" if at_limit else thought)
    unusable = _why_unusable(reason, refused, text)
    return {
        "key": request.key,
        "id": request.id,
        "at": _now(),
        "text": "" if unusable else text,
        "finish_reason": "length" if at_limit and not stopped and unusable in (None, "empty") else "stop",
        "prompt_tokens": prompt_tokens,
        "tokens": tokens,
        "counted": usage is not None,
        "unusable": unusable,
        "model": writable(str(body.get("model") or "")),
        "fingerprint": writable(str(body.get("system_fingerprint") or "")),
        "response": writable(str(body.get("id") or "")),
    }


def filtered(request: Request) -> KeptAnswer:
    """What to keep of a request that the server's content filter refused, without charge."""
    return {
        "key": request.key,
        "id": request.id,
        "at": _now(),
        "text": "",
        "finish_reason": "stop",
        "prompt_tokens": 0,
        "tokens": 0,
        "counted": True,
        "unusable": FILTERED,
        "model": "",
        "fingerprint": "",
        "response": "",
    }


def _usage(body: dict[str, Any]) -> tuple[int, int] | None:
    """Tokens read and made; None where the server does not say."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt_tokens, tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if type(prompt_tokens) is not int or type(tokens) is not int or min(prompt_tokens, tokens) < 0:
        return None
    return prompt_tokens, tokens


def _why_unusable(reason: str | None, refused: bool, text: str) -> str | None:
    if reason == FILTERED:
        return FILTERED
    if reason in TOOLS:
        return "tool_calls"
    if refused and not text:
        return "refusal"
    return None if text else "empty"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _text(content: object) -> str:
    """A message's text; some servers send it in parts."""
    if isinstance(content, list):
        texts = (part.get("text") if isinstance(part, dict) else part for part in content)
        content = "".join(text for text in texts if isinstance(text, str))
    return writable(content) if isinstance(content, str) and content.strip() else ""


def is_filtered(error: dict[str, Any]) -> bool:
    """Whether an error says that a content filter refused the prompt."""
    return error.get("code") in (FILTERED, "content_policy_violation")


def error_in(body: object) -> dict[str, Any]:
    """The error in a body, {message, code, param, …}; empty where there is none."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, str):
        return {"message": error}
    if isinstance(error, dict):
        return error
    if isinstance(body, dict) and body.get("object") == "error":
        return body
    return {}
