"""Shows a study's results under clean names, as links into the store; removes other links there.

The folder is that of the marker's: `results/STUDY` for `results/STUDY/.shown/MARKER`. The marker is written last, and
one process lays out at a time: one that outlived its killed driver may still be at it.
"""

import argparse
import os
from pathlib import Path

from selfrefine.programs import cli
from selfrefine.store.files import whole_file
from selfrefine.store.locations import folder_of_marker, result_name
from selfrefine.store.locks import held
from selfrefine.store.provenance import checked, read_record


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
    markers, folder = args.shown.parent, folder_of_marker(args.shown)
    with held(folder / ".lock"):
        markers.mkdir(parents=True, exist_ok=True)
        # From now on nothing is shown for certain, until it is.
        for path in markers.iterdir():
            path.unlink()
        records = [read_record(path) for path in args.records]
        files = {
            result_name(record.stage, Path(name).name): Path(name) for record in records for name in record.outputs
        }
        for file in files.values():
            checked(file)
        lay_out(folder, files)
        with whole_file(args.shown) as file:
            file.writelines(f"{path}\n" for path in args.records)


if __name__ == "__main__":
    cli.run(main)
