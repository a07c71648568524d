"""What a checkpoint cost from the teacher's answers to its evaluation, read from the records of the jobs behind it."""

import pandas as pd

from selfrefine.files import read_json
from selfrefine.provenance import record_of

STAGES = ("teach", "demonstrate", "instruct", "sample", "pair", "refine", "evaluate")
COLUMNS = [
    "student",
    "arm",
    "stage",
    "checkpoints",
    "jobs",
    "wall_seconds",
    "least",
    "most",
    "tokens",
    "peak_memory_mib",
]


class Records:
    """Records by path, and the jobs behind each; only those named are looked at, so base models and data cost nothing."""

    def __init__(self, names: list[str]):
        self._names = set(names)
        self._read: dict[str, dict] = {}
        self._behind: dict[str, frozenset[str]] = {}

    def __getitem__(self, name: str) -> dict:
        if name not in self._read:
            self._read[name] = read_json(name)
        return self._read[name]

    def behind(self, name: str) -> frozenset[str]:
        """The named records that lead to one, itself among them."""
        if name not in self._behind:
            found = {name}
            for path in self[name]["inputs"]:
                before = str(record_of(path))
                if before in self._names and before != name:
                    found |= self.behind(before)
            self._behind[name] = frozenset(found)
        return self._behind[name]


def costs_table(cells: list[dict], names: list[str]) -> pd.DataFrame:
    """costs.csv: per student, arm and stage the mean over the arm's checkpoints of what all jobs behind one took.

    A job that several checkpoints share counts for each. `wall_seconds` and `tokens` are sums over a checkpoint's jobs, and
    `least` and `most` the range of the former; `peak_memory_mib` is the highest of all. Tokens are those made or, in
    training, seen.
    """
    records = Records(names)
    jobs: dict[tuple[str, str, str], set[str]] = {}
    for cell in cells:
        if cell["arm"] != "teacher":
            of = (cell["student"], cell["arm"], cell["checkpoint"])
            jobs.setdefault(of, set()).update(records.behind(str(record_of(cell["samples"]))))
    rows = []
    for (student, arm, _), behind in jobs.items():
        for name in behind:
            record = records[name]
            tokens = record["figures"].get("tokens_made") or record["figures"].get("tokens_seen") or 0
            rows.append((student, arm, record["stage"], _, record["wall_seconds"], tokens, record["peak_memory_mib"]))
    frame = pd.DataFrame(rows, columns=["student", "arm", "stage", "checkpoint", "seconds", "tokens", "memory"])
    table = []
    for (student, arm), of_arm in frame.groupby(["student", "arm"], sort=False):
        known = [stage for stage in STAGES if stage in set(of_arm.stage)]
        for stage in known + sorted(set(of_arm.stage) - set(known)):
            group = of_arm[of_arm.stage == stage]
            each = group.groupby("checkpoint").agg(seconds=("seconds", "sum"), tokens=("tokens", "sum"))
            jobs_each = len(group) / len(each)
            table.append(
                (student, arm, stage, len(each), jobs_each, each.seconds.mean(), each.seconds.min())
                + (each.seconds.max(), each.tokens.mean(), group.memory.max())
            )
    return pd.DataFrame(table, columns=COLUMNS)
