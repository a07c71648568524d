"""Which students a refinement left as they were, by records alone.

Apart from unrefined.py, as results are checked where no more than pydantic is installed.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from selfrefine.schema.results import EvaluatedCell

COLUMN = "unrefined"
# The tables whose rows name the judged answers behind them, their own arm's first.
OF_ANSWERS = ("accuracy", "arms", "comparisons", "lengths", "pass_at_k")


def made_no_update(record: Mapping[str, Any]) -> bool:
    """Whether a job's record is of a refinement that left its student as it was: without pairs, or online, where no
    group's rewards ever differed."""
    figures = record["figures"]
    if record["stage"] == "refine_online":
        return figures.get("groups_varied") == 0
    return record["stage"] == "refine" and figures.get("updates") == 0


def of_unrefined(cells: Sequence[EvaluatedCell], without_update: Collection[str]) -> set[str]:
    """The files of judged answers of the checkpoints that went through one of these refinements."""
    begun = tuple(f"{name}/" for name in without_update)
    return {cell["samples"] for cell in cells if begun and f"{cell['checkpoint']}/".startswith(begun)}
