"""Refinements that had too few pairs to learn from and left the student as it was.

A checkpoint counts as unrefined if one of its refinements made no update, the last or one before; an online one, if the
rewards of no group differed. Tables say how many of a row's checkpoints are; claims leave them out unless
`statistics.count_unrefined` says otherwise.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from selfrefine.analysis.accuracy_tables import provenance_of
from selfrefine.analysis.paper_claims import Arm
from selfrefine.analysis.unchanged import COLUMN, OF_ANSWERS, made_no_update, of_unrefined
from selfrefine.schema.results import EvaluatedCell

NEEDED = "refinements with enough pairs to learn from"


def unrefined_samples(cells: Sequence[EvaluatedCell], training: Mapping[str, str]) -> set[str]:
    """The files of judged answers of unrefined checkpoints; `training`: the log of each checkpoint's training."""
    return of_unrefined(cells, [name for name, log in training.items() if made_no_update(provenance_of(log))])


def mark(tables: Mapping[str, pd.DataFrame], cells: Sequence[EvaluatedCell], unrefined: Collection[str]) -> None:
    """Adds to each table how many of a row's checkpoints are unrefined."""
    for name in OF_ANSWERS:
        table = tables[name]
        one = 1 if name == "comparisons" else None
        counts = [sum(path in unrefined for path in str(paths).split()[:one]) for paths in table["samples"]]
        table.insert(int(table.columns.get_loc("samples")), COLUMN, counts)
    arms: dict[tuple[str, ...], set[str]] = {}
    for cell in cells:
        if cell["samples"] in unrefined:
            of = str(cell["student"]), cell["arm"], str(cell["share"]), cell.get("select", "")
            arms.setdefault(of, set()).add(cell["checkpoint"])
    costs = tables["costs"]
    known = zip(*(costs[fact].map(str) for fact in ("student", "arm", "share", "select")), strict=True)
    costs.insert(int(costs.columns.get_loc("jobs")), COLUMN, [len(arms.get(of, ())) for of in known])


class Kept(NamedTuple):
    """The two arms of a comparison with the seeds that count, and those that are unrefined, counted or not."""

    treated: Arm
    control: Arm
    unrefined: list[int | str]
    left_out: list[int | str]

    @property
    def is_empty(self) -> bool:
        """Whether no seed is left to compare."""
        return not (self.treated.samples and self.control.samples)


class Unrefined(NamedTuple):
    """The files of judged answers of a study's unrefined checkpoints, and whether claims count them."""

    files: frozenset[Path] = frozenset()
    counted: bool = False

    @classmethod
    def of(cls, files: Collection[str], counted: bool) -> "Unrefined":
        return cls(frozenset(map(Path, files)), counted)


NONE = Unrefined()


def kept(treated: Arm, control: Arm, unrefined: Unrefined) -> Kept:
    """Two arms without the seeds where one of them is unrefined, unless these count; seeds stay in pairs."""
    found = {seed for arm in (treated, control) for seed, path in arm.samples.items() if path in unrefined.files}
    if unrefined.counted or not found:
        return Kept(treated, control, sorted(found, key=str), [])

    def without(arm: Arm) -> Arm:
        return arm._replace(samples={seed: path for seed, path in arm.samples.items() if seed not in found})

    return Kept(without(treated), without(control), [], sorted(found, key=str))
