"""Designs side by side: their jobs, GPU hours, cost and energy, and the power of each claim."""

from collections.abc import Sequence

from selfrefine.report import spending
from selfrefine.report.formats import NONE, Rows, Table
from selfrefine.report.spending import Spent
from selfrefine.study.costs import costs_of
from selfrefine.study.power_table import Design, PowerTable

LAST = ("kWh", "kg CO2e")


def side_by_side(studies: Sequence[tuple[str, PowerTable]], seeds: Sequence[int], items: Sequence[int]) -> str:
    """A column for each study, by its name, with each number of seeds and of items; without numbers, as configured."""
    sizes: Sequence[int | None] = items or [None]
    columns = [
        (name, power, Design(number, most))
        for name, power in studies
        for number in seeds or [len(power.study.study.seeds)]
        for most in sizes
    ]
    several = len(studies) > 1
    header = ["", *(f"{name}: {design}" if several else str(design) for name, _, design in columns)]
    priced = [
        (Spent.planned(power.cost(design)), costs_of(power.study, power.planner.assumed.costs))
        for _, power, design in columns
    ]
    figures = [dict(zip(spending.header(costs), spending.cells(spent, costs), strict=True)) for spent, costs in priced]
    rows: Rows = [["jobs", *(f"{power.jobs(design):,}" for _, power, design in columns)]]
    named = list(dict.fromkeys(name for each in figures for name in each))
    # Prices stand between GPU hours and energy, whichever study has them.
    named.sort(key=lambda name: (name in LAST, name != "GPU hours"))
    rows += [[name, *(each.get(name, NONE) or "0" for each in figures)] for name in named]
    rows.append(None)
    powers = [power.powers(design) for _, power, design in columns]
    for claim in sorted({claim for found in powers for claim in found}, key=_number):
        found = [each.get(claim) for each in powers]
        rows.append([f"power: {claim}", *(NONE if each is None else f"{100 * each:.0f} %" for each in found)])
    rests = list(dict.fromkeys(spending.told(*each) for each in priced))
    caption = (
        "Of whole studies: jobs that are done count as well. Power: the probability that the claim is supported; – where "
        f"the study does not test it. {' '.join(rests)}"
    )
    table = Table("designs", caption, header, rows, ["l"] + ["r"] * len(columns)).markdown().strip()
    own = [(name, power.assumptions()) for name, power in studies]
    told = [own[0][1]] if len({text for _, text in own}) == 1 else [f"{name}: {text}" for name, text in own]
    return "\n\n".join(["## Designs side by side", table, *told])


def _number(claim: str) -> tuple[int, str]:
    return int(claim.partition(".")[0]), claim
