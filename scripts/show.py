"""Lays a study's results out under their names, as links into the store; other links of the folder are taken away.

The folder is that of the marker's: `results/STUDY` for `results/STUDY/.shown/MARKER`. The marker is written last, and
one process lays out at a time: one that outlived its killed driver may still be at it.
"""

import argparse
import os
from pathlib import Path

from selfrefine import cli
from selfrefine.files import held, whole_file
from selfrefine.provenance import checked, read_record
from selfrefine.store import named


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--records", required=True, nargs="+", type=Path, help="the records of the final artifacts")
    parser.add_argument("--shown", required=True, type=Path, help="the marker that says which results are shown")
    return parser.parse_args()


def lay_out(folder: Path, files: dict[str, Path]) -> None:
    """Makes the links in a folder those of `files`, {name: file}; files that are no links are left alone."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_symlink() and path.relative_to(folder).as_posix() not in files:
            path.unlink()
        elif path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()
    for name, file in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(file, path.parent)
        if path.is_symlink() and os.readlink(path) == target:
            continue
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        os.replace(temporary, path)


def main() -> None:
    args = arguments()
    markers = args.shown.parent
    with held(markers.parent / ".lock"):
        markers.mkdir(parents=True, exist_ok=True)
        # From now on nothing is shown for certain, until it is.
        for path in markers.iterdir():
            path.unlink()
        records = [read_record(path) for path in args.records]
        files = {named(record.stage, Path(name).name): Path(name) for record in records for name in record.outputs}
        for file in files.values():
            checked(file)
        lay_out(markers.parent, files)
        with whole_file(args.shown) as file:
            file.writelines(f"{path}\n" for path in args.records)


if __name__ == "__main__":
    cli.run(main)
