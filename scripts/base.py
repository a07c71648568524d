"""Makes a student as it comes a checkpoint like any other: a manifest that names its model and no adapter."""

import argparse
from pathlib import Path

from selfrefine import cli
from selfrefine.checkpoints import write_manifest


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--model", required=True, type=Path, help="the model's manifest")
    parser.add_argument("--manifest", required=True, type=Path, help="the checkpoint's manifest")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    write_manifest(args.manifest, "base", args.model.parent, [])


if __name__ == "__main__":
    cli.run(main)
