"""Says what lies in a study's store and why, and keeps the store in order.

  study.py why results/quickstart/summary.md        what differs from what is there: which setting, function or input
  study.py why results/store/refine/…               the same of an artifact, or of all of some names
  study.py trace results/quickstart/tables/accuracy.csv arm=refine evaluation=boxes
                                                    the rows with these values, and every file behind them
  study.py trace results/quickstart/figures/accuracy.svg arm=refine     a bar, through the table it was drawn from
  study.py trace results/quickstart/claims.md claim=2 verdict=supported comparisons behind a verdict
  study.py trace --all                              every record and link; counts and faults
  study.py verify                                   every file of the store against its record
  study.py verify --set-aside                       moves damaged artifacts out of the way, to results/set-aside
  study.py prune                                    what the study does not need, with sizes
  study.py prune --configfile a.yaml --configfile b.yaml     what neither of two studies needs
  study.py prune --yes                              deletes that
  study.py adopt tables --because "a helper has moved"   the code of a stage is still its version
  study.py adopt tables --because "…" --new         the code of a stage is a new version

Run it where `snakemake` is run, with the same --configfile.
"""

import argparse
import contextlib
import signal
import sys
from pathlib import Path

from selfrefine import cli
from selfrefine.errors import UserError


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    why = commands.add_parser("why", help="say what differs between an artifact and the nearest that is there")
    why.add_argument(
        "target", nargs="?", help="a file of the results, or an artifact's folder (default: the whole study)"
    )
    add_configuration(why)
    tracing = commands.add_parser("trace", help="follow a result to everything behind it, every hash checked")
    tracing.add_argument("artifact", nargs="?", help="a file of the results")
    tracing.add_argument("wanted", nargs="*", metavar="KEY=VALUE", help="columns and values of the rows to trace")
    tracing.add_argument("--all", action="store_true", help="check the whole results")
    add_results(tracing)
    verify = commands.add_parser("verify", help="check every file of the store against its record")
    verify.add_argument("--set-aside", action="store_true", help="move what is damaged to results/set-aside")
    add_results(verify)
    prune = commands.add_parser("prune", help="list what none of the configurations needs")
    prune.add_argument("--yes", action="store_true", help="delete it")
    prune.add_argument(
        "--configfile",
        type=Path,
        nargs="+",
        action="append",
        help="as for snakemake; once more for each further study whose artifacts are kept",
    )
    adopting = commands.add_parser("adopt", help="put the code of a stage on record as its version")
    adopting.add_argument("stage", help="the stage, such as tables")
    adopting.add_argument("--because", required=True, metavar="REASON", help="why the results are the same, or not")
    adopting.add_argument("--new", action="store_true", help="as a new version: its artifacts are made again")
    return parser.parse_args()


def add_configuration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--configfile", type=Path, nargs="*", default=[], help="as for snakemake")


def add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        help="where the results lie now (default: results); `results/X` in a record is DIR/X",
        metavar="DIR",
    )


def explain(args: argparse.Namespace) -> None:
    from selfrefine.explaining import why
    from selfrefine.opening import open_study

    print("\n".join(why(open_study(args.configfile), args.target)))


def selection(texts: list[str]) -> dict[str, str]:
    """KEY=VALUE pairs, by key."""
    wanted = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals) or key in wanted:
            raise UserError(f"{text}: expected KEY=VALUE, each key once")
        wanted[key] = value
    return wanted


def follow(args: argparse.Namespace) -> None:
    from selfrefine.lineage import check_all, trace
    from selfrefine.links import Results

    if args.all == (args.artifact is not None):
        raise UserError("name an artifact, or --all")
    results = Results(args.results)
    if args.all:
        check_all(results)
    else:
        print("\n".join(trace(results, args.artifact, selection(args.wanted))))
    if results.outside and args.all:
        print(f"{len(results.outside)} files outside the results, not here: not checked")
    if results.others and args.all:
        print(
            f"{len(results.others)} files outside the results, others now than older artifacts were made of: not checked"
        )
    verdict = f"{len(results.faults)} broken" if results.faults else "every link holds"
    print(f"{results.checked()}: {verdict}", flush=True)
    for fault in results.faults:
        print(f"broken: {fault}", file=sys.stderr)
    sys.exit(1 if results.faults else 0)


def verify(args: argparse.Namespace) -> None:
    from selfrefine.upkeep import alone, damaged, set_aside

    with alone(args.results) if args.set_aside else contextlib.nullcontext():
        found = damaged(args.results)
        for record, reasons in found.items():
            print(f"{record.parent}: {'; '.join(reasons)}")
        for record in found if args.set_aside else ():
            print(f"{record.parent} → {set_aside(args.results, record)}")
    if not found:
        print("every artifact is what its record says")
    elif args.set_aside:
        print(
            f"{len(found)} artifacts set aside. `snakemake` makes again what the study lacks without them; what its finished "
            f"artifacts were made of it makes by name: `snakemake {next(iter(found))}`"
        )
    else:
        sys.exit(f"error: {len(found)} artifacts are not what their records say; --set-aside moves them out of the way")


def prune(args: argparse.Namespace) -> None:
    from selfrefine.opening import open_study
    from selfrefine.upkeep import alone, remove, unneeded

    studies = [open_study(paths) for paths in args.configfile or [[]]]
    with alone(Path("results")) if args.yes else contextlib.nullcontext():
        found = unneeded(studies)
        for folder, size in found.items():
            print(f"{size / 1e6:12,.1f} MB  {folder}")
        if args.yes:
            remove(found)
    total = f"{len(found)} folders, {sum(found.values()) / 1e6:,.1f} MB"
    missing = sum(len(study.missing()) for study in studies)
    if missing and not args.yes:
        print(f"{missing} artifacts that are needed are not there: `study.py why` says how they differ from what is")
    print(f"{total}: deleted" if args.yes else f"{total}, not needed" + ("; --yes deletes them" if found else ""))


def put_on_record(args: argparse.Namespace) -> None:
    from selfrefine.versions import adopt

    folder = Path(__file__).resolve().parent
    version = adopt(args.stage, args.because, folder, args.new)
    print(f"{args.stage}: version {version.version}, {len(version.fingerprints)} fingerprints")


def main() -> None:
    args = arguments()
    run = {"why": explain, "trace": follow, "verify": verify, "prune": prune, "adopt": put_on_record}
    run[args.command](args)


if __name__ == "__main__":
    # A reader that has seen enough (`| head`) ends the program without a word.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    cli.run(main)
