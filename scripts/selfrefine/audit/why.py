"""Why artifacts would be made: what differs from the nearest ones with the same names that are there."""

import difflib
import functools
import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from selfrefine.errors import UserError
from selfrefine.schema.record import FileState, Record
from selfrefine.store.environment import differences
from selfrefine.store.files import read_json
from selfrefine.store.fingerprint import Code, read_code
from selfrefine.store.hashing import canonical_json
from selfrefine.store.locations import CODE, KEY, RECORD, SET_ASIDE, STORE, study_folder
from selfrefine.store.provenance import LARGE, read_record, state_of
from selfrefine.study.artifact import Artifact
from selfrefine.study.final_artifacts import FinalArtifacts
from selfrefine.study.open_study import ROOT

# How many lines are printed of what differs in one group of artifacts.
LINES = 30
IN_PATHS = re.compile(f"/{KEY}/")


def why(finals: FinalArtifacts, target: str | None) -> list[str]:
    """In lines: which artifacts behind a target would be made, what differs from those there, and what was changed."""
    wanted = _wanted(finals, target)
    lines = _why(finals, target, wanted)
    if changed := list(_changed_since(wanted)):
        lines += ["", f"But {len(changed)} files behind it are not what they were when it was made from them:"]
        lines += [f"  {line}" for line in changed] + [f"{SET_ASIDE}."]
    return lines


def _why(finals: FinalArtifacts, target: str | None, wanted: list[Artifact]) -> list[str]:
    missing = {one.folder: one for final in wanted for one in _missing(final)}
    name = target or "The study"
    if not missing and wanted == finals.all() and not os.path.exists(finals.shown()):
        return [f"{name} is made: nothing would run but the layout of its results."]
    if not missing:
        return [f"{name} is made: nothing would run."]
    lines = [f"{name} would be made: {len(missing)} artifacts are missing. What differs:"]
    causes: dict[tuple[str, tuple[str, ...]], list[Artifact]] = {}
    for one in missing.values():
        if reasons := tuple(_explain(finals, one, missing)):
            causes.setdefault((one.stage, reasons), []).append(one)
    for (stage, reasons), artifacts in causes.items():
        more = f" and {len(artifacts) - 1} more" if len(artifacts) > 1 else ""
        lines += ["", f"{stage}, for {artifacts[0].folder}{more}"]
        lines += [f"  {line}" for line in (reasons if len(reasons) <= LINES else [*reasons[:LINES], "…"])]
    return lines


def _changed_since(wanted: list[Artifact]) -> Iterator[str]:
    """The files behind these artifacts that are not what their records say, each with both contents."""
    for one in dict.fromkeys(each for final in wanted for each in final.behind()):
        if not one.record.exists():
            continue
        try:
            record = read_record(one.record)
        except UserError as error:
            yield str(error).removesuffix(f"; {SET_ASIDE}")
            continue
        ended = record.started.timestamp() + record.wall_seconds
        for name, expected in record.outputs.items():
            found = _state(Path(name), expected, ended)
            if found != expected:
                now = f"{found.bytes} bytes of sha256 {found.sha256[:12]}" if found else "is not there"
                yield f"{name}: {now}; {one.record} says {expected.bytes} bytes of {expected.sha256[:12]}"


def _state(path: Path, expected: FileState, ended: float) -> FileState | None:
    """A file's content; a large file of the expected size that was not touched since its job ended is not read."""
    if not path.exists():
        return None
    state = path.stat()
    is_old = state.st_size == expected.bytes >= LARGE and state.st_ctime < ended + 2
    return expected if is_old else state_of(path)


def _missing(final: Artifact) -> Iterator[Artifact]:
    """An artifact and what it needs, as far as these are missing."""
    seen: set[int] = set()
    stack = [final]
    while stack:
        one = stack.pop()
        if id(one) not in seen and not one.record.exists():
            seen.add(id(one))
            yield one
            stack += [each for inputs in one.inputs.values() for each in inputs]


def _wanted(finals: FinalArtifacts, target: str | None) -> list[Artifact]:
    """The artifacts that a target names: one by its folder or a file in it, all with some names, or a result's."""
    if target is None:
        return finals.all()
    path = Path(os.path.relpath(target))
    shown = study_folder(finals.study.study.name)
    if path == shown:
        return finals.all()
    if path.is_relative_to(shown):
        named = {shown / finals.name_of(one, file): one for one in finals.all() for file in finals.files(one)}
        found = [one for name, one in named.items() if name == path or name.is_relative_to(path)]
        if found:
            return list(dict.fromkeys(found))
        raise UserError(f"{target}: the study has no such result")
    if path.is_relative_to(STORE):
        # By its names if need be: the path may have a key that the configuration no longer makes.
        found = [one for one in finals.behind_all() if _is_of(path, one.folder)]
        found = found or [one for one in finals.behind_all() if _is_of(path, one.folder.parent)]
        if found:
            return found
    raise UserError(f"{target}: this configuration has no such artifact; name a file of {shown} or of {STORE}")


