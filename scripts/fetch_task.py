"""Fetches the data of one of lm-eval's own tasks, for jobs without a network."""

import argparse
import zipfile
from pathlib import Path

from selfrefine.data.stock_tasks import find_task
from selfrefine.errors import UserError
from selfrefine.programs import cli
from selfrefine.schema.stages import FetchTaskSettings
from selfrefine.store.files import whole_file
from selfrefine.store.locations import OWN_TASKS, data_file
from selfrefine.store.run import Run


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, FetchTaskSettings)
    parser.add_argument("--include", type=Path, help="a folder with tasks of your own")
    cli.add_record(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    with cli.begin(__file__, args, []) as run:
        if not run.made:
            fetch_task(args, run)


def fetch_task(args: argparse.Namespace, run: Run) -> None:
    from selfrefine.judging.stock_evaluation import load_task  # imports lm-eval

    name = args.settings.task
    found = find_task(name, args.include)
    try:
        task = load_task(name, args.include)
    # What `datasets` raises where the hub is not reached, it also raises for data that are not there.
    except Exception as error:
        where = f"the data set {found.data} of the Hugging Face hub" if found.data else "its data"
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"lm_eval:{name}: {where} could not be loaded ({first}); run snakemake once where the hub can be reached, "
            "with access to the data set, or take the task out of `study.evaluate`"
        ) from error
    configured = task.config
    splits = (configured.test_split, configured.validation_split, configured.training_split, configured.fewshot_split)
    data = {split: task.dataset[split] for split in dict.fromkeys(splits) if split is not None}
    files = [data_file(run.folder, split) for split in data]
    for rows, path in zip(data.values(), files, strict=True):
        with whole_file(path, "wb") as file:
            rows.to_parquet(file)
    if args.include and found.path.is_relative_to(args.include):
        files.append(run.folder / OWN_TASKS)
        pack(args.include, files[-1])
    source = {"source": f"hf:{found.data}" if found.data else f"lm_eval:{name}", "sha256": None}
    run.record(files, items={split: len(rows) for split, rows in data.items()}, source=source)


def pack(folder: Path, target: Path) -> None:
    """Puts a folder into an archive, always the same for the same files."""
    with whole_file(target, "wb") as file, zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.writestr(zipfile.ZipInfo(path.relative_to(folder).as_posix()), path.read_bytes())


if __name__ == "__main__":
    cli.run(main)
