"""What the log of a refinement says of its held-out pairs at the update that was kept.

Without packages beyond the standard library, as results are checked where no more than pydantic is installed.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

# Columns of training.jsonl at the kept update.
AT_KEPT = ("loss", "accuracy", "chosen_token_logp", "rejected_token_logp")


def at_kept_update(log: Sequence[Mapping[str, Any]], kept: int) -> dict[str, float]:
    """The held-out pairs' numbers at the kept update, and some at the update where their rewards' accuracy was highest.

    NaN stands for what an objective does not log; of equal accuracies the earliest counts. Empty if nothing was
    validated.
    """
    validations = {row["step"]: row for row in log if row["split"] == "validation"}
    if kept not in validations:
        return {}
    values = {name: _number(validations[kept].get(name)) for name in AT_KEPT}
    accuracies = {step: _number(row.get("accuracy")) for step, row in validations.items()}
    known = {step: value for step, value in accuracies.items() if not math.isnan(value)}
    highest = max(known, key=lambda step: (known[step], -step)) if known else kept
    there = _number(validations[highest].get("chosen_token_logp"))
    found = {"highest_accuracy": known.get(highest, math.nan), "highest_update": highest}
    return values | found | {"highest_chosen_token_logp": there}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
