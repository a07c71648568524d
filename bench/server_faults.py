"""Sends requests to a server that fails in many ways, and counts each event and its outcome.

python bench/server_faults.py --requests 10000

A server on loopback fails in all ways (tests/faulty_server.py) for a share of all attempts; halfway, the process that
asks is killed and started again. The table counts at the server; below it stand what was lost, what was asked twice,
the time, and how long an answer takes to reach the disk when each is synced alone and when those that came together
are.
"""

import argparse
import collections
import contextlib
import io
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from faulty_server import CHARGED, FREE, FaultyServer, answer_to, mixed  # noqa: E402
from selfrefine.engines.interface import Request  # noqa: E402
from selfrefine.engines.openai import retries  # noqa: E402
from selfrefine.engines.openai.answer_store import AnswerStore  # noqa: E402
from selfrefine.engines.openai.server_engine import ServerEngine  # noqa: E402
from selfrefine.schema.generation import Generation  # noqa: E402
from selfrefine.schema.server import Server  # noqa: E402


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--share", type=float, default=0.06, help="of the attempts that fail")
    parser.add_argument("--concurrency", type=int, default=64)
    return parser.parse_args()


def wanted(count: int) -> list[Request]:
    generation = Generation(max_tokens=40)
    return [
        Request(f"q{i}", [{"role": "user", "content": f"Question {i}: which box?"}], generation) for i in range(count)
    ]


def ask(endpoint: str, folder: str, count: int, concurrency: int) -> list[str]:
    """All answers; delays are shortened, so that the time is the engine's."""
    retries.FIRST_DELAY, retries.LONGEST_DELAY = 0.05, 0.5
    server = Server(endpoint=endpoint, store=folder, concurrency=concurrency, timeout=2, patience=120)
    with contextlib.redirect_stderr(io.StringIO()):
        return [completion.text for completion in ServerEngine(server, "owl").generate(wanted(count))]


def asking(*given) -> None:
    ask(*given)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"processor time of the process that asked the second half: {used.ru_utime + used.ru_stime:.1f} s")


def synced(folder: Path, rows: int, together: int) -> float:
    """Milliseconds per answer to append and sync, so many at a time."""
    store = AnswerStore(folder, {"served": f"sync-{together}"})
    started = time.perf_counter()
    for number in range(rows):
        store.append({"key": str(number), "text": "x" * 600})
        if number % together == together - 1:
            store.sync()
    store.close()
    return (time.perf_counter() - started) / rows * 1000


def main() -> None:
    args = arguments()
    fork = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, FaultyServer(mixed(0, args.share, every=2500), delay=0.005) as server:
        given = (server.endpoint, folder, args.requests, args.concurrency)
        started = time.perf_counter()
        first = fork.Process(target=ask, args=given)
        first.start()
        while len(server.answered) < args.requests // 2:
            time.sleep(0.01)
        os.kill(first.pid, 9)
        first.join()
        second = fork.Process(target=asking, args=given)
        second.start()
        second.join()
        seconds = time.perf_counter() - started
        attempts = len(server.times)
        texts = ask(*given)
        store = AnswerStore(Path(folder), {"engine": "openai", "served": "owl", "revision": "", "extra": {}})
        store.read()

        outcome = collections.defaultdict(lambda: "answered") | dict.fromkeys(FREE, "asked again, not charged")
        outcome |= dict.fromkeys(CHARGED, "asked again; charged, answer lost on the way")
        print(f"{'event':<20}{'count':>8}  outcome")
        for event, number in sorted(server.events.items(), key=lambda pair: (outcome[pair[0]], -pair[1])):
            print(f"{event:<20}{number:>8}  {outcome[event]}")
        expected = [answer_to(request.messages[0]["content"]) for request in wanted(args.requests)]
        right = sum(text == one for text, one in zip(texts, expected, strict=True))
        repeated = sum(server.answered.values()) - len(server.answered)
        print(
            f"\nattempts {attempts}, correct answers {right} of {args.requests}, attempts of a third run "
            f"{len(server.times) - attempts}"
        )
        print(f"answers sent whole twice {repeated} (in flight at the kill: at most {args.concurrency})")
        print(
            f"answers lost on the way {sum(server.lost.values())}; lost or in flight by the store's count {store.lost}"
        )
        print(f"asked again before Retry-After had passed: {server.too_early}")
        print(f"{seconds:.1f} s with a kill and a second start")
        alone, together = (synced(Path(folder), 500, number) for number in (1, 32))
        print(f"ms per answer to reach the disk: {alone:.2f} each alone, {together:.2f} by 32")


if __name__ == "__main__":
    main()
