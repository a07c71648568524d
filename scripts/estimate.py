"""Says what it would cost to ask a study's served teachers what their stores do not answer; asks nothing.

`snakemake estimate` runs it. Without a tokenizer at hand, tokens are characters / 4 until the store has answers to go by.
"""

import argparse

from selfrefine import cli
from selfrefine.asking import asked_file, lines, read_asked


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--asked", required=True, type=asked_file, help="the listing of what the study asks, or its record"
    )
    return parser.parse_args()


def main() -> None:
    asked = read_asked(arguments().asked)
    print("\n".join(line for one in asked for line in lines(one)) if asked else "no teacher of the study is served")


if __name__ == "__main__":
    cli.run(main)
