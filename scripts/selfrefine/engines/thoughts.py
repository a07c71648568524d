"""What becomes of thoughts, `<think>…</think>`: kept, stripped, or ended after a number of tokens.

A thought that reaches its budget is closed, and the model goes on from there with its answer: budget forcing, as in s1
(arXiv 2501.19393).
"""

import dataclasses

from selfrefine.answers.extraction import THOUGHT, after_thoughts
from selfrefine.engines.interface import Completion, Engine, Request
from selfrefine.models.chat_templates import opens_thought
from selfrefine.schema.generation import Budget

OPENS, CLOSES = THOUGHT


def within_budget(request: Request, engine: Engine) -> Request:
    """The request with which a budgeted one begins; the request itself where the engine cannot continue an answer."""
    if not isinstance(request.thinking, Budget) or engine.rendered(request) is None:
        return request
    most = min(request.thinking.budget, request.generation.max_tokens)
    generation = request.generation.model_copy(update={"max_tokens": most})
    return dataclasses.replace(request, generation=generation, thinking="keep")


def continued(request: Request, made: Completion, engine: Engine) -> Request | None:
    """The request for what follows the beginning of a budgeted one, its thought closed; None where it is whole."""
    left = request.generation.max_tokens - made.tokens
    prompt = engine.rendered(request) if isinstance(request.thinking, Budget) else None
    if prompt is None or made.finish_reason != "length" or left <= 0:
        return None
    begun = _closed(made.text)
    begun = begun.removeprefix(OPENS).lstrip("\n") if opens_thought(prompt) else begun
    return Request(
        id=f"{request.id}-after",
        messages=[{"role": "user", "content": prompt + begun}],
        generation=request.generation.model_copy(update={"max_tokens": left}),
        seed=request.seed + 1,
        stop=request.stop,
        raw=True,
    )


def finished(request: Request, made: Completion, more: Completion | None) -> Completion:
    """The completion of a request: what was made, what followed, and without thoughts where they are stripped."""
    if more is not None:
        text = _closed(made.text) + more.text
        text = text if request.raw else text.strip()
        made = Completion(text, more.finish_reason, made.tokens + more.tokens, made.prompt_tokens)
    if request.thinking != "strip":
        return made
    answer = after_thoughts(made.text)
    if answer is None:
        return dataclasses.replace(made, text="", finish_reason="length")
    return dataclasses.replace(made, text=answer if request.raw else answer.strip())


def _closed(text: str) -> str:
    """A text whose thought, if it is within one, has an end."""
    return text if after_thoughts(text) is not None else f"{text}\n{CLOSES}\n\n"
