"""Describes a study as a Workflow Run RO-Crate: the workflow, its files, and how each job made its part of them.

Writes ro-crate-metadata.json (RO-Crate 1.1, Provenance Run Crate 0.5) into the folder that holds the results and the
workflow; with --archive, a zip of that metadata, the workflow and the results instead, straight from the tree. It rests on
the records beside the artifacts, so sizes are compared and only files without a record are hashed.
"""

import argparse
import json
import os
import re
import zipfile
from pathlib import Path
from urllib.parse import quote

from selfrefine import cli
from selfrefine.crate import MAIN, METADATA, README, Crate
from selfrefine.errors import UserError
from selfrefine.files import whole_file, write_json
from selfrefine.provenance import RECORD, SET_ASIDE, FileState, Record, read_record, state_of
from selfrefine.store import ASIDE

WORKFLOW = (MAIN, README, "config", "envs", "profiles", "report", "rules", "scripts")
WEIGHTS = ".safetensors"


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="the results, beside the workflow (default: results)"
    )
    parser.add_argument("--archive", type=Path, help="a zip to write, instead of the metadata alone")
    parser.add_argument(
        "--without-weights",
        action="store_true",
        help=f"leave *{WEIGHTS} out: they are listed by size and sha256, as not in the crate",
    )
    parser.add_argument(
        "--license", required=True, type=licence, metavar="SPDX", help="the crate's licence, such as CC-BY-4.0"
    )
    parser.add_argument(
        "--name", default="Self-Refine Instruction-Tuning", help="the crate's title (default: %(default)s)"
    )
    parser.add_argument("--description", help="what the study is (default: the number of its jobs and files)")
    parser.add_argument(
        "--author",
        action="append",
        default=[],
        type=author,
        metavar="PERSON",
        help='who the crate is by, as "Ada Example" or "Ada Example <https://orcid.org/…>"; may be repeated',
    )
    return parser.parse_args()


def licence(text: str) -> str:
    """An argument type: an SPDX identifier."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no SPDX identifier; see https://spdx.org/licenses")
    return text


def author(text: str) -> dict:
    """An argument type: a person, as an entity."""
    name, url = re.fullmatch(r"(.*?)(?:\s*<(https?://[^>\s]+)>)?", text.strip()).groups()
    if not name:
        raise argparse.ArgumentTypeError(f"{text!r} has no name")
    return {"@id": url or f"#{quote(name)}", "@type": "Person", "name": name}


def files_below(root: Path, name: str) -> list[str]:
    """The files in a folder of the root, or the file of that name, sorted; hidden files and caches left out."""
    if (root / name).is_file():
        return [name]
    found: list[Path] = []
    for folder, folders, names in os.walk(root / name, followlinks=True):
        folders[:] = [inner for inner in folders if not inner.startswith(".") and inner != "__pycache__"]
        found += [Path(folder, file) for file in names if not file.startswith(".")]
    return sorted(path.relative_to(root).as_posix() for path in found if path.is_file())


def read_records(root: Path, paths: list[str]) -> dict[str, Record]:
    """The records among the files, by path, in the order in which their jobs began."""
    records = {path: read_record(root / path) for path in paths if Path(path).name == RECORD}
    return dict(sorted(records.items(), key=lambda item: (item[1].started, item[0])))


def inputs_beside(root: Path, records: dict[str, Record]) -> set[str]:
    """What the jobs read from the root."""
    read = {path for record in records.values() for path in record.inputs}
    inside = {path for path in read if not Path(path).is_absolute() and ".." not in Path(path).parts}
    return {path for path in inside if (root / path).is_file()}


def states(root: Path, paths: list[str], records: dict[str, Record]) -> dict[str, FileState]:
    """Size and sha256 of each file: a job's output's from its record, any other's from the file.

    `UserError` for an output that has not the size that was made.
    """
    made = {path: state for record in records.values() for path, state in record.outputs.items()}
    found = {}
    for path in paths:
        found[path] = made.get(path) or state_of(root / path)
        size = (root / path).stat().st_size
        if size != found[path].bytes:
            raise UserError(f"{path} has {size} bytes, its record says {found[path].bytes}; {SET_ASIDE}")
    return found


def main() -> None:
    args = arguments()
    results = args.results.absolute()
    root = results.parent
    if not (root / MAIN).is_file():
        raise UserError(f"{root}: holds no {MAIN}; --results names the results beside the workflow that made them")
    paths = [path for path in files_below(root, results.name) if not path.startswith(f"{results.name}/{ASIDE}/")]
    records = read_records(root, paths)
    if not records:
        raise UserError(
            f"{args.results}: holds no record of a job; run snakemake first, or name the results with --results"
        )
    if args.archive and args.archive.absolute().is_relative_to(results):
        raise UserError(f"{args.archive}: lies in the results, which it is to hold; write it elsewhere")
    paths += [*inputs_beside(root, records), *(path for name in WORKFLOW for path in files_below(root, name))]
    kept = {path for path in paths if not (args.without_weights and path.endswith(WEIGHTS))}
    payload = states(root, sorted(kept), records)
    if not any(path in payload for record in records.values() for path in record.outputs):
        path = next(iter(next(iter(records.values())).outputs))
        raise UserError(
            f"{args.results}: its records are of files elsewhere, such as {path}; give the folder that name back"
        )
    size = sum(state.bytes for state in payload.values())
    description = args.description or f"{len(records)} jobs and {len(payload)} files of a study."
    crate = Crate(root, results.name, payload, records).describe(args.name, description, args.license, args.author)
    target = args.archive or root / METADATA
    if args.archive:
        with whole_file(target, "wb") as file, zipfile.ZipFile(file, "w", strict_timestamps=False) as archive:
            archive.writestr(METADATA, json.dumps(crate, indent=1, ensure_ascii=False))
            for path in payload:
                archive.write(root / path, path)
    else:
        write_json(target, crate)
    absent = sum(entity["@id"].startswith("#") for entity in crate["@graph"] if entity["@type"] == "File")
    print(
        f"{target}: {len(records)} jobs, {len(payload)} files ({size / 1e6:.1f} MB); {absent} more by size and sha256 alone"
    )


if __name__ == "__main__":
    cli.run(main)
