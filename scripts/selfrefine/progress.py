"""How far the running stages are, read from the progress bars at the end of their logs."""

import re
import threading
import time
from pathlib import Path
from typing import TextIO

BAR = re.compile(
    r"^(?:[^:|]*:)?\s*(?P<percent>\d+)%\|[^|]*\|\s*(?P<done>\d+)/(?P<total>\d+) \[(?P<times>[^\],]*)(?P<rest>[^\]]*)\]"
)
QUIET = 120
TAIL = 4096


def last_bar(log: Path) -> str | None:
    """A stage's progress in one line, from the last progress bar of its log; None where there is none or it is full."""
    with open(log, "rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - TAIL))
        text = file.read().decode(errors="replace")
    for line in reversed(re.split(r"[\r\n]", text)):
        if found := BAR.match(line.strip()):
            if found["done"] == found["total"]:
                return None
            return f"{found['percent']} % ({found['done']} of {found['total']}, {found['times']}{found['rest']})"
    return None


def running(folder: Path, since: float) -> list[str]:
    """One line per stage under `folder` that wrote to its log after `since` (seconds since the epoch) and has not ended."""
    lines = []
    for log in sorted(folder.rglob("*.log")):
        written = log.stat().st_mtime
        if written < since or time.time() - written > QUIET:
            continue
        bar = last_bar(log)
        if bar:
            lines.append(f"{log.relative_to(folder).with_suffix('')}: {bar}")
    return lines


def watch(folder: Path, stream: TextIO, every: float = 20) -> None:
    """Prints how far the running stages are, every so many seconds, until the program ends."""

    def loop(since: float) -> None:
        while True:
            time.sleep(every)
            for line in running(folder, since):
                print(f"    … {line}", file=stream, flush=True)

    threading.Thread(target=loop, args=(time.time(),), daemon=True).start()
