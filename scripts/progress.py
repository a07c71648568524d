"""Says how far the running stages are, from the ends of their logs."""

import argparse
import time
from pathlib import Path

from selfrefine import cli
from selfrefine.progress import QUIET, running


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="the folder of the logs (default: logs)")
    return parser.parse_args()


def main() -> None:
    lines = running(arguments().logs, time.time() - QUIET)
    print("\n".join(lines) if lines else "no stage has written to its log lately")


if __name__ == "__main__":
    cli.run(main)
