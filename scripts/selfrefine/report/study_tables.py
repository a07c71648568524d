"""Reads the study's tables as typed rows."""

import csv
import math
from pathlib import Path
from typing import Any, cast, get_type_hints

from selfrefine.report.model_names import AS_NAMED, Models
from selfrefine.schema import results

DROPPED = "dropped"


class StudyTables:
    """The tables in a folder, as typed rows; numbers that are not there are NaN or 0.

    Students and teachers stand in the rows by the titles that `models` has for them.
    """

    def __init__(self, folder: Path, models: Models = AS_NAMED):
        self.folder = folder
        self.models = models

    def accuracy(self) -> list[results.AccuracyRow]:
        return cast(list[results.AccuracyRow], self._read("accuracy", results.AccuracyRow))

    def arms(self) -> list[results.ArmRow]:
        return cast(list[results.ArmRow], self._read("arms", results.ArmRow))

    def comparisons(self) -> list[results.ComparisonRow]:
        return cast(list[results.ComparisonRow], self._read("comparisons", results.ComparisonRow))

    def lengths(self) -> list[results.LengthRow]:
        return cast(list[results.LengthRow], self._read("lengths", results.LengthRow))

    def demonstrations(self) -> list[results.DemonstrationRow]:
        return cast(list[results.DemonstrationRow], self._read("demonstrations", results.DemonstrationRow))

    def paths(self) -> list[results.PathRow]:
        return cast(list[results.PathRow], self._read("paths", results.PathRow))

    def solving(self) -> list[results.SolvingRow]:
        return cast(list[results.SolvingRow], self._read("solving", results.SolvingRow))

    def pass_at_k(self) -> list[results.PassRow]:
        return cast(list[results.PassRow], self._read("pass_at_k", results.PassRow))

    def pairs(self) -> list[results.PairRow]:
        return cast(list[results.PairRow], self._read("pairs", results.PairRow, "dropped_"))

    def refinements(self) -> list[results.RefinementRow]:
        return cast(list[results.RefinementRow], self._read("refinements", results.RefinementRow))

    def stages(self) -> list[results.StageRow]:
        return cast(list[results.StageRow], self._read("stages", results.StageRow))

    def costs(self) -> list[results.CostRow]:
        return cast(list[results.CostRow], self._read("costs", results.CostRow))

    def _read(self, name: str, row: type, prefix: str = "") -> list[dict[str, Any]]:
        kinds = get_type_hints(row)
        with open(self.folder / f"{name}.csv", encoding="utf-8", newline="") as file:
            rows = [{results.SELECT: "", **cells} for cells in csv.DictReader(file)]
        return [self.models.titled(typed(cells, kinds, prefix)) for cells in rows]


def typed(cells: dict[str, str], kinds: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """One row's cells, as the kinds of its columns say.

    Where a row has a place for items dropped by reason, other columns with the prefix are the reasons.
    """
    row: dict[str, Any] = {name: _value(cells[name], kind) for name, kind in kinds.items() if name != DROPPED}
    if DROPPED in kinds:
        reasons = [name for name in cells if name not in kinds and name.startswith(prefix)]
        row[DROPPED] = {name.removeprefix(prefix): _value(cells[name], int) for name in reasons}
    return row


def _value(text: str, kind: type) -> str | int | float:
    if kind is str:
        return text
    number = float(text) if text else math.nan
    if kind is float:
        return number
    return 0 if math.isnan(number) else int(number)
