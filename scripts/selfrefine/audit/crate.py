"""Describes a study as a Workflow Run RO-Crate: collects its files, writes metadata or an archive.

Sizes are compared with the records; only files without a record are hashed.
"""

import json
import os
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from selfrefine.audit.citation import FILE as CITATION
from selfrefine.audit.citation import Citation, Entity, read_citation
from selfrefine.audit.crate_metadata import MAIN, METADATA, README, CrateMetadata
from selfrefine.errors import UserError
from selfrefine.schema.record import FileState, Record
from selfrefine.store.files import whole_file, write_json
from selfrefine.store.locations import ASIDE, RECORD, SET_ASIDE
from selfrefine.store.provenance import read_record, state_of

WORKFLOW = (MAIN, README, CITATION, "config", "envs", "profiles", "report", "rules", "scripts")
WEIGHTS = ".safetensors"


class Description(NamedTuple):
    """What people say of a crate."""

    name: str
    licence: str
    """An SPDX identifier."""
    authors: list[Entity]
    """Persons; without any, the authors of the citation."""
    text: str | None = None
    """What the study is; by default the number of its jobs and files."""
    citation: Path | None = None
    """A CITATION.cff; by default the one beside the workflow."""


def read_licence(text: str) -> str:
    """An SPDX identifier; `UserError` if the text is none."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", text):
        raise UserError(f"{text!r} is no SPDX identifier; see https://spdx.org/licenses")
    return text


def read_author(text: str) -> Entity:
    """A person as an entity, from `NAME` or `NAME <URL>`; `UserError` if there is no name."""
    found = re.fullmatch(r"(.*?)(?:\s*<(https?://[^>\s]+)>)?", text.strip())
    if not found or not found[1]:
        raise UserError(f"{text!r} has no name")
    return {"@id": found[2] or f"#{quote(found[1])}", "@type": "Person", "name": found[1]}


def write_crate(results: Path, description: Description, archive: Path | None, without_weights: bool) -> str:
    """Writes the metadata beside the results or, with `archive`, a zip of metadata, workflow and results.

    Says how much it wrote. `UserError` if the results do not lie beside the workflow, have no records, or have a file
    of another size than recorded.
    """
    folder = results.absolute()
    root = folder.parent
    if not (root / MAIN).is_file():
        raise UserError(f"{root}: holds no {MAIN}; --results names the results beside the workflow that made them")
    if description.citation and not description.citation.is_file():
        raise UserError(f"{description.citation}: no such file")
    citation = read_citation(description.citation or root / CITATION)
    paths = [path for path in _files_below(root, folder.name) if not path.startswith(f"{folder.name}/{ASIDE}/")]
    records = _read_records(root, paths)
    if not records:
        raise UserError(f"{results}: holds no record of a job; run snakemake first, or name the results with --results")
    if archive and archive.absolute().is_relative_to(folder):
        raise UserError(f"{archive}: lies in the results, which it is to hold; write it elsewhere")
    paths += [*_inputs_beside(root, records.values())]
    paths += [path for name in WORKFLOW for path in _files_below(root, name)]
    kept = {path for path in paths if not (without_weights and path.endswith(WEIGHTS))}
    payload = _states(root, sorted(kept), records.values())
    if not any(path in payload for record in records.values() for path in record.outputs):
        path = next(iter(next(iter(records.values())).outputs))
        raise UserError(
            f"{results}: its records are of files elsewhere, such as {path}; give the folder that name back"
        )
    text = description.text or f"{len(records)} jobs and {len(payload)} files of a study."
    metadata = CrateMetadata(root, folder.name, payload, records)
    crate = metadata.describe(description.name, text, description.licence, _by(description.authors, citation))
    target = archive or root / METADATA
    if archive:
        with whole_file(target, "wb") as file, zipfile.ZipFile(file, "w", strict_timestamps=False) as zipped:
            zipped.writestr(METADATA, json.dumps(crate, indent=1, ensure_ascii=False))
            for path in payload:
                zipped.write(root / path, path)
    else:
        write_json(target, crate)
    size = sum(state.bytes for state in payload.values()) / 1e6
    absent = sum(entity["@id"].startswith("#") for entity in crate["@graph"] if entity["@type"] == "File")
    return (
        f"{target}: {len(records)} jobs, {len(payload)} files ({size:.1f} MB); {absent} more by size and sha256 alone"
    )


def _by(named: list[Entity], citation: Citation) -> Citation:
    """A citation with the persons that were named as its authors; what it says of them stays."""
    cited = {key: author for author in citation.authors for key in (author["@id"], author["name"])}
    found = [(cited.get(one["@id"]) or cited.get(one["name"]) or {}) | one for one in named]
    return citation._replace(authors=tuple(found)) if found else citation


def _files_below(root: Path, name: str) -> list[str]:
    """The files in a folder of the root, or the file of that name, sorted; without hidden files and caches."""
    if (root / name).is_file():
        return [name]
    found: list[Path] = []
    for folder, folders, names in os.walk(root / name, followlinks=True):
        folders[:] = [inner for inner in folders if not inner.startswith(".") and inner != "__pycache__"]
        found += [Path(folder, file) for file in names if not file.startswith(".")]
    return sorted(path.relative_to(root).as_posix() for path in found if path.is_file())


def _read_records(root: Path, paths: list[str]) -> dict[str, Record]:
    """The records among the files, by path, in the order in which their jobs began."""
    records = {path: read_record(root / path) for path in paths if Path(path).name == RECORD}
    return dict(sorted(records.items(), key=lambda item: (item[1].started, item[0])))


def _inputs_beside(root: Path, records: Iterable[Record]) -> set[str]:
    """The files in the root, outside the results too, that the jobs read."""
    read = {path for record in records for path in record.inputs}
    inside = {path for path in read if not Path(path).is_absolute() and ".." not in Path(path).parts}
    return {path for path in inside if (root / path).is_file()}


def _states(root: Path, paths: list[str], records: Iterable[Record]) -> dict[str, FileState]:
    """Size and sha256 of each file: a job's output's from its record, any other's from the file.

    `UserError` for an output that has not the recorded size.
    """
    made = {path: state for record in records for path, state in record.outputs.items()}
    found = {}
    for path in paths:
        found[path] = made.get(path) or state_of(root / path)
        size = (root / path).stat().st_size
        if size != found[path].bytes:
            raise UserError(f"{path} has {size} bytes, its record says {found[path].bytes}; {SET_ASIDE}")
    return found
