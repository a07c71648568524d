"""Fetches a model's weights, checks them, and writes them as a Hugging Face folder (safetensors) with a manifest.

GGUF files are dequantised to bfloat16 once, here; pickled weights and remote code are refused.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from selfrefine import cli
from selfrefine.errors import UserError
from selfrefine.files import write_json
from selfrefine.models import convert_gguf
from selfrefine.provenance import Run, describe_files
from selfrefine.sources import Source, fetch, fetch_model


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_recipe(parser, Source)
    parser.add_argument(
        "--manifest", required=True, type=Path, help="the manifest, in the folder that the weights go to"
    )
    cli.add_provenance(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    with Run(__file__, args.recipe.model_dump(), args.recipe.local_files(), args.provenance) as run:
        if not run.made:
            make(args, run)


def make(args: argparse.Namespace, run: Run) -> None:
    folder = args.manifest.parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        complete = Path(scratch) / "complete"
        if args.recipe.source.startswith("hf-model:"):
            fetch_model(args.recipe.source, complete)
        elif args.recipe.source.startswith("file:") and Path(args.recipe.source.removeprefix("file:")).is_dir():
            shutil.copytree(args.recipe.source.removeprefix("file:"), complete)
        elif args.recipe.suffix == ".gguf" or args.recipe.parts > 1:
            weights = Path(scratch) / "weights.gguf"
            fetch(args.recipe, weights)
            convert_gguf(weights, complete, args.recipe.source)
        else:
            raise UserError(f"{args.recipe.source}: weights must be a .gguf file, a folder or an hf-model: repository")
        ours = {args.manifest.name, args.provenance.name}
        found = (str(path.relative_to(complete)) for path in complete.rglob("*") if path.is_file())
        names = sorted(name for name in found if name not in ours)
        if not any(name.endswith(".safetensors") for name in names):
            raise UserError(f"{args.recipe.source}: has no safetensors weights; pickled weights are refused")
        for name in names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(complete / name, target)
    write_json(
        args.manifest, {"artifact": "model", "source": args.recipe.model_dump(), "files": describe_files(folder, names)}
    )
    run.record([args.manifest, *(folder / name for name in names)])


if __name__ == "__main__":
    cli.run(main)
