"""Says what a study would take before anything runs: jobs by stage, GPU hours, tokens and disk.

python scripts/plan.py
python scripts/plan.py --configfile config/paper.yaml
python scripts/plan.py --configfile config/paper.yaml --assume measured.yaml

The jobs are those that `snakemake` would run now; the rest is reckoned from config/assumptions.yaml, over which --assume puts
your own figures. Nothing is run and nothing is changed. Run it where `snakemake` is run.
"""

import argparse
import collections
from pathlib import Path

import yaml

from selfrefine import cli
from selfrefine.errors import UserError
from selfrefine.formats import Table
from selfrefine.keys import Artifact
from selfrefine.opening import merge, open_study
from selfrefine.planning import Assumptions, Cost, Planner

ASSUMPTIONS = Path(__file__).parent.parent / "config/assumptions.yaml"


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--configfile", type=Path, nargs="*", default=[], help="as for snakemake")
    parser.add_argument(
        "--assume", type=Path, nargs="*", default=[], help="files like config/assumptions.yaml, in part"
    )
    return parser.parse_args()


def read_assumptions(paths: list[Path]) -> Assumptions:
    """The shipped assumptions, with each file put over them key by key."""
    values: dict = {}
    for path in (ASSUMPTIONS, *paths):
        try:
            read = yaml.safe_load(path.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"{path}: cannot be read: {error}") from None
        if not isinstance(read, dict):
            raise UserError(f"{path}: holds no keys")
        merge(values, read)
    return Assumptions.read(values)


def numbers(jobs: int, cost: Cost) -> list[str]:
    """One row of a table."""
    millions = (f"{tokens / 1e6:,.1f}" if tokens else "" for tokens in cost[1:4])
    hours, disk = (f"{value:,.1f}" if value else "" for value in (cost.gpu_hours, cost.bytes / 1e9))
    return [f"{jobs:,}", hours, *millions, disk]


def table(name: str, title: str, first: str, costs: dict[str, list[Cost]]) -> str:
    """Jobs and their costs, grouped and summed."""
    header = [first, "jobs", "GPU hours", "prompts", "written", "trained", "disk"]
    rows = [[group, *numbers(len(found), total(found))] for group, found in costs.items()]
    everything = [cost for found in costs.values() for cost in found]
    rows.append(["total", *numbers(len(everything), total(everything))])
    return f"## {title}\n\n" + Table(name, "", header, rows, list("lrrrrrr")).markdown().strip()


def total(costs: list[Cost]) -> Cost:
    """The sum of some costs."""
    result = Cost()
    for cost in costs:
        result = result.plus(cost)
    return result


def report(jobs: list[Artifact], planner: Planner) -> str:
    """What the jobs take: by stage, by model, evaluation by benchmark, teachers by name."""
    groups: dict[str, dict[str, list[Cost]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    for one in jobs:
        rule, wildcards = one.stage, one.of
        cost = planner.cost(rule, **wildcards)
        groups["stage"][rule].append(cost)
        if rule == "evaluate":
            groups["benchmark"][wildcards["task"]].append(cost)
        if rule == "teach":
            engine = planner.study.teachers[wildcards["teacher"]].engine
            groups["teacher"][f"{wildcards['teacher']} ({engine})"].append(cost)
        where = wildcards.get("checkpoint") or wildcards.get("start") or wildcards.get("student")
        if where and cost.gpu_hours:
            student = where.split("/")[0]
            cards = planner.cards(rule, **wildcards)
            groups["student"][f"{student} ({cards} GPU{'s' * (cards > 1)} a job)"].append(cost)
    if not jobs:
        return "Nothing would run: everything is up to date."
    sections = [
        "Tokens in millions; disk in GB, at the end; beside it, weights under training take their optimiser's state."
    ]
    titles = {
        "stage": "By stage",
        "teacher": "Teachers",
        "student": "Students",
        "benchmark": "Evaluation by benchmark",
    }
    sections += [table(name, title, name, groups[name]) for name, title in titles.items() if groups[name]]
    gpu = planner.assumed.gpu
    sections.append(
        f"Reckoned with GPUs of {gpu.peak_tflops:g} TFLOPS and {gpu.memory_gb:g} GB, {gpu.generate:.0%} of the peak reached in "
        f"generation and {gpu.train:.0%} in training; see config/assumptions.yaml."
    )
    return "\n\n".join(sections)


def main() -> None:
    args = arguments()
    assumptions = read_assumptions(args.assume)
    finals = open_study(args.configfile)
    planner = Planner(finals.study, assumptions, lambda *of: finals.artifacts.items(*of).file)
    print(report(finals.missing(), planner))


if __name__ == "__main__":
    cli.run(main)
