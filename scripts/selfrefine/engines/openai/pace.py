"""Decides when the next request may go out, so that the limits per minute hold."""

import time

from selfrefine.schema.server import Server


class Pace:
    """Spreads requests evenly, so that the limits hold within any part of a minute as well."""

    def __init__(self, server: Server):
        self.per_request = 60 / server.requests_per_minute if server.requests_per_minute else 0.0
        self.per_token = 60 / server.tokens_per_minute if server.tokens_per_minute else 0.0
        self._next_request = self._next_tokens = self._held_until = 0.0

    def delay(self, tokens: int) -> float:
        """Seconds until a request that may take so many tokens may go out; takes that time slot."""
        now = time.monotonic()
        start = max(now, self._next_request, self._next_tokens)
        self._next_request = start + self.per_request
        self._next_tokens = start + tokens * self.per_token
        return start - now

    def credit(self, tokens: int) -> None:
        """Gives back tokens that were planned and not used."""
        self._next_tokens -= tokens * self.per_token

    def hold(self, seconds: float) -> None:
        """Holds all requests for so long: a limit that one request hits holds for every request."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)

    def held_for(self) -> float:
        """Seconds for which nothing may go out."""
        return self._held_until - time.monotonic()
