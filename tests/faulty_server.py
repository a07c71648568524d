"""A chat-completions server on loopback that fails in every way that servers and networks do, and keeps count.

It knows what it charged for: `answered` counts, by question, answers sent whole; `lost` those that it made and that did
not arrive whole. A connection serves one request.
"""

import asyncio
import collections
import contextlib
import email.utils
import hashlib
import json
import random
import threading
import time
from collections.abc import Callable

# What may happen to a request instead of an answer: without charge, or with one.
FREE = ("429 seconds", "429 date", "500", "503 later", "echo of the key", "too many")
CHARGED = ("hang", "cut JSON", "dropped", "reset", "HTML", "no choices")
# Answers that are correct but unlike others.
ODD = ("repeated", "no usage", "parts", "empty", "null", "tool_calls", "content_filter", "plain type", "reasoning")


def answer_to(question: str) -> str:
    """The answer to a question, and to no other one."""
    return f"It is {hashlib.sha256(question.encode()).hexdigest()[:12]}. The answer is {'AB'[len(question) % 2]}."


class FaultyServer:
    """`plan(question, attempt)` names the event of an attempt (from 1): one of the above, or "" for a plain answer."""

    def __init__(
        self, plan: Callable[[str, int], str] = lambda question, attempt: "", delay: float = 0.0, text=answer_to
    ):
        self.plan = plan
        self.delay = delay
        self.text = text
        self.events: collections.Counter = collections.Counter()
        self.attempts: collections.Counter = collections.Counter()
        self.answered: collections.Counter = collections.Counter()
        self.lost: collections.Counter = collections.Counter()
        self.bodies: list[dict] = []
        self.times: list[float] = []
        self.keys: set[str] = set()
        self.in_flight = self.most_in_flight = 0
        self.too_early = 0
        self.tokens = 0
        self.newer_field = False
        self.quiet_until: dict[str, float] = {}
        self._random = random.Random(0)

    def __enter__(self) -> "FaultyServer":
        started = threading.Event()

        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            self._end = asyncio.Event()
            server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=1024)
            self.port = server.sockets[0].getsockname()[1]
            started.set()
            await self._end.wait()
            server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        self._thread.start()
        started.wait()
        return self

    def __exit__(self, *fault) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def charged(self) -> int:
        """Answers made, whether they arrived or not."""
        return sum(self.answered.values()) + sum(self.lost.values())

    async def _connection(self, reader, writer) -> None:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
                body = await reader.readexactly(int(headers["Content-Length"]))
                key = headers.get("Authorization", "").removeprefix("Bearer ")
                self.keys.add(key)
                await self._respond(writer, json.loads(body), key, head.split(" ")[1])
        finally:
            self.in_flight -= 1
            with contextlib.suppress(ConnectionError):
                writer.close()

    async def _respond(self, writer, body: dict, key: str, path: str) -> None:
        now = time.time()
        question = body["messages"][-1]["content"]
        self.times.append(now)
        self.bodies.append(body)
        self.attempts[question] += 1
        if now < self.quiet_until.get(question, 0) - 0.01:
            self.too_early += 1
        if self.newer_field and "max_tokens" in body:
            told = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return await self._write(writer, 400, {"error": {"message": told, "param": "max_tokens"}})
        if path != "/v1/chat/completions":
            return await self._write(writer, 404, {"error": {"message": "no such path"}})
        event = self.plan(question, self.attempts[question])
        self.events[event or "answered"] += 1
        if event in CHARGED:
            self.lost[question] += 1
        elif event not in FREE and not event.isdigit():
            self.answered[question] += 1
        if self.delay:
            await asyncio.sleep(self._random.uniform(0, 2 * self.delay))
        return await self._act(writer, event, question, body, key)

    async def _act(self, writer, event: str, question: str, body: dict, key: str) -> None:
        if event.startswith("429 "):
            soon = time.time() + 1
            date = email.utils.formatdate(soon, usegmt=True)
            self.quiet_until[question] = soon if event == "429 seconds" else float(int(soon))
            headers = {"Retry-After": "1" if event == "429 seconds" else date}
            return await self._write(writer, 429, {"error": {"message": "slow down"}}, headers)
        if event == "503 later":
            self.quiet_until[question] = time.time() + 0.3
            return await self._write(writer, 503, {"error": {"message": "busy"}}, {"Retry-After": "0.3"})
        if event == "echo of the key":
            return await self._write(
                writer, 500, {"error": {"message": f"cannot use {key}, {key[3:]}"}}, {"X-Echo": key}
            )
        if event == "too many":
            return await self._write(writer, 429, {"error": {"message": "too many", "code": "rate_limit_exceeded"}})
        if event.isdigit():
            told = {"message": f"told with {key} and {key[:20]}", "code": "told"}
            return await self._write(writer, int(event), {"error": told}, {"Location": "http://elsewhere/"})
        if event == "hang":
            return await asyncio.sleep(60)
        answer = json.dumps(self._answer(event, question, body, key)).encode()
        if event == "cut JSON":
            return await self._write(writer, 200, answer[: len(answer) // 2])
        if event == "dropped":
            await self._write(writer, 200, answer[: len(answer) // 2], {"Content-Length": str(len(answer))})
            return writer.transport.abort()
        if event == "reset":
            return writer.transport.abort()
        if event == "HTML":
            return await self._write(writer, 200, b"<html>Log in</html>", {"Content-Type": "text/html"})
        if event == "no choices":
            return await self._write(writer, 200, {"choices": []})
        if event == "plain type":
            return await self._write(writer, 200, answer, {"Content-Type": "text/plain"})
        await self._write(writer, 200, answer)
        if event == "repeated":
            await self._write(writer, 200, answer)
            await asyncio.sleep(0.02)
            await self._write(writer, 200, answer)
        return None

    def _answer(self, event: str, question: str, body: dict, key: str) -> dict:
        text = self.text(question) + (f" {key}" if event == "repeats the key" else "")
        message, reason = {"role": "assistant", "content": text}, "stop"
        if event == "parts":
            message["content"] = [{"type": "text", "text": text[:5]}, {"type": "text", "text": text[5:]}]
        if event in ("empty", "null", "tool_calls", "reasoning"):
            message["content"] = "" if event == "empty" else None
        if event == "reasoning":
            message["reasoning_content"] = text
        if event in ("tool_calls", "content_filter", "length"):
            reason = event
        prompt, made = len(question) // 4 + 10, len(text) // 4
        made = min(made, body.get("max_tokens") or body.get("max_completion_tokens"))
        self.tokens += prompt + made
        answer = {"id": f"r{len(self.times)}", "object": "chat.completion", "model": f"{body['model']}-0801"}
        if event != "no usage":
            answer["usage"] = {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}
        return answer | {"choices": [{"index": 0, "message": message, "finish_reason": reason}]}

    async def _write(self, writer, status: int, body, headers: dict | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = {"Content-Type": "application/json", "Content-Length": str(len(content)), "Connection": "keep-alive"}
        lines |= {"Date": email.utils.formatdate(usegmt=True)} | (headers or {})
        head = f"HTTP/1.1 {status} Status\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(head.encode() + b"\r\n" + content)
        with contextlib.suppress(ConnectionError):
            await writer.drain()


def mixed(seed: int, share: float, every: int = 0) -> Callable[[str, int], str]:
    """A plan: a share of all attempts fail in all ways, as many get odd answers.

    After each `every` attempts, all get status 429 for 0.3 s.
    """
    counted = {"attempts": 0, "until": 0.0, "kind": 0}
    failing = [name for name in (*FREE, *CHARGED) if not name.startswith("429")]
    odd = [name for name in ODD if name not in ("empty", "null", "tool_calls", "content_filter")]

    def plan(question: str, attempt: int) -> str:
        counted["attempts"] += 1
        if every and counted["attempts"] % every == 0:
            counted.update(until=time.time() + 0.3, kind=counted["kind"] + 1)
        if time.time() < counted["until"]:
            return ("429 seconds", "429 date")[counted["kind"] % 2]
        draw = random.Random(f"{seed}:{question}:{attempt}")
        value = draw.random()
        if value < share:
            return draw.choice(failing)
        return draw.choice(odd) if value < 2 * share else ""

    return plan
