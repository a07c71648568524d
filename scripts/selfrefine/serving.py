"""How a server that speaks the chat-completions protocol is asked: address, pace, patience, budget.

Nothing here shapes a completion, so nothing here is part of a recipe: a changed price, limit or address reruns nothing.
"""

import dataclasses
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from selfrefine.engines import Request

OWN_FIELDS = (
    *("model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed"),
    *("n", "stream", "tools", "functions"),
)


class Strict(BaseModel):
    """Refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Prices(Strict):
    """What a million tokens cost, in any one currency."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)

    def of(self, prompt: int, made: int) -> float:
        """The price of some tokens read and made."""
        return (prompt * self.input + made * self.output) / 1e6


class Budget(Strict):
    """What may be spent on one served model in all, by every run that shares its store; null: no limit."""

    tokens: int | None = Field(None, gt=0, description="Tokens read and made.")
    money: float | None = Field(None, gt=0, description="In the currency of the prices.")
    prices: Prices | None = None

    @model_validator(mode="after")
    def _has_prices(self):
        if self.money is not None and self.prices is None:
            raise ValueError("money needs prices: what a million tokens of input and of output cost")
        return self


class Server(Strict):
    """Where and how a served teacher is asked."""

    # The address is no part of the recipe. The same weights move between ports, nodes and providers, above all on a cluster,
    # where a server's node changes with each of its jobs; asking a paid teacher anew because of that would be wrong far more
    # often than right. Where one name hides different weights, the teacher's `revision` tells them apart.
    endpoint: str = Field("https://api.openai.com/v1", description="The address that /chat/completions is added to.")
    key_variable: str = Field(
        "OPENAI_API_KEY", pattern="^[A-Za-z_][A-Za-z0-9_]*$", description="The environment variable with the API key."
    )
    concurrency: int = Field(8, gt=0, description="Requests in flight at once.")
    timeout: float = Field(300, gt=0, description="Seconds until a request counts as lost.")
    patience: float = Field(900, gt=0, description="Seconds for which a failing request is tried again.")
    requests_per_minute: float | None = Field(None, gt=0)
    tokens_per_minute: float | None = Field(None, gt=0, description="Tokens read and made.")
    store: str = Field("completions", description="The folder that keeps every answer; studies may share one.")
    budget: Budget = Budget()

    @field_validator("endpoint")
    @classmethod
    def _is_plain_address(cls, endpoint: str) -> str:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an address such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must hold no credentials and no query; name the variable with the key in key_variable")
        return endpoint.rstrip("/").removesuffix("/chat/completions")


def check_extra(extra: dict) -> dict:
    """Refuses further fields of a request's body that the engine sets itself."""
    taken = sorted(extra.keys() & set(OWN_FIELDS))
    if taken:
        raise ValueError(f"{', '.join(taken)}: set by the engine from the prompt and `generation`, or not supported")
    return extra


@dataclasses.dataclass
class Tokens:
    """Tokens read and made."""

    prompt: int = 0
    made: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.prompt + other.prompt, self.made + other.made)

    def __sub__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.prompt - other.prompt, self.made - other.made)

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt + self.made


def estimated_tokens(text: str) -> int:
    """Tokens of a text without a tokenizer at hand: one per four characters, about right for English."""
    return -(-len(text) // 4)


def likely(request: Request) -> int:
    """Tokens that a request's prompt likely has: its characters / 4, and 4 for each message's frame."""
    return sum(estimated_tokens(message["content"]) + 4 for message in request.messages)


def most(request: Request) -> Tokens:
    """Tokens that a request can cost at most.

    No tokenizer makes more tokens of a text than it has bytes; 64, and 16 a message, are for what the chat template adds.
    """
    prompt = 64 + sum(len(message["content"].encode()) + 16 for message in request.messages)
    return Tokens(prompt, request.generation.max_tokens)
