"""Fetches a model's weights, checks them, and writes them as a Hugging Face folder (safetensors).

GGUF files are dequantised to bfloat16 once, here; pickled weights and remote code are refused. So is a model that a
later job could not use: with weights cut off or not finite, without a tokenizer or a chat template, without the modules
that are to be adapted.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from selfrefine.data.fetching import fetch, fetch_model
from selfrefine.errors import UserError
from selfrefine.models.checkpoints import convert_gguf
from selfrefine.models.suitability import check_model
from selfrefine.models.weight_files import check_files, copy_folder
from selfrefine.programs import cli
from selfrefine.schema.model_use import ModelUse
from selfrefine.schema.source import Source
from selfrefine.schema.stages import FetchSettings
from selfrefine.store.locations import HASHES, RECORD
from selfrefine.store.run import Run


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, FetchSettings)
    cli.add_source(parser)
    parser.add_argument(
        "--uses",
        type=read_uses,
        default=[],
        metavar="JSON",
        help="the students and teachers that the model answers for: [{key, system, chat_template, targets}]",
    )
    cli.add_record(parser)
    return parser.parse_args()


def read_uses(text: str) -> list[ModelUse]:
    """The uses of a model, from JSON."""
    return [ModelUse.model_validate(use) for use in json.loads(text)]


def main() -> None:
    args = arguments()
    with cli.begin(__file__, args, []) as run:
        if not run.made:
            make(args.source, run, args.uses)


def make(source: Source, run: Run, uses: list[ModelUse]) -> None:
    """Fetches the weights into the artifact's folder, and records them."""
    folder = run.folder
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        complete = Path(scratch) / "complete"
        if source.source.startswith("hf-model:"):
            fetch_model(source.source, complete)
        elif source.source.startswith("file:") and Path(source.source.removeprefix("file:")).is_dir():
            copy_folder(Path(source.source.removeprefix("file:")), complete)
        elif source.suffix == ".gguf" or source.parts > 1:
            weights = Path(scratch) / "weights.gguf"
            fetch(source, weights)
            convert_gguf(weights, complete, source.source)
        else:
            raise UserError(f"{source.source}: weights must be a .gguf file, a folder or an hf-model: repository")
        found = (str(path.relative_to(complete)) for path in complete.rglob("*") if path.is_file())
        names = sorted(name for name in found if Path(name).name not in (RECORD, HASHES))
        if not any(name.endswith(".safetensors") for name in names):
            raise UserError(f"{source.source}: has no safetensors weights; pickled weights are refused")
        check_files(complete, source.source)
        check_model(complete, source.source, uses)
        for name in names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(complete / name, target)
    run.record([folder / name for name in names], source=source.model_dump())


if __name__ == "__main__":
    cli.run(main)
