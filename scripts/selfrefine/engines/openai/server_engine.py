"""The `openai` engine: asks a server that speaks chat completions (OpenAI, vLLM, TGI, llama.cpp).

Each answer is in the store before anything else happens to it. Requests that the server could not answer for now (429,
5xx, time-outs, broken connections and bodies) are tried again after a random, growing delay. An error that no
repetition solves (other 4xx) ends the run at once, and so does the budget before it is exceeded. Requests in flight are
then waited for, since they are paid for.
"""

import asyncio
import collections
import sys
from pathlib import Path
from typing import Any

from selfrefine.engines.interface import Completion, Request
from selfrefine.engines.openai.answer_store import AnswerStore
from selfrefine.engines.openai.transport import Transport
from selfrefine.schema.server import Server


class ServerEngine:
    """Asks a served model; `key` is the API key, None for servers that want none, and `proxy` a proxy's address."""

    def __init__(
        self,
        server: Server,
        served: str,
        revision: str = "",
        extra: dict[str, Any] | None = None,
        key: str | None = None,
        proxy: str | None = None,
    ):
        self.server = server
        self.served = served
        self.extra = extra or {}
        self.transport = Transport(server, served, self.extra, key, proxy)
        self.identity = {"engine": "openai", "served": served, "revision": revision, "extra": self.extra}
        self.store = AnswerStore(Path(server.store), self.identity)
        self.made = 0
        self.events: collections.Counter[str] = collections.Counter()

    def batches(self, requests: list[Request]) -> list[list[Request]]:
        """One batch: the store, not the stage's journal, keeps what is done."""
        return [requests] if requests else []

    def missing(self, requests: list[Request]) -> list[Request]:
        """The requests that the store does not answer, one of each key."""
        self.store.read()
        return list({r.key: r for r in requests if r.key not in self.store.answers}.values())

    def rendered(self, request: Request) -> str | None:
        """None: a server does not say what its model reads, and goes on with no answer."""
        return None

    def generate(self, batch: list[Request]) -> list[Completion]:
        """The completions of one batch, from the store or asked for now; `UserError` if some are missing at the end."""
        if self.missing(batch):
            with self.store.held():
                if missing := self.missing(batch):
                    self._ask(missing)
        # An answer without text is an empty completion, from which no answer is extracted.
        return [Completion.of(self.store.answers[request.key]) for request in batch]

    def report(self, requests: list[Request]) -> dict[str, Any]:
        """Counts for the record: tokens made now and taken from the store, and the answers that are odd."""
        if not self.store.answers:
            self.store.read()
        answers = {r.key: self.store.answers[r.key] for r in requests if r.key in self.store.answers}
        rows = answers.values()
        unusable = collections.Counter(row["unusable"] for row in rows if row["unusable"])
        return {
            "tokens_made": self.made,
            "tokens_replayed": sum(row["tokens"] for row in rows) - self.made,
            "unusable": dict(sorted(unusable.items())),
            "without_usage": sum(not row["counted"] for row in rows),
            "answered_by": dict(sorted(collections.Counter(row["model"] for row in rows).items())),
        }

    def _ask(self, missing: list[Request]) -> None:
        # It imports aiohttp and tenacity, which a command that only reads the store need not wait for.
        from selfrefine.engines.openai.asking import Asking

        asking = Asking(self.transport, self.store, missing, self.events)
        try:
            asyncio.run(asking.run())
        finally:
            self.made += asking.made
            self.store.close()
            print(asking.report(), file=sys.stderr, flush=True)
        if asking.fault:
            raise asking.fault
