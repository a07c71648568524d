"""Preview benchmarks, plan a study, explain and check its results, and keep its store in order.

Run it where `snakemake` is run, with the same --configfile. `study.py COMMAND --help` has more about each command.

preview asdiv
plan
why results/quickstart/summary.md
"""

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

from selfrefine.errors import UserError
from selfrefine.programs import cli
from selfrefine.programs.subcommands import (
    add_commands,
    add_configuration,
    configuration,
    configuration_last,
    configurations,
    program,
)

RESULTS = "where the results are now (default: results); `results/X` in a record is DIR/X"

# One function adds the arguments of each command; its docstring is the command's help, with examples. What a command
# needs is imported when it runs: `trace` works where neither torch nor YAML is installed.


def plan(command: argparse.ArgumentParser) -> None:
    """Count the jobs that snakemake would run, estimate their GPU hours, tokens and disk, and give the claims' power.

    The power is of the study as configured, or with the seeds and items that are given; and the cheapest design is
    named that decides each claim with a probability of 80 %. What is assumed stands beside it. Several numbers of seeds
    or items, or further studies, are compared side by side.

    plan
    plan --seeds 5 --items 1000 --pilot results/quickstart/claims.json
    plan --seeds 3 5 10 --items 500 1000
    plan --configfile config/paper.yaml --against config/studies/paper-pilot.yaml
    """
    add_configuration(command)
    assume = "your own figures, in files with some of the keys of config/assumptions.yaml"
    command.add_argument("--assume", type=Path, nargs="+", default=[], metavar="FILE", help=assume)
    number = "the power with so many {} (default: as configured); several are compared"
    several = {"type": cli.whole_number, "nargs": "+", "default": [], "metavar": "N"}
    command.add_argument("--seeds", **several, help=number.format("training seeds"))
    command.add_argument("--items", **several, help=number.format("items of each benchmark"))
    pilot = "the claims.json of a finished study, whose estimates replace assumptions about the claims"
    command.add_argument("--pilot", type=Path, metavar="FILE", help=pilot)
    against = "the configuration files of a study to compare with; once more for each further study"
    files = {"type": Path, "nargs": "+", "action": "append", "default": [], "metavar": "FILE"}
    command.add_argument("--against", **files, help=against)

    def run(args: argparse.Namespace) -> None:
        from selfrefine.study.job_table import plan_of

        print(plan_of(configuration(args), args.assume, args.seeds, args.items, args.pilot, args.against))

    command.set_defaults(run=run)


def preview(command: argparse.ArgumentParser) -> None:
    """Show a benchmark's items as a student will see them, what was dropped and why, answers and lengths.

    It needs no run of the workflow. A raw file that is not on this machine is fetched to its place in the store. The exit
    status is 1 if the workflow would refuse the benchmark.

    preview asdiv
    preview mine --split train --configfile config/mine.yaml
    """
    command.add_argument("benchmark", help="the benchmark's name")
    command.add_argument("--split", choices=("train", "test"), help="default: test, if it has one")
    command.add_argument("--items", type=int, default=10, metavar="N", help="how many items (default: %(default)s)")
    add_configuration(command)

    def run(args: argparse.Namespace) -> None:
        from selfrefine.programs.preview import preview
        from selfrefine.study.open_study import open_study

        found = preview(open_study(configuration(args)), args.benchmark, args.split, args.items)
        print("\n".join(found.lines))
        sys.exit(1 if found.refused else 0)

    command.set_defaults(run=run)


def why(command: argparse.ArgumentParser) -> None:
    """Say which artifacts would be made, and which setting, function or input differs from those that are there.

    why
    why --configfile config/config.yaml results/quickstart/summary.md
    """
    add_configuration(command)
    target = "a file of the results, or an artifact's folder (default: the whole study)"
    command.add_argument("target", nargs="?", help=target)

    def run(args: argparse.Namespace) -> None:
        from selfrefine.audit.why import why
        from selfrefine.study.open_study import open_study

        print("\n".join(why(open_study(configuration(args)), args.target)))

    command.set_defaults(run=run)


def trace(command: argparse.ArgumentParser) -> None:
    """Follow a result to every file and job behind it, and check every link on the way.

    trace results/quickstart/tables/accuracy.csv arm=refine
    trace results/quickstart/figures/accuracy.svg arm=baseline
    trace results/quickstart/claims.md claim=2
    trace --all
    """
    command.add_argument("artifact", nargs="?", help="a file of the results")
    command.add_argument("wanted", nargs="*", metavar="COLUMN=VALUE", help="the rows to trace")
    command.add_argument("--all", action="store_true", help="check all results")
    command.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help=RESULTS)

    def run(args: argparse.Namespace) -> None:
        from selfrefine.audit.trace import print_trace

        if args.all == (args.artifact is not None):
            raise UserError("name an artifact, or --all")
        sys.exit(0 if print_trace(args.results, args.artifact, args.wanted) else 1)

    command.set_defaults(run=run)


