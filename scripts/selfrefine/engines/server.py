"""The `openai` engine: asks any server that speaks the chat-completions protocol (OpenAI, vLLM, TGI, llama.cpp).

Each answer is in the store before anything else happens to it. What the server could not answer for now (429, 5xx, time-outs,
broken connections and bodies) is asked again after a random, growing delay; what no repetition mends (other 4xx) ends the
run at once, as does the budget before it is exceeded. Requests already in flight are waited for, since they are paid for.
"""

import asyncio
import collections
import contextlib
import random
import signal
import sys
import time
from pathlib import Path

from tqdm import tqdm

from selfrefine.engines import Completion, Request
from selfrefine.engines.chat import completion_of
from selfrefine.engines.store import Store
from selfrefine.engines.wire import Again, OtherField, Wire
from selfrefine.errors import UserError
from selfrefine.serving import Server, Tokens, most

# Seconds: the first delay is up to the first, later ones up to the second.
FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0


class ServerEngine:
    """Asks a served model; `key` is the API key, None for servers that want none, and `proxy` a proxy's address."""

    def __init__(
        self,
        server: Server,
        served: str,
        revision: str = "",
        extra: dict | None = None,
        key: str | None = None,
        proxy: str | None = None,
    ):
        self.server = server
        self.served = served
        self.extra = extra or {}
        self.wire = Wire(server, served, self.extra, key, proxy)
        self.identity = {"engine": "openai", "served": served, "revision": revision, "extra": self.extra}
        self.store = Store(Path(server.store), self.identity)
        self.made = 0
        self.events: collections.Counter = collections.Counter()

    def batches(self, requests: list[Request]) -> list[list[Request]]:
        """One batch: the store, not the stage's journal, keeps what is done."""
        return [requests] if requests else []

    def missing(self, requests: list[Request]) -> list[Request]:
        """The requests that the store does not answer, one of each key."""
        self.store.read()
        return list({r.key: r for r in requests if r.key not in self.store.answers}.values())

    def generate(self, batch: list[Request]) -> list[Completion]:
        """The completions of one batch, from the store or asked now; `UserError` if some are missing at the end."""
        if self.missing(batch):
            with self.store.held():
                if missing := self.missing(batch):
                    self._ask(missing)
        return [completion_of(self.store.answers[request.key]) for request in batch]

    def report(self, requests: list[Request]) -> dict:
        """Counts for the record: tokens made now and taken from the store, and of all answers what is odd about them."""
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
        asking = _Asking(self, missing)
        try:
            asyncio.run(asking.run())
        finally:
            self.store.close()
            asking.say()
        if asking.fault:
            raise asking.fault


