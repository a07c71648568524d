"""How a server that speaks chat completions is asked: address, pace, patience, budget.

No completion depends on any of this, so none of it is part of a stage's settings: a changed price, limit or address
reruns nothing.
"""

import json
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from selfrefine.schema.base import Strict

OWN_FIELDS = (
    *("model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed"),
    *("n", "stream", "tools", "functions"),
)


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
    def _has_prices(self) -> Self:
        if self.money is not None and self.prices is None:
            raise ValueError("money needs prices: what a million tokens of input and of output cost")
        return self

    def price(self, prompt: int, made: int) -> float | None:
        """The price of some tokens read and made; None without prices."""
        return self.prices.of(prompt, made) if self.prices else None


class Server(Strict):
    """Where and how a served teacher is asked."""

    # The address is not part of the settings. The same weights move between ports, nodes and providers, above all on a
    # cluster, where a server's node changes with each of its jobs, and a paid teacher should not be asked again for
    # that. Where one name stands for different weights, the teacher's `revision` tells them apart.
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


def check_extra(extra: dict[str, Any]) -> dict[str, Any]:
    """Refuses further fields of a request's body that the engine sets itself."""
    taken = sorted(extra.keys() & set(OWN_FIELDS))
    if taken:
        raise ValueError(f"{', '.join(taken)}: set by the engine from the prompt and `generation`, or not supported")
    for name, value in extra.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError(
                f"{name}: {value!r} cannot be sent as JSON; use numbers that are finite, and quotes"
            ) from None
    return extra
