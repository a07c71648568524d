"""From any artifact, row of a table, bar of a figure or comparison of a claim to everything behind it, with every hash on the way checked.

Prints the chain: each file's stage, sha256, day and counts, then what it was made from, down to the raw sources.
Counts the rows of tables again from the files behind them (not their intervals). Each broken link is a line on stderr;
the exit status is then 1.

  lineage.py results/tables/accuracy.csv arm=refine evaluation=boxes     the rows with these values
  lineage.py results/figures/accuracy.svg arm=refine evaluation=boxes    a bar, through the table it was drawn from
  lineage.py results/figures/training.svg checkpoint=instruct/oracle     curves, by a part of their logs' paths
  lineage.py results/tables/paper/transfer-tiny.csv arm=refine cell=Boxes  a laid-out table, or one cell of the row
  lineage.py results/claims.md claim=2 verdict=supported                 comparisons behind a verdict
  lineage.py results/pairs/…/0.jsonl                                     any other artifact
  lineage.py --all                                                       every record and link; prints counts and faults
"""

import argparse
import signal
import sys
from pathlib import Path

from selfrefine import cli
from selfrefine.errors import UserError
from selfrefine.lineage import check_all, trace
from selfrefine.links import Results


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("artifact", nargs="?", help="a file of the results")
    parser.add_argument("wanted", nargs="*", metavar="KEY=VALUE", help="columns and values of the rows to trace")
    parser.add_argument("--all", action="store_true", help="check the whole results")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        help="where the study's results lie now (default: results); `results/X` in a record is DIR/X",
        metavar="DIR",
    )
    return parser.parse_args()


def selection(texts: list[str]) -> dict[str, str]:
    """KEY=VALUE pairs, by key."""
    wanted = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals) or key in wanted:
            raise UserError(f"{text}: expected KEY=VALUE, each key once")
        wanted[key] = value
    return wanted


def main() -> None:
    args = arguments()
    if args.all == (args.artifact is not None):
        raise UserError("name an artifact, or --all")
    results = Results(args.results)
    if args.all:
        check_all(results)
    else:
        print("\n".join(trace(results, args.artifact, selection(args.wanted))))
    if results.outside and args.all:
        print(f"{len(results.outside)} files outside the results, not here: not checked")
    verdict = f"{len(results.faults)} broken" if results.faults else "every link holds"
    print(f"{results.checked()}: {verdict}", flush=True)
    for fault in results.faults:
        print(f"broken: {fault}", file=sys.stderr)
    sys.exit(1 if results.faults else 0)


if __name__ == "__main__":
    # A reader that has seen enough (`| head`) ends the program without a word.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    cli.run(main)
