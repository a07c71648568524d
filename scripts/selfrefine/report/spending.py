"""What GPU hours cost in money, energy and emissions, as cells of a table, and what that rests on."""

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from selfrefine.schema.assumptions import Costs
from selfrefine.schema.results import CostRow, StageRow

HOUR = 3600


class Spent(NamedTuple):
    """Hours of GPUs, those of them that a meter counted with the kilowatt-hours that it counted, and of the rest.

    `host_hours` are for each GPU of a job, or for a job without.
    """

    gpu_hours: float = 0.0
    metered_hours: float = 0.0
    metered_kwh: float = 0.0
    host_hours: float = 0.0

    @classmethod
    def planned(cls, gpu_hours: float) -> "Spent":
        """Hours that are estimated: nothing measured them."""
        return cls(gpu_hours, host_hours=gpu_hours)

    @classmethod
    def of(cls, rows: Iterable[StageRow | CostRow]) -> "Spent":
        """The sum of rows of stages.csv or costs.csv."""
        total = cls()
        for row in rows:
            host = max(row["gpu_seconds"], row["wall_seconds"])
            seconds = (row["gpu_seconds"], row["metered_gpu_seconds"], host)
            gpus, metered, rest = (each / HOUR for each in seconds)
            total = total.plus(cls(gpus, metered, row["gpu_wh"] / 1000, rest))
        return total

    def plus(self, other: "Spent") -> "Spent":
        """The sum, part by part."""
        return Spent(*(mine + its for mine, its in zip(self, other, strict=True)))

    def kwh(self, costs: Costs) -> float:
        """The energy: what was metered, what is assumed for the rest, and what the building adds."""
        assumed = (self.gpu_hours - self.metered_hours) * costs.gpu_watts + self.host_hours * costs.host_watts
        return (self.metered_kwh + assumed / 1000) * costs.pue


def header(costs: Costs) -> list[str]:
    """The columns of `cells`."""
    return ["GPU hours", *(f"{costs.currency}, {name}" for name in costs.prices), "kWh", "kg CO2e"]


def cells(spent: Spent, costs: Costs) -> list[str]:
    """GPU hours, their cost at each price, energy and emissions; the first ones are empty where no GPU was used."""
    kwh = spent.kwh(costs)
    money = [spent.gpu_hours * price for price in costs.prices.values()]
    gpus = [plain(number) if spent.gpu_hours else "" for number in (spent.gpu_hours, *money)]
    return [*gpus, plain(kwh), plain(kwh * costs.grid)]


def plain(number: float) -> str:
    """A number with no more digits than an estimate deserves: two, or all before the point."""
    return f"{number:.0f}" if number >= 10 else format(Decimal(f"{number:.2g}"), "f")


def told(spent: Spent, costs: Costs) -> str:
    """What the cells rest on, in a sentence or two."""
    prices = ", ".join(f"{name} {price:g}" for name, price in costs.prices.items())
    share = spent.metered_hours / spent.gpu_hours if spent.gpu_hours else 0.0
    metered = f"metered for {share:.0%} of the GPU hours; else assumed, with " if share else "assumed, with "
    gpus = f"{costs.gpu_watts:g} W a GPU and " if spent.gpu_hours and share < 1 else ""
    rest = f"{costs.host_watts:g} W for the rest of the machine" + (" a GPU" if spent.gpu_hours else " a job")
    money = f" Prices assumed of a GPU hour, in {costs.currency}: {prices}." if spent.gpu_hours and prices else ""
    return f"Energy: {metered}{gpus}{rest}, times {costs.pue:g} for the building; {costs.grid:g} kg CO2e a kWh.{money}"
