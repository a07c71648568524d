"""Why jobs failed where their logs cannot say: killed for memory, or the disk is full."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfrefine.programs import memory
from selfrefine.store.locations import RESULTS

VMSTAT = Path("/proc/vmstat")
# Below so many free bytes a disk counts as full.
FULL = 1 << 20
# What stands in the log of a job that ended by itself.
ENDINGS = ("error:", "Traceback", "interrupted")


def killed_for_memory() -> int:
    """How many processes this system has killed for lack of memory since it started; 0 where it does not say."""
    try:
        lines = VMSTAT.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def reasons(failed: Any, killed_before: int) -> Iterator[str]:
    """In lines, why jobs of this machine failed, as far as the system tells; nothing where their logs do."""
    folder = next(path for path in (RESULTS, Path()) if path.exists())
    if shutil.disk_usage(folder).free < FULL:
        yield f"the disk that holds {folder.absolute()} is full: free space and start again; finished work is kept"
    for job in sorted(failed, key=str):
        log = Path(next(iter(job.log), ""))
        said = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        ended = any(ending in said for ending in ENDINGS)
        of = f"{job.rule.name} ({next(iter(job.output), '')})"
        if memory.says_so(said) or (not ended and killed_for_memory() > killed_before):
            yield f"{of}: {memory.advice(job.rule.name)}"
        elif not ended and job.rule.shellcmd:
            yield f"{of}: ended without an error in {log}: it was killed, by hand or for lack of memory"
