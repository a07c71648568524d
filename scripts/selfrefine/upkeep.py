"""Keeping a store in order: what is damaged, what no study needs."""

import collections
import contextlib
import datetime
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from selfrefine.errors import UserError
from selfrefine.files import sha256_of
from selfrefine.finals import Finals
from selfrefine.keys import STORE
from selfrefine.provenance import PARTIAL, RECORD, TRAINER, FileState, Record, read_record
from selfrefine.store import ASIDE, CODE, occupy, stamp_of


def records_in(store: Path) -> list[Path]:
    """The records of a store, sorted."""
    return sorted(Path(store).rglob(RECORD))


def damaged(results: Path) -> dict[Path, list[str]]:
    """By record, what is wrong with an artifact: its files, its record, or that it was made of others than are there now.

    What was made of a damaged artifact is not listed for that: it was made of what the record says, and that may be made again
    byte for byte. Every file is read, also those whose hashes are kept.
    """
    root = Path(results).absolute().parent if Path(results).name == "results" else None
    if root is None or not (Path(results) / STORE.name).is_dir():
        raise UserError(f"{results}: no folder results with a store in it; name it with --results")
    found: dict[Path, list[str]] = {}
    known: dict[str, Record] = {}
    with contextlib.chdir(root):
        for path in records_in(STORE):
            try:
                record = known[str(path)] = read_record(path)
            except UserError as error:
                found[path] = [str(error).split("; `python")[0].removeprefix(f"{path}: ")]
                continue
            elsewhere = next((name for name in record.outputs if not Path(name).is_relative_to(path.parent)), None)
            if elsewhere:
                found[path] = [f"its record is that of {elsewhere}: it was copied or moved"]
                continue
            reasons = []
            for name, expected in record.outputs.items():
                file = Path(name).relative_to(path.parent)
                if not os.path.exists(name):
                    reasons.append(f"{file} is missing")
                elif (state := _read(Path(name))) != expected:
                    reasons.append(
                        f"{file} has {state.bytes} bytes of sha256 {state.sha256[:12]}, made were {expected.bytes} of "
                        f"{expected.sha256[:12]}"
                    )
            if reasons:
                found[path] = reasons
        made = {name: state for record in known.values() for name, state in record.outputs.items()}
        made |= {name: _read(Path(name)) for name in known}
        for path, record in known.items():
            others = [name for name, read in record.inputs.items() if name in made and made[name] != read]
            if others:
                found.setdefault(Path(path), []).append(f"was made of another {', '.join(others)} than is there now")
    return found


def _read(path: Path) -> FileState:
    return FileState(bytes=path.stat().st_size, sha256=sha256_of(path))


@contextlib.contextmanager
def alone(results: Path) -> Iterator[None]:
    """Takes the store of some results, so that no snakemake works on it meanwhile; `UserError` if one does."""
    store = Path(results) / STORE.name
    if not store.is_dir():
        yield
        return
    with occupy(store, stamp_of(store)):
        yield


def set_aside(results: Path, record: Path) -> Path:
    """Moves an artifact out of the store; returns where it lies then."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    root = Path(results).absolute().parent
    target = Path(results) / ASIDE / now / record.parent.relative_to(STORE)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(root / record.parent, target)
    return target


def unneeded(studies: Iterable[Finals]) -> dict[Path, int]:
    """The folders of the store that none of these studies is made of, each with its size in bytes; those without a record too.

    So is what a stage that was killed at its very end kept beside its record, to go on from.
    """
    needed = {one.folder for study in studies for one in study.behind_all()}
    above = {parent for folder in needed for parent in folder.parents}
    found: list[Path] = []
    for folder, names, _ in os.walk(STORE):
        paths = [Path(folder, name) for name in sorted(names) if not _is_own(Path(folder, name))]
        found += [path for path in paths if path not in needed and path not in above]
        names[:] = [path.name for path in paths if path in above]
    for folder in needed:
        if (folder / RECORD).exists():
            found += [folder / TRAINER] if (folder / TRAINER).is_dir() else []
            found += folder.glob(f"*{PARTIAL}")
    return _sizes(found)


def _is_own(path: Path) -> bool:
    """Whether a folder is one of the store's own."""
    return path.name.startswith(".") or path == STORE / CODE


def _sizes(folders: list[Path]) -> dict[Path, int]:
    """The bytes that the removal of each folder frees, in this order: a file of several names counts with the last of them."""
    found = dict.fromkeys(folders, 0)
    seen: collections.Counter[tuple[int, int]] = collections.Counter()
    for folder in folders:
        for path in [folder, *folder.rglob("*")]:
            state = path.lstat()
            seen[state.st_dev, state.st_ino] += 1
            if path.is_file() and seen[state.st_dev, state.st_ino] == state.st_nlink:
                found[folder] += state.st_size
    return found


def remove(folders: Iterable[Path]) -> None:
    """Deletes folders and files of the store, the record of each artifact first, so that half of one never passes for a whole one."""
    for folder in folders:
        for record in folder.rglob(RECORD):
            record.unlink()
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