def verify(command: argparse.ArgumentParser) -> None:
    """Check every file of the store against its record.

    verify
    verify --set-aside
    """
    command.add_argument("--set-aside", action="store_true", help="move damaged artifacts to results/set-aside")
    command.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help=RESULTS)

    def run(args: argparse.Namespace) -> None:
        from selfrefine.audit.upkeep import verify

        verify(args.results, args.set_aside)

    command.set_defaults(run=run)


def prune(command: argparse.ArgumentParser) -> None:
    """List what the store holds and no study needs, with sizes; with --yes, delete it.

    prune
    prune --configfile config/config.yaml --configfile config/paper.yaml
    """
    add_configuration(command, "; once more for each further study whose artifacts are kept")
    command.add_argument("--yes", action="store_true", help="delete what is listed")

    def run(args: argparse.Namespace) -> None:
        from selfrefine.audit.upkeep import prune
        from selfrefine.study.open_study import open_study

        prune([open_study(paths) for paths in configurations(args)], args.yes)

    command.set_defaults(run=run)


def adopt(command: argparse.ArgumentParser) -> None:
    """List the present code of a stage under its version, so that what earlier code made stays valid.

    adopt tables --because "a helper was renamed"
    adopt tables --because "ties count half" --new
    """
    command.add_argument("stage", help="the stage, such as tables")
    command.add_argument("--because", required=True, metavar="REASON", help="why the results are the same, or not")
    command.add_argument("--new", action="store_true", help="as a new version: the stage's artifacts are made again")

    def run(args: argparse.Namespace) -> None:
        from selfrefine.store.versions import adopt

        version = adopt(args.stage, args.because, Path(__file__).resolve().parent, args.new)
        print(f"{args.stage}: version {version.version}, {len(version.fingerprints)} fingerprints")

    command.set_defaults(run=run)


def crate(command: argparse.ArgumentParser) -> None:
    """Describe a study as a Workflow Run RO-Crate, in a file beside the workflow or with all files in an archive.

    crate --license CC-BY-4.0 --author "Ada Example <https://orcid.org/0000-0002-1825-0097>"
    crate --license CC-BY-4.0 --archive study.zip --without-weights
    """
    command.add_argument("--license", required=True, metavar="SPDX", help="the crate's licence, such as CC-BY-4.0")
    title = "the crate's title (default: %(default)s)"
    command.add_argument("--name", default="Self-Refine Instruction-Tuning", help=title)
    command.add_argument("--description", help="what the study is (default: the number of its jobs and files)")
    author = 'who the crate is by, as "Ada Example <https://orcid.org/…>"; may be repeated (default: of CITATION.cff)'
    command.add_argument("--author", action="append", default=[], metavar="PERSON", help=author)
    citation = "a CITATION.cff with the authors, publisher and repository (default: CITATION.cff beside the Snakefile)"
    command.add_argument("--citation", type=Path, metavar="FILE", help=citation)
    command.add_argument("--archive", type=Path, help="a zip to write, instead of ro-crate-metadata.json alone")
    weights = "leave *.safetensors out of the archive: they are listed by size and sha256"
    command.add_argument("--without-weights", action="store_true", help=weights)
    command.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")

    def run(args: argparse.Namespace) -> None:
        from selfrefine.audit.crate import Description, read_author, read_licence, write_crate

        authors = [read_author(text) for text in args.author]
        licence = read_licence(args.license)
        description = Description(args.name, licence, authors, args.description, args.citation)
        print(write_crate(args.results, description, args.archive, args.without_weights))

    command.set_defaults(run=run)


def share(command: argparse.ArgumentParser) -> None:
    """Copy a finished study to a folder that others can trace, without weights and the text of benchmarks.

    share laptop docs/laptop-study
    """
    command.add_argument("study", help="the study's name, as in results/STUDY")
    command.add_argument("folder", type=Path, help="a new folder to copy to")
    command.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")

    def run(args: argparse.Namespace) -> None:
        from selfrefine.audit.sharing import share

        print(share(args.results, args.study, args.folder))

    command.set_defaults(run=run)


