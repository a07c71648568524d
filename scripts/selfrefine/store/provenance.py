"""Reads provenance records, and checks files against them."""

import os
from pathlib import Path

from pydantic import ValidationError

from selfrefine.errors import UserError
from selfrefine.schema.record import FileState, Record
from selfrefine.store.files import read_json
from selfrefine.store.hashing import KnownHashes, sha256_of
from selfrefine.store.locations import HASHES, NAME, RECORD, SET_ASIDE

# Hashes of files from this size on are kept beside them, so that not every job computes them again.
LARGE = 64 << 20


def root_of(folder: Path) -> Path | None:
    """The store that an artifact's folder, or a file of it, lies in; None outside a store."""
    return next((parent for parent in Path(folder).parents if parent.name == NAME), None)


def record_of(file: str | Path) -> Path:
    """Where the record of an artifact lies, by one of the artifact's files."""
    return Path(file).with_name(RECORD)


def read_record(path: Path) -> Record:
    """Reads and validates a record; `UserError` names the file and what is wrong with it."""
    try:
        return Record.model_validate(read_json(path))
    except ValidationError as error:
        fault = error.errors()[0]
        reason = f"{path}: not a record: {'.'.join(map(str, fault['loc']))}: {fault['msg']}"
    except UserError as error:
        reason = str(error)
    raise UserError(f"{reason}; {SET_ASIDE}")


def state_of(path: Path) -> FileState:
    """A file's size and sha256; the sha256 of a large file in the store is kept beside it."""
    path = Path(path)
    size = path.stat().st_size
    if size < LARGE or root_of(path) is None or not os.access(path.parent, os.W_OK):
        return FileState(bytes=size, sha256=sha256_of(path))
    sha256 = KnownHashes(path.parent / HASHES).sha256(path)
    if sha256 is None:
        raise FileNotFoundError(path)
    return FileState(bytes=size, sha256=sha256)


def checked(path: Path, beside: Path | None = None) -> FileState:
    """A file's state; `UserError` if the record of its artifact, where there is one, says otherwise.

    The record lies in the file's own folder unless `beside` names it.
    """
    path, beside = Path(path), beside or record_of(path)
    expected = files_of(beside).get(path) if beside.exists() and path.name != RECORD else None
    if not path.exists():
        raise UserError(f"{path}: no such file; {SET_ASIDE}" if expected else f"{path}: no such file")
    found = state_of(path)
    if expected and found != expected:
        raise UserError(
            f"{path}: has {found.bytes} bytes of sha256 {found.sha256[:12]} where {beside} says {expected.bytes} bytes "
            f"of {expected.sha256[:12]}: it was changed after it was made; {SET_ASIDE}"
        )
    return found


def files_of(record: Path) -> dict[Path, FileState]:
    """The files that a record names, as they lie beside it now, wherever they lay when it was written."""
    outputs = read_record(record).outputs
    top = min((Path(name).parent for name in outputs), key=lambda folder: len(folder.parts))
    return {Path(record).parent / Path(name).relative_to(top): state for name, state in outputs.items()}


def weights_of(record: Path) -> dict[str, FileState]:
    """The files of a checkpoint or a model, each checked: its own, and those of the model it was trained from."""
    found = {str(path): checked(path, Path(record)) for path in files_of(record)}
    model = read_record(record).model
    return found | (weights_of(Path(model)) if model else {})
