"""The chat-completions protocol: a request's body, and what an answer's body says."""

import datetime

from selfrefine.engines import Completion, Request
from selfrefine.serving import estimated_tokens, likely

ENDED = ("stop", "eos", "eos_token", "stop_sequence", "end_turn")
CUT = ("length", "max_tokens")
TOOLS = ("tool_calls", "function_call")
FILTERED = "content_filter"


class Malformed(Exception):
    """A body that holds no answer: cut off, not JSON, or without choices."""


def body_of(request: Request, served: str, extra: dict, limit_field: str = "max_tokens") -> dict:
    """A request's body; `limit_field` is what the server calls the limit on a completion's tokens."""
    settings = request.generation
    body = {
        "model": served,
        "messages": request.messages,
        limit_field: settings.max_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        **extra,
    }
    return body | ({"seed": request.seed} if settings.temperature else {})


def answer_of(request: Request, body: dict) -> dict:
    """What a store keeps of an answer's body; `Malformed` if it is none.

    {key, id, text, finish_reason, prompt_tokens, tokens, counted, unusable, model, fingerprint, response, at}: `counted` is
    false where the server gave no usage and the tokens are estimated; `unusable` says why there is no text, null where there is.
    """
    try:
        choice = body["choices"][0]
        message = choice["message"]
        reason = choice.get("finish_reason")
        text = _text(message.get("content")) or _text(message.get("reasoning_content") or message.get("reasoning"))
        refused = bool(message.get("refusal"))
    except (KeyError, IndexError, TypeError, AttributeError):
        raise Malformed("an answer without choices") from None
    usage = body.get("usage") if isinstance(body.get("usage"), dict) else {}
    prompt_tokens, tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
    counted = isinstance(prompt_tokens, int) and isinstance(tokens, int)
    if not counted:
        prompt_tokens, tokens = likely(request), estimated_tokens(text)
    unusable = None
    if reason == FILTERED or reason in TOOLS:
        unusable = FILTERED if reason == FILTERED else "tool_calls"
    elif refused and not text:
        unusable = "refusal"
    elif not text:
        unusable = "empty"
    at_limit = reason in CUT or (reason not in ENDED and tokens >= request.generation.max_tokens)
    return _row(request) | {
        "text": "" if unusable else text,
        "finish_reason": "length" if at_limit and unusable in (None, "empty") else "stop",
        "prompt_tokens": prompt_tokens,
        "tokens": tokens,
        "counted": counted,
        "unusable": unusable,
        "model": str(body.get("model") or ""),
        "fingerprint": str(body.get("system_fingerprint") or ""),
        "response": str(body.get("id") or ""),
    }


def filtered(request: Request) -> dict:
    """What a store keeps of a request that the server's content filter refused, without charge."""
    blank = {"text": "", "finish_reason": "stop", "prompt_tokens": 0, "tokens": 0, "counted": True}
    return _row(request) | blank | {"unusable": FILTERED, "model": "", "fingerprint": "", "response": ""}


def _row(request: Request) -> dict:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"key": request.key, "id": request.id, "at": now}


def _text(content) -> str:
    """A message's text; some servers send it in parts."""
    if isinstance(content, list):
        content = "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content.strip() if isinstance(content, str) else ""


def completion_of(row: dict) -> Completion:
    """A kept answer as a completion; one without text is an empty completion, which commits to no answer."""
    return Completion(row["text"], row["finish_reason"], row["tokens"], row["prompt_tokens"])


def is_filtered(error: dict) -> bool:
    """Whether an error says that the prompt ran into a content filter."""
    return error.get("code") in (FILTERED, "content_policy_violation")


def error_in(body) -> dict:
    """The error that a body tells of, {message, code, param, …}; empty where there is none."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, str):
        return {"message": error}
    if isinstance(error, dict):
        return error
    if isinstance(body, dict) and body.get("object") == "error":
        return body
    return {}