def _is_of(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder) or folder.is_relative_to(path)


def _explain(finals: FinalArtifacts, one: Artifact, missing: dict[Path, Artifact]) -> Iterator[str]:
    """What differs between an artifact and the nearest one that is there, except for inputs that are missing too."""
    nearest = _nearest(one)
    if nearest is None:
        yield "there is none with these names yet"
        return
    path, record = nearest
    if one.stage == "listing":
        yield from _text_changes(Path(next(iter(record.outputs))), finals.listings.text(*one.names))
        return
    for change in _settings_changes(record, one):
        yield f"setting {change}"
    if record.version != one.code:
        yield f"code: {record.version} → {one.code}"
        yield from _code_changes(STORE / CODE / f"{record.code}.json", one.stage)
    if record.command != one.command:
        yield f"command: {record.command} → {one.command}"
    for folder, before in _other_inputs(record, one):
        if folder not in missing:
            yield f"input {folder.parent}: {before.name if before else 'not there'} → {folder.name}"
    for file, sha256 in _other_sources(record, one):
        read = record.inputs.get(file)
        yield f"file {file}: {read.sha256[:12] if read else 'not read'} → {sha256[:12]}"


def _settings_changes(record: Record, one: Artifact) -> list[str]:
    """Where the settings differ, except for keys in paths, which the inputs show."""
    return differences(
        *(json.loads(IN_PATHS.sub("/…/", canonical_json(each))) for each in (record.settings, one.settings))
    )


def _other_inputs(record: Record, one: Artifact) -> list[tuple[Path, Path | None]]:
    """The inputs that only the artifact at hand reads, each with what a recorded one read of the same names."""
    wanted = {each.folder for inputs in one.inputs.values() for each in inputs}
    read = {Path(name).parent for name in record.inputs if Path(name).is_relative_to(STORE)}
    return [
        (folder, next((known for known in read if known.parent == folder.parent), None))
        for folder in sorted(wanted - read)
    ]


def _other_sources(record: Record, one: Artifact) -> list[tuple[str, str]]:
    """The local files, with their sha256, whose content a recorded artifact was not made from."""
    contents = {state.sha256 for state in record.inputs.values()}
    return [(file, sha256) for file, sha256 in one.sources if sha256 not in contents]


def _nearest(one: Artifact) -> tuple[Path, Record] | None:
    """The artifact with the same names that differs in the fewest places."""
    found = []
    for path in sorted(one.folder.parent.glob(f"*/{RECORD}")):
        try:
            record = read_record(path)
        except UserError:
            continue
        apart = sum(len(changes(record, one)) for changes in (_settings_changes, _other_inputs, _other_sources))
        apart += (record.version != one.code) + (record.command != one.command)
        found.append((apart, -path.stat().st_mtime, path, record))
    return min(found)[2:] if found else None


def _text_changes(path: Path, text: str) -> Iterator[str]:
    """The lines of a listing that differ in more than keys: where only keys differ, other artifacts say why."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = [IN_PATHS.sub("/…/", part).splitlines() for part in (before, text)]
    yield from (f"  {line}" for line in _changed(*lines))


def _changed(before: list[str], after: list[str]) -> Iterator[str]:
    """The lines that differ, without unified_diff's two lines that name files and those that name places."""
    lines = itertools.islice(difflib.unified_diff(before, after, lineterm="", n=0), 2, None)
    return (line for line in lines if not line.startswith("@@"))


@functools.cache
def _code_changes(kept: Path, stage: str) -> list[str]:
    """The parts of a stage's code that differ between what ran, as it was kept, and what is here, line by line."""
    if not kept.exists():
        return [f"  {kept} is not there, so what ran cannot be compared"]
    then = read_json(kept)
    before, now = Code(then["files"]), read_code(ROOT / "scripts")
    old, new = before.parts(then["script"]), now.parts(f"{stage}.py")
    lines = []
    for path, part in sorted({*old, *new}):
        if old.get((path, part)) != new.get((path, part)):
            lines.append(f"code: {part} in scripts/{path}")
            versions = ((before, old), (now, new))
            then_lines, now_lines = (
                _source(code, path, part) if (path, part) in parts else [] for code, parts in versions
            )
            lines += [f"  {line}" for line in _changed(then_lines, now_lines)]
    return lines


def _source(code: Code, path: str, part: str) -> list[str]:
    """A part's lines as they stand in its file."""
    return code.module(path).source(part) if path.endswith(".py") else code.texts[path].splitlines()
