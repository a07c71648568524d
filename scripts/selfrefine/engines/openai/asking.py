"""Asks a served model for many completions at once, in one event loop, and keeps each answer."""

import asyncio
import collections
import contextlib
import signal
import sys
import time
from collections.abc import Iterator

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tqdm import tqdm

from selfrefine.engines.interface import Request
from selfrefine.engines.openai.answer_store import AnswerStore
from selfrefine.engines.openai.bodies import KeptAnswer
from selfrefine.engines.openai.budget import Exhausted, Reservations
from selfrefine.engines.openai.pace import Pace
from selfrefine.engines.openai.retries import Patience, delay_after, failure_of
from selfrefine.engines.openai.token_counts import Tokens, most
from selfrefine.engines.openai.transport import Again, OtherField, Transport
from selfrefine.errors import UserError


class Asking:
    """One run over a list of requests; `events` counts requests, failures by reason, and lost answers."""

    def __init__(
        self, transport: Transport, store: AnswerStore, requests: list[Request], events: collections.Counter[str]
    ):
        self.transport = transport
        self.server = transport.server
        self.store = store
        self.events = events
        self.queue = collections.deque(requests)
        self.total = len(requests)
        self.answered = 0
        self.made = 0
        self.latest = time.monotonic()
        self.failed: dict[str, str] = {}
        self.fault: BaseException | None = None
        self.pace = Pace(self.server)
        self.stopping = asyncio.Event()
        self.unsynced = asyncio.Event()
        self.reservations = Reservations(self.server.budget, store, self.stopping)

    async def run(self) -> None:
        """Answers all that can be answered; what prevented the rest is in `fault`."""
        with (
            tqdm(
                total=self.total, desc="ask", unit="answer", mininterval=5, dynamic_ncols=False, ncols=110
            ) as self.bar,
            self._signals(),
        ):
            async with self._open_session() as self.session:
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
                f"{self.server.patience:g} s, {name} first ({reason}); the answers so far are kept in "
                f"{self.store.folder}, run "
                "again to ask for the rest"
            )

    def _open_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            # A connection serves one request: on a kept one, surplus bytes from a server or proxy would be taken for
            # the next request's answer. Compared with the time that a completion takes, a handshake is nothing.
            connector=aiohttp.TCPConnector(force_close=True, limit=0),
            headers=self.transport.headers(),
            timeout=aiohttp.ClientTimeout(total=self.server.timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """A first signal lets the requests in flight be answered, which are paid for; a second one does not."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        numbers = (signal.SIGINT, signal.SIGTERM)

        def stop() -> None:
            if self.fault and task:
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
        """Syncs appended answers to the disk, all together that arrived while the disk was busy."""
        while True:
            await self.unsynced.wait()
            self.unsynced.clear()
            try:
                await asyncio.to_thread(self.store.sync)
            except UserError as error:
                self._stop(error)

    async def _work(self) -> None:
        while self.queue and not self.stopping.is_set():
            try:
                await self._answer(self.queue.popleft())
            except UserError as error:
                self._stop(error)

    def _stop(self, fault: BaseException) -> None:
        if self.fault is None:
            self.fault = fault
        self.stopping.set()

    async def _answer(self, request: Request) -> None:
        """Asks until there is an answer, patience ends, or the run does."""
        patience = Patience(self.server.patience)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Again),
            after=self._count,
            wait=delay_after,
            stop=patience,
            before_sleep=self._hold,
            sleep=self._pause,
            retry_error_callback=lambda state: self._give_up(request, failure_of(state).reason, patience.since),
        )
        await retrying(self._attempt, request)

    async def _attempt(self, request: Request) -> None:
        """Asks once; returns without an answer if the run ends."""
        need = most(request)
        try:
            while await self.reservations.reserve(need):
                with contextlib.suppress(OtherField):
                    return await self._send(request, need)
        except Exhausted:
            raise UserError(
                f"{self.transport.served}: the budget ends here: spent {self.reservations.spent()}, and the next "
                "request may "
                f"take {need.total} tokens; {self.total - self.answered} of {self.total} requests are left to ask; "
                "raise the "
                f"teacher's server.budget and run again, what is answered is kept in {self.store.folder}"
            ) from None

    async def _send(self, request: Request, need: Tokens) -> None:
        """Sends a request for which tokens are reserved, and keeps the answer."""
        charged = Tokens()
        try:
            await self._pause(self.pace.delay(need.total))
            while (left := self.pace.held_for()) > 0 and not self.stopping.is_set():
                await self._pause(left)
            if self.stopping.is_set():
                return
            self.store.append({"sent": request.key, "most": [need.prompt, need.made]})
            self.events["requests"] += 1
            # Until we know better: an answer that is lost may cost as much.
            charged = need
            try:
                row = self.transport.hide(await self.transport.send(self.session, request))
            except (Again, OtherField, UserError) as failure:
                if not (isinstance(failure, Again) and failure.charged):
                    charged = Tokens()
                    self.store.append({"freed": request.key})
                raise
            self.store.append(row)
            charged = Tokens(row["prompt_tokens"], row["tokens"]) if row["counted"] else need
            self._keep(row, need)
        finally:
            self.store.spent += charged
            await self.reservations.release(need)

    def _keep(self, row: KeptAnswer, need: Tokens) -> None:
        self.store.answers[row["key"]] = row
        self.pace.credit(need.total - row["prompt_tokens"] - row["tokens"])
        self.unsynced.set()
        self.answered += 1
        self.latest = time.monotonic()
        self.made += row["tokens"]
        speed = self.made / max(self.bar.format_dict["elapsed"], 1e-9)
        self.bar.set_postfix_str(f"{speed:.0f} tokens/s", refresh=False)
        self.bar.update()

    def _count(self, state: RetryCallState) -> None:
        self.events[failure_of(state).reason] += 1
        self.events["lost"] += failure_of(state).charged

    def _hold(self, state: RetryCallState) -> None:
        if wait := failure_of(state).wait:
            self.pace.hold(wait)

    def _give_up(self, request: Request, reason: str, since: float | None) -> None:
        """Leaves a request without an answer; ends the run if no other one got an answer in that time either."""
        self.failed[request.id] = reason
        if since is not None and self.latest <= since:
            self._stop(
                UserError(
                    f"{self.server.endpoint}: no answer for {self.server.patience:g} s, {request.id}: {reason}; "
                    f"{self.answered} of {self.total} are answered and kept in {self.store.folder}; see to the "
                    "server, or "
                    "raise the teacher's server.patience, and run again"
                )
            )

    async def _pause(self, seconds: float) -> None:
        """Sleeps, but not beyond the end of the run."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), seconds)

    def report(self) -> str:
        """One line about what was asked, what went wrong, and what has been spent."""
        events = dict(self.events)
        requests, lost = events.pop("requests", 0), events.pop("lost", 0)
        parts = [f"{self.transport.served}: {self.answered} of {self.total} answered with {requests} requests"]
        if events:
            parts.append("tried again: " + ", ".join(f"{count} × {reason}" for reason, count in sorted(events.items())))
        if lost:
            parts.append(f"{lost} answers were lost on the way and may have been charged")
        spent = self.store.spent
        price = self.server.budget.price(spent.prompt, spent.made)
        money = "" if price is None else f" ({price:.4f} in money)"
        parts.append(f"spent in all, with {self.store.folder}: {spent.total} tokens{money}")
        return "; ".join(parts)
