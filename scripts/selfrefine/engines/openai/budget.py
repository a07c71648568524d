"""Keeps within the budget: tokens are set aside for each request before it goes out."""

import asyncio

from selfrefine.engines.openai.answer_store import AnswerStore
from selfrefine.engines.openai.token_counts import Tokens
from selfrefine.schema.server import Budget


class Exhausted(Exception):
    """The budget does not allow another request, even once those in flight are answered."""


class Reservations:
    """The tokens that requests in flight may take, on top of those that the store says are spent."""

    def __init__(self, budget: Budget, store: AnswerStore, stopping: asyncio.Event):
        self.budget = budget
        self.store = store
        self.stopping = stopping
        self.reserved = Tokens()
        self.settled = asyncio.Condition()

    async def reserve(self, need: Tokens) -> bool:
        """Sets tokens aside for a request; waits while those in flight may leave enough. False if the run ends."""
        async with self.settled:
            while not self.stopping.is_set():
                if self._fits(self.store.spent + self.reserved + need):
                    self.reserved += need
                    return True
                if not self.reserved.total:
                    self.settled.notify_all()
                    raise Exhausted
                await self.settled.wait()
            self.settled.notify_all()
        return False

    async def release(self, need: Tokens) -> None:
        """Ends a reservation; what the request has cost is counted as spent by then."""
        async with self.settled:
            self.reserved -= need
            self.settled.notify_all()

    def _fits(self, tokens: Tokens) -> bool:
        if self.budget.tokens is not None and tokens.total > self.budget.tokens:
            return False
        price = self.budget.price(tokens.prompt, tokens.made)
        return self.budget.money is None or price is None or price <= self.budget.money

    def spent(self) -> str:
        """What has been spent of the budget, for a message."""
        spent, budget = self.store.spent, self.budget
        parts = [f"{spent.total} of {budget.tokens} tokens"] if budget.tokens is not None else []
        if budget.money is not None:
            parts.append(f"{budget.price(spent.prompt, spent.made):.4f} of {budget.money:g} in money")
        return " and ".join(parts)
