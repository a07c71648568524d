"""Reuse: which artifacts have equal content, so that their files can be linked instead of made.

The store keeps an index of artifacts by content. It is found from an artifact's folder, `…/store/STAGE/NAMES/KEY`;
outside a store nothing is reused and nothing is kept.
"""

import contextlib
import errno
import os
import shutil
from pathlib import Path

from selfrefine.schema.record import Record
from selfrefine.store.files import naming_write_errors, whole_file, write_json
from selfrefine.store.fingerprint import snapshot
from selfrefine.store.hashing import digest
from selfrefine.store.locations import CODE, CONTENTS, is_result
from selfrefine.store.locks import held
from selfrefine.store.provenance import root_of

# How a file system answers that it cannot link to a file.
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


def content_of(what: object) -> str:
    """The digest under which artifacts of equal content are listed; `what` decides their content."""
    return digest(what, 32)


def content_of_record(record: Record) -> str:
    """The content that a record's own words stand for: what it says in `content`, unless it was changed since."""
    if record.stage == "listing":
        return content_of([record.stage, record.settings.get("text")])
    inputs = [[Path(path).name, state.sha256] for path, state in record.inputs.items() if is_result(path)]
    sources = [state.sha256 for path, state in record.inputs.items() if not is_result(path)]
    return content_of([record.stage, record.settings, record.version, record.command, inputs, sources])


def same_content(folder: Path, content: str) -> list[Path]:
    """The records of the other artifacts with a content, the latest first; `folder` is that of the artifact at hand."""
    root = root_of(folder)
    path = root and root / CONTENTS / content[:2] / content
    if not path or not path.exists():
        return []
    names = dict.fromkeys(reversed(path.read_text(encoding="utf-8").splitlines()))
    return [record for name in names if (record := Path(name)).exists() and record.parent != folder]


def list_content(folder: Path, content: str, record: Path) -> None:
    """Lists an artifact under its content."""
    if root := root_of(folder):
        path = root / CONTENTS / content[:2] / content
        with held(path.with_name(f".{path.name}.lock")):
            known = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            with whole_file(path) as file:
                file.writelines(f"{line}\n" for line in dict.fromkeys([*known, str(record)]))


def link(source: Path, target: Path) -> None:
    """Gives a file a second name by a hard link, or copies it where the file system has no links."""
    with naming_write_errors(target, all_of_them=False):
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
        # `os.replace` does nothing where both names are links to the same file.
        temporary.unlink(missing_ok=True)


def keep_code(script: Path, folder: Path, fingerprint: str) -> None:
    """Keeps the text of the code that made an artifact, once per fingerprint, to be read without this repository."""
    if root := root_of(folder):
        path = root / CODE / f"{fingerprint}.json"
        if not path.exists():
            with contextlib.suppress(FileExistsError):
                write_json(path, snapshot(script))
