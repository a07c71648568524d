"""What each refinement did to its held-out pairs, and whether it kept weights worse than others.

A refinement keeps the weights of lowest validation loss. The loss can fall while more and more pairs are ordered
incorrectly, if the margins of the others grow fast enough.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from selfrefine.analysis import statistics
from selfrefine.analysis.accuracy_tables import provenance_of
from selfrefine.analysis.held_out import at_kept_update
from selfrefine.analysis.yield_tables import Origins, frame
from selfrefine.store.files import read_jsonl

# A rule of thumb, since a few held-out pairs cannot show much by a test: a share of the pairs, which chance alone may take
# away, and nats per token of the chosen responses, which then hardly fall as well.
SHORT, FALLEN = 0.1, 0.1


def refinements_table(logs: Sequence[str], origins: Origins, level: float) -> pd.DataFrame:
    """refinements.csv: for each refinement that learned from pairs, the held-out ones at the update that was kept.

    `worse`: 1 if the kept weights order fewer held-out pairs correctly than those of another update: by more than chance
    at `level`, or by `SHORT` while the chosen responses became less likely by `FALLEN`.
    """
    rows = []
    for log in logs:
        record = provenance_of(log)
        figures = record["figures"]
        if record["stage"] != "refine" or not figures["updates"]:
            continue
        held_out = figures["pairs"]["validation"]
        values = at_kept_update(read_jsonl(Path(log)), figures["kept_update"])
        counts = {"updates": figures["updates"], "held_out": held_out, "kept_update": figures["kept_update"]}
        rows.append({"log": log, **origins[log], **counts, **values, "worse": _worse(values, held_out, level)})
    return frame(rows, "log")


def _worse(values: Mapping[str, float], n: int, level: float) -> int:
    """Whether the accuracy at the kept update falls short of the highest, by `SHORT` and `FALLEN` or by more than chance.

    The latter by Newcombe's interval of a difference (Statistics in Medicine 17:873, 1998, method 10), as if each update
    had pairs of its own. They are the same pairs, whose differences vary less, so it says so rather too seldom.
    """
    kept, highest = values["accuracy"], values["highest_accuracy"]
    if math.isnan(kept) or math.isnan(highest):
        return 0
    short, fallen = highest - kept, values["highest_chosen_token_logp"] - values["chosen_token_logp"]
    low, _ = statistics.wilson(round(highest * n), n, level)
    _, high = statistics.wilson(round(kept * n), n, level)
    return int(short > math.hypot(highest - low, high - kept) or (short > SHORT - 1e-9 and fallen > FALLEN))
