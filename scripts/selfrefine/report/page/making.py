"""How the study was made: which versions on which machines, and what it cost."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from selfrefine.analysis.costs import STAGES
from selfrefine.report.page.page_inputs import PageInputs
from selfrefine.store.files import read_json

DOES = {
    "embed": "The student reads the questions",
    "choose": "Items are chosen",
    "teach": "The teacher answers",
    "mix": "Answers of several teachers are mixed",
    "demonstrate": "Demonstrations are selected",
    "instruct": "The student is instructed",
    "sample": "The student samples paths",
    "pair": "Pairs are formed",
    "refine": "The student is refined",
    "refine_online": "The student is refined on what it samples",
    "evaluate": "Checkpoints are evaluated",
}


class StageCost(NamedTuple):
    """What all jobs of a stage took together; `share` is its part of the wall time, in percent."""

    title: str
    jobs: int
    seconds: float
    tokens: int
    peak_memory_mib: int
    share: float


class Cost(NamedTuple):
    """What the study took."""

    jobs: int
    seconds: float
    tokens: int
    peak_memory_mib: int
    stages: list[StageCost]


def cost(inputs: PageInputs) -> Cost:
    """Sums of stages.csv."""
    rows = inputs.tables.stages()
    whole = sum(row["wall_seconds"] for row in rows)
    stages = []
    for stage in sorted({row["stage"] for row in rows}, key=STAGES.index):
        mine = [row for row in rows if row["stage"] == stage]
        seconds = sum(row["wall_seconds"] for row in mine)
        peak = max(row["peak_memory_mib"] for row in mine)
        tokens = sum(row["tokens"] for row in mine)
        stages.append(StageCost(DOES[stage], len(mine), seconds, tokens, peak, 100 * seconds / whole if whole else 0))
    tokens, peak = sum(row["tokens"] for row in rows), max(row["peak_memory_mib"] for row in rows)
    return Cost(len(rows), whole, tokens, peak, stages)


def duration(seconds: float) -> str:
    """A time in the two units that say most: 35 s, 4 min 10 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if whole or not seconds else "under 1 s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Made(NamedTuple):
    """Versions of packages and facts of machines, each with every value that the study's jobs had."""

    packages: list[tuple[str, str]]
    machines: list[str]
    first: str
    last: str


def made(inputs: PageInputs) -> Made:
    """What the records of the study's jobs say."""
    records = [read_json(Path(name)) for name in inputs.index["records"]]
    packages: dict[str, list[str]] = {}
    for record in records:
        for package, version in record["packages"].items():
            packages.setdefault(package, []).append(version)
    days = sorted(record["started"] for record in records)
    return Made(
        [(name, ", ".join(dict.fromkeys(versions))) for name, versions in packages.items()],
        unique(machine(record["machine"]) for record in records),
        days[0][:10],
        days[-1][:10],
    )


def machine(facts: dict[str, Any]) -> str:
    """A machine in one line."""
    return ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in facts.items() if value not in (None, "", [])
    )


def unique(texts: Iterable[str]) -> list[str]:
    """Strings in their order, each once."""
    return list(dict.fromkeys(texts))
