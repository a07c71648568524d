"""Upkeep of a store: sets damaged artifacts aside, deletes what no study needs."""

import collections
import contextlib
import datetime
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from selfrefine.errors import UserError
from selfrefine.schema.record import FileState, Record
from selfrefine.store.hashing import sha256_of
from selfrefine.store.invocations import command
from selfrefine.store.locations import ASIDE, CODE, PARTIAL, RECORD, RESULTS, STORE, TRAINER
from selfrefine.store.locks import occupy, stamp_of
from selfrefine.store.provenance import read_record
from selfrefine.store.reuse import content_of_record
from selfrefine.study.final_artifacts import FinalArtifacts


def verify(results: Path, moves: bool) -> None:
    """Prints which artifacts are damaged and, if it `moves` them, where they are then; `UserError` if it leaves any."""
    with alone(results) if moves else contextlib.nullcontext():
        found = damaged(results)
        for record, reasons in found.items():
            print(f"{record.parent}: {'; '.join(reasons)}")
        for record in found if moves else ():
            print(f"{record.parent} → {set_aside(results, record)}")
    if not found:
        print("every artifact is what its record says")
    elif moves:
        print(
            f"{len(found)} artifacts set aside. `snakemake` makes those again that the study lacks now, and those that "
            f"only finished artifacts were made from if they are named: {command(STORE, str(next(iter(found))))}"
        )
    else:
        raise UserError(f"{len(found)} artifacts are not what their records say; --set-aside moves them out of the way")


def prune(studies: list[FinalArtifacts], deletes: bool) -> None:
    """Prints what none of these studies needs, and deletes it if told to."""
    with alone(RESULTS) if deletes else contextlib.nullcontext():
        found = unneeded(studies)
        for folder, size in found.items():
            print(f"{size / 1e6:12,.1f} MB  {folder}")
        if deletes:
            remove(found)
    total = f"{len(found)} folders, {sum(found.values()) / 1e6:,.1f} MB"
    if deletes:
        print(f"{total}: deleted")
        return
    if missing := sum(len(study.missing()) for study in studies):
        print(f"{missing} artifacts that are needed are not there: `study.py why` says how they differ from what is")
    print(f"{total}, not needed" + ("; --yes deletes them" if found else ""))


def records_in(store: Path) -> list[Path]:
    """The records of a store, sorted."""
    return sorted(Path(store).rglob(RECORD))


def damaged(results: Path) -> dict[Path, list[str]]:
    """The records of damaged artifacts, each with what is wrong: files, the record, or inputs that have changed since.

    What was made from a damaged artifact is not listed for that: its input, made again, may have the same bytes. Every
    file is read, even where its hash is known.
    """
    root = Path(results).absolute().parent if Path(results).name == RESULTS.name else None
    if root is None or not (Path(results) / STORE.name).is_dir():
        raise UserError(f"{results}: no folder results with a store in it; name it with --results")
    found: dict[Path, list[str]] = {}
    known: dict[Path, Record] = {}
    with contextlib.chdir(root):
        for path in records_in(STORE):
            try:
                record = known[path] = read_record(path)
            except UserError as error:
                found[path] = [str(error).split("; `python")[0].removeprefix(f"{path}: ")]
                continue
            if reasons := _damages(path, record):
                found[path] = reasons
        made = {name: state for record in known.values() for name, state in record.outputs.items()}
        made |= {str(path): _read(path) for path in known}
        for path, record in known.items():
            others = [name for name, read in record.inputs.items() if name in made and made[name] != read]
            if others:
                found.setdefault(path, []).append(f"was made from another {', '.join(others)} than is there now")
    return found


def _damages(path: Path, record: Record) -> list[str]:
    """What is wrong with the files of an artifact, by its record."""
    if elsewhere := _copied_from(path, record):
        return [f"its record is that of {elsewhere}: it was copied or moved"]
    reasons = []
    if content_of_record(record) != record.content:
        reasons.append("its record was changed after it was written: settings, command or inputs are others")
    for name, expected in record.outputs.items():
        file = Path(name).relative_to(path.parent)
        if not os.path.exists(name):
            reasons.append(f"{file} is missing")
        elif (state := _read(Path(name))) != expected:
            reasons.append(
                f"{file} has {state.bytes} bytes of sha256 {state.sha256[:12]}, its record says {expected.bytes} of "
                f"{expected.sha256[:12]}"
            )
    return reasons


def _copied_from(path: Path, record: Record) -> str | None:
    """A file that a record names outside its own folder."""
    return next((name for name in record.outputs if not Path(name).is_relative_to(path.parent)), None)


def _read(path: Path) -> FileState:
    return FileState(bytes=path.stat().st_size, sha256=sha256_of(path))


@contextlib.contextmanager
def alone(results: Path) -> Iterator[None]:
    """Takes the store of some results, so that no snakemake works on it meanwhile; `UserError` if one does already."""
    store = Path(results) / STORE.name
    if not store.is_dir():
        yield
        return
    with occupy(store, stamp_of(store)):
        yield


def set_aside(results: Path, record: Path) -> Path:
    """Moves an artifact out of the store; returns where it is then."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    root = Path(results).absolute().parent
    target = Path(results) / ASIDE / now / record.parent.relative_to(STORE)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(root / record.parent, target)
    return target


def unneeded(studies: Iterable[FinalArtifacts]) -> dict[Path, int]:
    """The folders of the store that none of these studies needs, with or without a record, each with its size in bytes.

    Also what a stage kept to resume from, where it was killed after its record was written.
    """
    needed = {one.folder for study in studies for one in study.behind_all()}
    above = {parent for folder in needed for parent in folder.parents}
    found: list[Path] = []
    for folder, names, _ in os.walk(STORE):
        paths = [Path(folder, name) for name in sorted(names) if not _is_own(Path(folder, name))]
        found += [path for path in paths if path not in needed and path not in above]
        names[:] = [path.name for path in paths if path in above]
    for artifact in needed:
        if (artifact / RECORD).exists():
            found += [artifact / TRAINER] if (artifact / TRAINER).is_dir() else []
            found += artifact.glob(f"*{PARTIAL}")
    return _sizes(found)


def _is_own(path: Path) -> bool:
    """Whether a folder is one of the store's own."""
    return path.name.startswith(".") or path == STORE / CODE


def _sizes(folders: list[Path]) -> dict[Path, int]:
    """The bytes that removing each folder frees, in this order: a file with several names counts with its last."""
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
    """Deletes folders and files of the store, records first, so that half an artifact never passes for a whole one."""
    for folder in folders:
        for record in folder.rglob(RECORD):
            record.unlink()
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
