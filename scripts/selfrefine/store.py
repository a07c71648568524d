"""The store's own folders beside the artifacts: which of them have the same content, and the code that made them.

Both are found from an artifact's folder, `…/store/STAGE/NAMES/KEY`; outside a store nothing is shared.
"""

import contextlib
import datetime
import errno
import fcntl
import os
import shutil
import socket
from pathlib import Path
from typing import TextIO

from selfrefine.errors import UserError
from selfrefine.files import NO_LOCKS, digest, held, whole_file, write_json
from selfrefine.fingerprint import snapshot

NAME = "store"
CONTENTS = ".contents"
CODE = "code"
# Beside the store: what was damaged.
ASIDE = "set-aside"
# What a file system answers that cannot link there.
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


def root_of(folder: Path) -> Path | None:
    """The store that an artifact's folder lies in."""
    return next((parent for parent in Path(folder).parents if parent.name == NAME), None)


def content(what) -> str:
    """The digest under which artifacts of one content are listed."""
    return digest(what, 32)


def same_content(folder: Path, found: str) -> list[Path]:
    """The records of artifacts with a content, the latest first."""
    root = root_of(folder)
    path = root and root / CONTENTS / found[:2] / found
    if not path or not path.exists():
        return []
    names = dict.fromkeys(reversed(path.read_text(encoding="utf-8").splitlines()))
    return [record for name in names if (record := Path(name)).exists() and record.parent != folder]


def note_content(folder: Path, found: str, record: Path) -> None:
    """Lists an artifact under its content."""
    if root := root_of(folder):
        path = root / CONTENTS / found[:2] / found
        with held(path.with_name(f".{path.name}.lock")):
            known = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            with whole_file(path) as file:
                file.writelines(f"{line}\n" for line in dict.fromkeys([*known, str(record)]))


def link(source: Path, target: Path) -> None:
    """A file's content under a further name: a hard link, or a copy where the file system has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
    # Replacing a name by another one of the same file leaves both.
    temporary.unlink(missing_ok=True)


def code_of(root: Path, fingerprint: str) -> Path:
    """Where the text of the code with a fingerprint is kept."""
    return root / CODE / f"{fingerprint}.json"


def keep_code(script: Path, folder: Path, fingerprint: str) -> None:
    """Keeps the text of the code that made an artifact, once per fingerprint, so that it can be read without this repository."""
    if root := root_of(folder):
        path = code_of(root, fingerprint)
        if not path.exists():
            with contextlib.suppress(FileExistsError):
                write_json(path, snapshot(script))


def named(stage: str, file: str) -> str:
    """What a file of a final artifact is called in the folder of the study's results."""
    if file == "sources.csv":
        return f"tables/{file}"
    folder = {"tables": "tables/", "plot": "figures/", "layout": "tables/paper/"}.get(stage, "")
    return f"{folder}{file}"


# One at a time.

LOCK = ".running"


def stamp_of(root: Path) -> str:
    """Says which invocation worked on a store last; "" for none."""
    try:
        return (Path(root) / LOCK).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def occupy(root: Path, planned_at: str) -> TextIO:
    """Takes a store for this process, as long as the returned file is open; a killed one leaves nothing behind.

    `UserError` while another has it, or if one has worked on it since the stamp `planned_at` was read.
    """
    root = Path(root)
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
    lock.truncate(0)
    now = datetime.datetime.now().astimezone().isoformat(timespec="microseconds")
    print(f"process {os.getpid()} on {socket.gethostname()}, since {now}", file=lock, flush=True)
    return lock