class _Asking:
    """One go at a list of requests, all within one event loop."""

    def __init__(self, engine: ServerEngine, requests: list[Request]):
        self.engine = engine
        self.server = engine.server
        self.store = engine.store
        self.queue = collections.deque(requests)
        self.total = len(requests)
        self.answered = 0
        self.latest = time.monotonic()
        self.reserved = Tokens()
        self.failed: dict[str, str] = {}
        self.fault: BaseException | None = None
        self.pace = _Pace(self.server)

    async def run(self) -> None:
        """Answers all that can be answered; what kept it from the rest is in `fault`."""
        import aiohttp

        self.stopping = asyncio.Event()
        self.settled = asyncio.Condition()
        self.unsynced = asyncio.Event()
        # A connection serves one request: on a kept one, bytes that a server or proxy sends too many would be taken for the
        # next request's answer. Against the time that a completion takes, a handshake is nothing.
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        options = {"timeout": aiohttp.ClientTimeout(total=self.server.timeout), "cookie_jar": aiohttp.DummyCookieJar()}
        with (
            tqdm(
                total=self.total, desc="ask", unit="answer", mininterval=5, dynamic_ncols=False, ncols=110
            ) as self.bar,
            self._signals(),
        ):
            async with aiohttp.ClientSession(
                connector=connector, headers=self.engine.wire.headers(), **options
            ) as self.session:
                syncing = asyncio.create_task(self._sync())
                workers = [asyncio.create_task(self._work()) for _ in range(min(self.server.concurrency, self.total))]
                try:
                    await asyncio.gather(*workers)
                finally:
                    for task in (syncing, *workers):
                        task.cancel()
        if self.failed and self.fault is None:
            name, reason = next(iter(self.failed.items()))
            self.fault = UserError(
                f"{self.server.endpoint}: {len(self.failed)} of {self.total} requests got no answer within "
                f"{self.server.patience:g} s, {name} first ({reason}); the answers so far are kept in {self.store.folder}, run "
                "again to ask for the rest"
            )

    @contextlib.contextmanager
    def _signals(self):
        """A first signal lets the requests in flight be answered, which are paid for; a second one does not."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        numbers = (signal.SIGINT, signal.SIGTERM)

        def stop() -> None:
            if self.fault:
                task.cancel()
                return
            waiting = (
                f"waiting up to {self.server.timeout:g} s for the requests in flight; interrupt again to drop them"
            )
            print(f"\ninterrupted: {waiting}", file=sys.stderr, flush=True)
            self._stop(KeyboardInterrupt())

        # Only the main thread may handle signals.
        with contextlib.suppress(ValueError, RuntimeError):
            for number in numbers:
                loop.add_signal_handler(number, stop)
        try:
            yield
        finally:
            with contextlib.suppress(ValueError, RuntimeError):
                for number in numbers:
                    loop.remove_signal_handler(number)

    async def _sync(self) -> None:
        """Brings what was appended to the disk, together all that came while the disk was busy."""
        while True:
            await self.unsynced.wait()
            self.unsynced.clear()
            try:
                await asyncio.to_thread(self.store.sync)
            except UserError as error:
                self._stop(error)

    async def _work(self) -> None:
        while self.queue and not self.stopping.is_set():
            request = self.queue.popleft()
            try:
                await self._answer(request)
            except UserError as error:
                self._stop(error)

    def _stop(self, fault: BaseException) -> None:
        if self.fault is None:
            self.fault = fault
        self.stopping.set()

    async def _answer(self, request: Request) -> None:
        """Asks until there is an answer, patience ends, or the run does."""
        need = most(request)
        attempt, since = 0, None
        while await self._reserve(need):
            charged = arrived = False
            try:
                await self._pause(self.pace.delay(need.total))
                await self._pause_while_told()
                if self.stopping.is_set():
                    return
                self.store.append({"sent": request.key, "most": [need.prompt, need.made]})
                self.engine.events["requests"] += 1
                charged = True
                row = self.engine.wire.hide(await self.engine.wire.send(self.session, request))
                arrived = True
                self.store.append(row)
                self._keep(row, need)
                charged = False
                return
            except OtherField:
                charged = False
                self.store.append({"freed": request.key})
                continue
            except Again as again:
                charged = again.charged
                if not charged:
                    self.store.append({"freed": request.key})
                fault = again
            except UserError:
                # The server's last word on the request: it was not carried out.
                if charged and not arrived:
                    charged = False
                    self.store.append({"freed": request.key})
                raise
            finally:
                self.store.spent += need if charged else Tokens()
                await self._release(need)
            now = time.monotonic()
            since = since or now
            self.engine.events[fault.reason] += 1
            self.engine.events["lost"] += fault.charged
            delay = max(fault.wait, random.uniform(0, min(LONGEST_DELAY, FIRST_DELAY * 2**attempt)))
            attempt += 1
            if now + delay - since > self.server.patience:
                self._give_up(request, fault.reason, since)
                return
            if fault.wait:
                self.pace.hold(fault.wait)
            await self._pause(delay)

    def _keep(self, row: dict, need: Tokens) -> None:
        self.store.answers[row["key"]] = row
        self.store.spent += Tokens(row["prompt_tokens"], row["tokens"]) if row["counted"] else need
        self.pace.credit(need.total - row["prompt_tokens"] - row["tokens"])
        self.unsynced.set()
        self.answered += 1
        self.latest = time.monotonic()
        self.engine.made += row["tokens"]
        speed = self.engine.made / max(self.bar.format_dict["elapsed"], 1e-9)
        self.bar.set_postfix_str(f"{speed:.0f} tokens/s", refresh=False)
        self.bar.update()

    def _give_up(self, request: Request, reason: str, since: float) -> None:
        """Sets a request aside; ends the run if nothing else was answered meanwhile either."""
        self.failed[request.id] = reason
        if self.latest <= since:
            self._stop(
                UserError(
                    f"{self.server.endpoint}: no answer for {self.server.patience:g} s, {request.id}: {reason}; "
                    f"{self.answered} of {self.total} are answered and kept in {self.store.folder}; see to the server, or "
                    "raise the teacher's server.patience, and run again"
                )
            )

    # Limits.

    async def _reserve(self, need: Tokens) -> bool:
        """Sets tokens aside for a request; waits while those in flight may still leave enough. False where none will."""
        async with self.settled:
            while not self.stopping.is_set():
                if self._fits(self.store.spent + self.reserved + need):
                    self.reserved += need
                    return True
                if not self.reserved.total:
                    self._stop(self._exhausted(need))
                    break
                await self.settled.wait()
            self.settled.notify_all()
        return False

    async def _release(self, need: Tokens) -> None:
        async with self.settled:
            self.reserved -= need
            self.settled.notify_all()

    def _fits(self, tokens: Tokens) -> bool:
        budget = self.server.budget
        if budget.tokens is not None and tokens.total > budget.tokens:
            return False
        return budget.money is None or budget.prices.of(tokens.prompt, tokens.made) <= budget.money

    def _exhausted(self, need: Tokens) -> UserError:
        budget, spent = self.server.budget, self.store.spent
        parts = [f"{spent.total} of {budget.tokens} tokens"] if budget.tokens is not None else []
        if budget.money is not None:
            parts.append(f"{budget.prices.of(spent.prompt, spent.made):.4f} of {budget.money:g} in money")
        return UserError(
            f"{self.engine.served}: the budget ends here: spent {' and '.join(parts)}, and the next request may take "
            f"{need.total} tokens; {self.total - self.answered} of {self.total} requests are left to ask; raise the teacher's "
            f"server.budget and run again, what is answered is kept in {self.store.folder}"
        )

    async def _pause(self, seconds: float) -> None:
        """Sleeps, but not beyond the end of the run."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), seconds)

    async def _pause_while_told(self) -> None:
        while (left := self.pace.held_for()) > 0 and not self.stopping.is_set():
            await self._pause(left)

    def say(self) -> None:
        """One line on stderr about what was asked, what went wrong, and what has been spent."""
        events = dict(self.engine.events)
        requests, lost = events.pop("requests", 0), events.pop("lost", 0)
        parts = [f"{self.engine.served}: {self.answered} of {self.total} answered with {requests} requests"]
        if events:
            parts.append("tried again: " + ", ".join(f"{count} × {reason}" for reason, count in sorted(events.items())))
        if lost:
            parts.append(f"{lost} answers were lost on the wire and may have been charged")
        spent, prices = self.store.spent, self.server.budget.prices
        money = f" ({prices.of(spent.prompt, spent.made):.4f} in money)" if prices else ""
        parts.append(f"spent in all, with {self.store.folder}: {spent.total} tokens{money}")
        print("; ".join(parts), file=sys.stderr, flush=True)


class _Pace:
    """When the next request may go out: evenly spread, so that limits hold within any part of a minute."""

    def __init__(self, server: Server):
        self.per_request = 60 / server.requests_per_minute if server.requests_per_minute else 0.0
        self.per_token = 60 / server.tokens_per_minute if server.tokens_per_minute else 0.0
        self._next_request = self._next_tokens = self._held_until = 0.0

    def delay(self, tokens: int) -> float:
        """Seconds until a request that may take so many tokens may go out; its place is taken."""
        now = time.monotonic()
        start = max(now, self._next_request, self._next_tokens)
        self._next_request = start + self.per_request
        self._next_tokens = start + tokens * self.per_token
        return start - now

    def credit(self, tokens: int) -> None:
        """Gives back tokens that were reckoned with and not used."""
        self._next_tokens -= tokens * self.per_token

    def hold(self, seconds: float) -> None:
        """Lets nothing go out for so long: a limit that one request ran into is every request's."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)

    def held_for(self) -> float:
        """Seconds for which nothing may go out."""
        return self._held_until - time.monotonic()
