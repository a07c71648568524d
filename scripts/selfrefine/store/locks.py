"""Locks: one process makes an artifact, one invocation of Snakemake works on a store."""

import contextlib
import datetime
import errno
import fcntl
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

from selfrefine.errors import UserError
from selfrefine.store.files import naming_write_errors

# How a file system answers that it has no locks.
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


class Busy(Exception):
    """Another process holds a lock."""


class Holder(NamedTuple):
    """Who holds a lock, as it has noted in the lock's file."""

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


HOLDER = re.compile(r"process (\d+) on (\S+), since (\S+)")


def holder_of(path: Path) -> Holder | None:
    """Who holds a lock, or held it last; None if its file does not say."""
    with contextlib.suppress(OSError, ValueError):
        if found := HOLDER.match(Path(path).read_text(encoding="utf-8")):
            return Holder(int(found[1]), found[2], found[3])
    return None


def this_host() -> str:
    """The name of this machine, as locks note it."""
    return socket.gethostname()


def _note_holder(lock: TextIO, timespec: str = "seconds") -> None:
    """Notes in a lock's file, which this process holds, who does."""
    now = datetime.datetime.now().astimezone().isoformat(timespec=timespec)
    # Without a buffer, which on a full disk could not be emptied when the file is closed either.
    os.ftruncate(lock.fileno(), 0)
    os.write(lock.fileno(), f"{Holder(os.getpid(), this_host(), now)}\n".encode())


# Not the library filelock (4.3): it leaves lock files behind and waits without saying so. Where flock is missing, it
# fails (ENOTSUP, ENOLCK) or takes a marker file, which a holder killed on another node never frees.
@contextlib.contextmanager
def held(path: Path, wait: bool = True) -> Iterator[None]:
    """Holds the lock file `path`; waits, and says so, while another process holds it.

    The system frees it if its holder dies. Two processes that make the same artifact (a stage that outlived its killed
    driver, and the one started after it) would otherwise write to the same files. Where the file system has no locks,
    it holds nothing.

    Without `wait` it raises `Busy` instead of waiting, also where the file system has no locks.
    """
    path = Path(path)
    with naming_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with naming_write_errors(path):
            handle = open(path, "a", encoding="utf-8")  # noqa: SIM115
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    handle.close()
                    raise Busy(str(path)) from None
                holder = holder_of(path)
                who = f" ({holder})" if holder else ""
                print(f"waiting for another process{who}, which holds {path}", file=sys.stderr, flush=True)
                fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            if not wait:
                # Another process may be making the artifact; there is no way to tell.
                handle.close()
                raise Busy(str(path)) from None
        # The last holder may have removed the file that this process waited for.
        if path.exists() and os.path.samestat(os.fstat(handle.fileno()), path.stat()):
            break
        handle.close()
    # On a full disk the lock still holds.
    with contextlib.suppress(OSError):
        _note_holder(handle)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        handle.close()


# The file in a store that the working invocation of Snakemake holds.
LOCK = ".running"


def stamp_of(root: Path) -> str:
    """Which invocation worked on a store last; "" for none."""
    try:
        return (Path(root) / LOCK).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def occupy(root: Path, planned_at: str) -> TextIO:
    """Takes a store for this process, as long as the returned file is open; a killed process frees it.

    `UserError` while another process has it, or if one has worked on it since the stamp `planned_at` was read.
    """
    root = Path(root)
    with naming_write_errors(root / LOCK):
        root.mkdir(parents=True, exist_ok=True)
        lock = open(root / LOCK, "a+", encoding="utf-8")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"another snakemake works on {root} ({stamp_of(root).strip()}); wait until it has ended, or stop it. "
            "This one has touched nothing."
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    if stamp_of(root) != planned_at:
        raise UserError(
            f"another snakemake has worked on {root} since this one planned ({stamp_of(root).strip()}); start it again"
        )
    with naming_write_errors(root / LOCK):
        # To tell two invocations of one process apart.
        _note_holder(lock, "microseconds")
    return lock
