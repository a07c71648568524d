"""Makes a student as it comes a checkpoint like any other: a manifest that names its model and no adapter."""

import argparse
from pathlib import Path

from selfrefine import cli
from selfrefine.checkpoints import write_manifest
from selfrefine.provenance import Run


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--model", required=True, type=Path, help="the model's manifest")
    parser.add_argument("--manifest", required=True, type=Path, help="the checkpoint's manifest")
    cli.add_provenance(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    with Run(__file__, {}, [args.model], args.provenance) as run:
        if not run.made:
            write_manifest(args.manifest, "base", args.model.parent, [])
            run.record([args.manifest])


if __name__ == "__main__":
    cli.run(main)
