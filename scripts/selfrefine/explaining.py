"""Why an artifact would be made: what differs from the nearest one of its names that is there."""

import difflib
import functools
import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from selfrefine.errors import UserError
from selfrefine.files import canonical_json, read_json
from selfrefine.finals import Finals
from selfrefine.fingerprint import Code, read_code
from selfrefine.keys import STORE, Artifact
from selfrefine.opening import ROOT
from selfrefine.provenance import RECORD, Record, differences, read_record
from selfrefine.store import CODE

LINES = 30
KEY = re.compile("/[0-9a-f]{12}/")


def why(finals: Finals, target: str | None) -> list[str]:
    """In lines, which of the artifacts behind a target would be made, and what differs from those that are there."""
    wanted = _wanted(finals, target)
    missing = {one.folder: one for final in wanted for one in _missing(final)}
    name = target or "The study"
    if not missing and wanted == finals.all() and not os.path.exists(finals.shown()):
        return [f"{name} is made: nothing would run but the layout of its names."]
    if not missing:
        return [f"{name} is made: nothing would run."]
    lines = [f"{name} would be made: {len(missing)} artifacts are missing. What differs:"]
    causes: dict[tuple[str, ...], list[Artifact]] = {}
    for one in missing.values():
        if said := tuple(_explain(finals, one, missing)):
            causes.setdefault((one.stage, *said), []).append(one)
    for (stage, *said), artifacts in causes.items():
        more = f" and {len(artifacts) - 1} more" if len(artifacts) > 1 else ""
        lines += ["", f"{stage}, for {artifacts[0].folder}{more}"]
        lines += [f"  {line}" for line in (said if len(said) <= LINES else [*said[:LINES], "…"])]
    return lines


def _missing(final: Artifact) -> Iterator[Artifact]:
    """An artifact and what it needs, as far as they are not there."""
    seen: set[int] = set()
    stack = [final]
    while stack:
        one = stack.pop()
        if id(one) not in seen and not one.record.exists():
            seen.add(id(one))
            yield one
            stack += [each for inputs in one.inputs.values() for each in inputs]


def _wanted(finals: Finals, target: str | None) -> list[Artifact]:
    """The artifacts that a target stands for: one by its folder or a file of it, all of some names, or a clean name's."""
    if target is None:
        return finals.all()
    path = Path(os.path.relpath(target))
    shown = Path("results", finals.study.study.name)
    if path == shown:
        return finals.all()
    if path.is_relative_to(shown):
        named = {shown / finals.name_of(one, file): one for one in finals.all() for file in finals.files(one)}
        found = [one for name, one in named.items() if name == path or name.is_relative_to(path)]
        if found:
            return list(dict.fromkeys(found))
        raise UserError(f"{target}: the study has no such result")
    if path.is_relative_to(STORE):
        # By its names: the key that the path has may be one that the configuration no longer makes.
        found = [one for one in finals.behind_all() if _is_of(path, one.folder)]
        found = found or [one for one in finals.behind_all() if _is_of(path, one.folder.parent)]
        if found:
            return found
    raise UserError(f"{target}: this configuration has no such artifact; name a file of {shown} or of {STORE}")


def _is_of(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder) or folder.is_relative_to(path)


def _explain(finals: Finals, one: Artifact, missing: dict[Path, Artifact]) -> Iterator[str]:
    """What differs between an artifact and the nearest that is there, but for inputs that are missing themselves."""
    nearest = _nearest(one)
    if nearest is None:
        yield "there is none of these names yet"
        return
    path, record = nearest
    if one.stage == "listing":
        yield from _text_changes(Path(next(iter(record.outputs))), finals.text(*one.names))
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
        before = record.inputs.get(file)
        yield f"file {file}: {before.sha256[:12] if before else 'not read'} → {sha256[:12]}"


def _settings_changes(record: Record, one: Artifact) -> list[str]:
    """Where the settings differ, but for keys in paths: of these the inputs tell."""
    return differences(*(json.loads(KEY.sub("/…/", canonical_json(each))) for each in (record.recipe, one.settings)))


def _other_inputs(record: Record, one: Artifact) -> list[tuple[Path, Path | None]]:
    """The folders that an artifact would be made of and a recorded one was not, each with what that read of these names."""
    wanted = {each.folder for inputs in one.inputs.values() for each in inputs}
    read = {Path(name).parent for name in record.inputs if Path(name).is_relative_to(STORE)}
    return [
        (folder, next((known for known in read if known.parent == folder.parent), None))
        for folder in sorted(wanted - read)
    ]


def _other_sources(record: Record, one: Artifact) -> list[tuple[str, str]]:
    """The local files, with their sha256, whose content a recorded artifact was not made of."""
    contents = {state.sha256 for state in record.inputs.values()}
    return [(file, sha256) for file, sha256 in one.sources if sha256 not in contents]


def _nearest(one: Artifact) -> tuple[Path, Record] | None:
    """The artifact of the same names that differs in the fewest places."""
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
    """The lines of a listing that differ but for keys: where those alone differ, other artifacts say why."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = [KEY.sub("/…/", part).splitlines() for part in (before, text)]
    yield from (f"  {line}" for line in _changed(*lines))


def _changed(before: list[str], after: list[str]) -> Iterator[str]:
    """The lines that differ, after two of unified_diff's that name files; those between name places."""
    lines = itertools.islice(difflib.unified_diff(before, after, lineterm="", n=0), 2, None)
    return (line for line in lines if not line.startswith("@@"))


@functools.cache
def _code_changes(kept: Path, stage: str) -> list[str]:
    """The parts of a stage's code that differ between what ran, as it was kept, and what is here, with their changed lines."""
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
            texts = [_source(code, path, part) if (path, part) in parts else [] for code, parts in versions]
            lines += [f"  {line}" for line in _changed(*texts)]
    return lines


def _source(code: Code, path: str, part: str) -> list[str]:
    """A part's lines as they stand in its file."""
    return code.module(path).source(part) if path.endswith(".py") else code.texts[path].splitlines()
