"""The jobs that a study has still to run and what they take, as tables for `study.py plan`."""

import collections
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfrefine.report import spending
from selfrefine.report.formats import Rows, Table
from selfrefine.report.spending import Spent
from selfrefine.schema.assumptions import Assumptions
from selfrefine.study.artifact import Artifact
from selfrefine.study.costs import ASSUMPTIONS, costs_of
from selfrefine.study.final_artifacts import FinalArtifacts
from selfrefine.study.hub_sources import hub_notes
from selfrefine.study.open_study import DEFAULT, merge, open_study
from selfrefine.study.pilot import Pilot
from selfrefine.study.planning import Planner
from selfrefine.study.power_table import Design, PowerTable
from selfrefine.study.side_by_side import side_by_side
from selfrefine.study.workload import Cost
from selfrefine.study.yaml_files import read_yaml

HEADER = ("jobs", "GPU hours", "prompts", "generated", "trained", "disk")
TITLES = {
    "stage": "By stage",
    "teacher": "Teachers",
    "student": "Students",
    "benchmark": "Evaluation by benchmark",
}
Costs = dict[str, list[Cost]]


def plan_of(
    configuration: list[Path],
    assumptions: list[Path],
    seeds: Sequence[int] = (),
    items: Sequence[int] = (),
    pilot: Path | None = None,
    against: Sequence[list[Path]] = (),
) -> str:
    """What the jobs take that `snakemake` would run now, and the power of the claims with so many seeds and items.

    Files of `assumptions` go over the shipped ones key by key; estimates of a `pilot`'s claims.json replace them. With
    several numbers of seeds or items, or with the files of further studies `against`, these are compared instead.
    """
    assumed = read_assumptions(assumptions)
    known = Pilot(pilot) if pilot else None
    finals, power = _opened(configuration, assumed, known)
    if against or len(seeds) > 1 or len(items) > 1:
        others = [(_named(paths), _opened(paths, assumed, known)[1]) for paths in against]
        return side_by_side([(_named(configuration), power), *others], seeds, items)
    design = Design(next(iter(seeds), len(finals.study.study.seeds)), next(iter(items), None))
    sections = [tables_of(finals.missing(), power.planner), power.table(design), *hub_notes(finals)]
    return "\n\n".join(sections)


def _opened(paths: list[Path], assumed: Assumptions, pilot: Pilot | None) -> tuple[FinalArtifacts, PowerTable]:
    finals = open_study(paths)
    planner = Planner(finals.study, assumed, lambda task, split: finals.artifacts.items(task, split).file)
    return finals, PowerTable(planner, list(finals.behind_all()), pilot)


def _named(paths: list[Path]) -> str:
    return " ".join(map(str, paths)) or DEFAULT


def read_assumptions(paths: list[Path]) -> Assumptions:
    """The shipped assumptions with each file merged over them."""
    values: dict[str, Any] = {}
    for path in (ASSUMPTIONS, *paths):
        merge(values, read_yaml(path))
    return Assumptions.read(values)


def tables_of(jobs: list[Artifact], planner: Planner) -> str:
    """What the jobs take: by stage, by teacher and student, and evaluation by benchmark."""
    if not jobs:
        return "Nothing would run: everything is up to date."
    groups: dict[str, Costs] = collections.defaultdict(lambda: collections.defaultdict(list))
    for job in jobs:
        cost = planner.cost(job.stage, **job.of)
        for kind, group in _groups_of(job, cost, planner).items():
            groups[kind][group].append(cost)
    sections = [
        "Tokens in millions; disk in GB at the end. "
        "A job that trains also keeps the optimizer state of its weights on disk, until it ends."
    ]
    sections += [_table(kind, title, groups[kind]) for kind, title in TITLES.items() if groups[kind]]
    if spent := _spending_table(groups["stage"], planner):
        sections.append(spent)
    gpu = planner.assumed.gpu
    sections.append(
        f"Estimated for GPUs of {gpu.peak_tflops:g} TFLOPS and {gpu.memory_gb:g} GB that reach {gpu.generate:.0%} of "
        f"their peak in generation and {gpu.train:.0%} in training; see config/assumptions.yaml."
    )
    return "\n\n".join(sections)


def _spending_table(costs: Costs, planner: Planner) -> str:
    """Money, energy and emissions of the stages that take GPU hours, and the total; "" where none does."""
    rates = costs_of(planner.study, planner.assumed.costs)
    hours = {stage: hours for stage, found in costs.items() if (hours := _total(found).gpu_hours)}
    if not hours:
        return ""
    hours["total"] = sum(hours.values())
    rows: Rows = [[stage, *spending.cells(Spent.planned(each), rates)] for stage, each in hours.items()]
    header = ["stage", *spending.header(rates)]
    told = spending.told(Spent.planned(hours["total"]), rates)
    caption = f"{told} Served teachers are not counted: `study.py estimate` prices them."
    table = Table("spending", caption, header, rows, ["l"] + ["r"] * (len(header) - 1)).markdown().strip()
    return f"## Cost and energy\n\n{table}"


def _groups_of(job: Artifact, cost: Cost, planner: Planner) -> dict[str, str]:
    """The groups that a job counts in, {kind of group: group}."""
    stage, of = job.stage, job.of
    groups = {"stage": stage}
    if stage == "evaluate":
        groups["benchmark"] = of["task"]
    if stage == "teach":
        groups["teacher"] = f"{of['teacher']} ({planner.study.teachers[of['teacher']].engine})"
    where = of.get("checkpoint") or of.get("start") or of.get("student")
    if where and cost.gpu_hours:
        gpus = planner.gpus(stage, **of)
        groups["student"] = f"{where.split('/')[0]} ({gpus} GPU{'s' * (gpus > 1)} a job)"
    return groups


def _table(kind: str, title: str, costs: Costs) -> str:
    """Jobs and their costs by group, and the total."""
    rows: Rows = [[group, *_numbers(len(found), _total(found))] for group, found in costs.items()]
    everything = [cost for found in costs.values() for cost in found]
    rows.append(["total", *_numbers(len(everything), _total(everything))])
    return f"## {title}\n\n" + Table(kind, "", [kind, *HEADER], rows, list("lrrrrrr")).markdown().strip()


def _numbers(jobs: int, cost: Cost) -> list[str]:
    """The cells of one row."""
    millions = (f"{tokens / 1e6:,.1f}" if tokens else "" for tokens in cost[1:4])
    hours, disk = (f"{value:,.1f}" if value else "" for value in (cost.gpu_hours, cost.bytes / 1e9))
    return [f"{jobs:,}", hours, *millions, disk]


def _total(costs: list[Cost]) -> Cost:
    """The sum of some costs."""
    result = Cost()
    for cost in costs:
        result = result.plus(cost)
    return result