def record(command: argparse.ArgumentParser) -> None:
    """Keep a teacher's completions in a file, for engine `recorded` to replay instead of generating or paying again.

    record --teacher gpt-3.5 --answers results/store/teach/gpt-3.5/*/*/record.json --output gpt-3.5.jsonl
    """
    command.add_argument("--teacher", required=True, help="the teacher's name")
    answers = "outputs of the stage teach, by their records, or the files beside these"
    command.add_argument("--answers", required=True, nargs="+", type=cli.file_of("teach"), help=answers)
    model = "the record of the weights that answered (engines transformers and vllm)"
    command.add_argument("--model", type=Path, metavar="RECORD", help=model)
    command.add_argument("--output", required=True, type=Path, help="the recording to write")

    def run(args: argparse.Namespace) -> None:
        from selfrefine.engines.recording import write_recording

        print(write_recording(args.answers, args.teacher, args.model, args.output))

    command.set_defaults(run=run)


def batch(command: argparse.ArgumentParser) -> None:
    """Ask a served teacher through files of the OpenAI Batch API, at its lower price and pace.

    batch export --teacher gpt-3.5 --configfile config/paper.yaml --output batch.jsonl
    batch import --teacher gpt-3.5 --configfile config/paper.yaml batch_output.jsonl
    """
    add_commands(command, (export, import_), "export|import")


def export(command: argparse.ArgumentParser) -> None:
    """Write the requests that are not answered yet as batch input.

    batch export --teacher gpt-3.5 --configfile config/paper.yaml --output batch.jsonl
    """
    command.add_argument("--teacher", required=True, help="the teacher's name in the study")
    add_asked(command)
    command.add_argument("--output", required=True, type=Path, help="the batch input, JSON Lines")
    command.add_argument("--url", default="/v1/chat/completions", help="the path that each line names")
    limits, limit = ("max_completion_tokens", "max_tokens"), "what the server calls the limit on a completion's tokens"
    command.add_argument("--limit-field", default=limits[0], choices=limits, help=f"{limit} (default: %(default)s)")

    def run(args: argparse.Namespace) -> None:
        from selfrefine.engines.openai.batch import asked_of, export

        export(asked_of(read_asked(args), args.teacher), args.output, args.url, args.limit_field)

    command.set_defaults(run=run)


def import_(command: argparse.ArgumentParser) -> None:
    """Take a batch's answers into the teacher's store, where the study finds them.

    batch import --teacher gpt-3.5 --configfile config/paper.yaml batch_output.jsonl
    """
    command.add_argument("files", nargs="+", type=Path, help="the batch's output and error files")
    command.add_argument("--teacher", required=True, help="the teacher's name in the study")
    add_asked(command)

    def run(args: argparse.Namespace) -> None:
        from selfrefine.engines.openai.batch import asked_of, import_answers

        import_answers(asked_of(read_asked(args), args.teacher), args.files)

    command.set_defaults(run=run)


def estimate(command: argparse.ArgumentParser) -> None:
    """Estimate the cost of asking served teachers what their stores do not answer; asks nothing.

    estimate --configfile config/paper.yaml
    """
    add_asked(command)

    def run(args: argparse.Namespace) -> None:
        from selfrefine.engines.openai.cost_estimate import lines

        found = [line for one in read_asked(args) for line in lines(one)]
        print("\n".join(found) or "no teacher of the study is served")

    command.set_defaults(run=run)


def add_asked(command: argparse.ArgumentParser) -> None:
    """Adds what says what a study asks of served teachers: its configuration, or the listing made from it."""
    add_configuration(command)
    listing = "the listing that `snakemake estimate` makes, or its record, in place of the configuration"
    command.add_argument("--asked", type=Path, metavar="FILE", help=listing)


def read_asked(args: argparse.Namespace) -> Any:
    """What a study asks of served teachers."""
    from selfrefine.engines.openai import cost_estimate
    from selfrefine.study.open_study import open_study

    if args.asked:
        return cost_estimate.read_asked(cost_estimate.asked_file(args.asked))
    return cost_estimate.asked_in(json.loads(open_study(configuration(args)).listings.text("asked")))


def build() -> argparse.ArgumentParser:
    """The program's arguments, those of every command among them."""
    return program(__doc__, (preview, plan, why, trace, verify, prune, adopt, crate, share, record, batch, estimate))


def main() -> None:
    args = build().parse_args(configuration_last(sys.argv[1:]))
    args.run(args)


if __name__ == "__main__":
    # A reader that has seen enough (`| head`) ends the program without a message.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    cli.run(main)
