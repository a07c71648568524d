"""What a checkpoint cost, from the teacher's answers to its evaluation, by the records of its jobs."""

from collections.abc import Sequence

import pandas as pd

from selfrefine.analysis.jobs import GpuUse, Records, gpu_use, jobs_of, parts_taken, tokens_of, trained_of
from selfrefine.schema.results import EvaluatedCell

STAGES = (
    "embed",
    "choose",
    "teach",
    "mix",
    "demonstrate",
    "instruct",
    "sample",
    "pair",
    "refine",
    "refine_online",
    "evaluate",
)
COLUMNS = [
    "student",
    "arm",
    "share",
    "select",
    "stage",
    "checkpoints",
    "jobs",
    "wall_seconds",
    "least",
    "most",
    "tokens",
    "tokens_trained",
    "peak_memory_mib",
    *GpuUse._fields,
]
# Of a job, what a part of it takes a part of.
SPENT = ("seconds", "tokens", "trained", *GpuUse._fields)


def costs_table(cells: Sequence[EvaluatedCell], names: Sequence[str]) -> pd.DataFrame:
    """costs.csv: per student, arm, share and stage the mean over the checkpoints of what all jobs behind one took.

    A job that several checkpoints share counts for each; of a teacher's answers that a mixture draws from, the share
    that it takes. `wall_seconds` and `tokens` are sums over a checkpoint's jobs, and `least` and `most` the range of the
    former; `peak_memory_mib` is the highest of all. Tokens are those generated
    and, in training, seen; `tokens_trained` are the latter alone. `gpu_seconds`, those of them that a meter counted, and
    `gpu_wh`, which it counted, are sums over a checkpoint's jobs too.
    """
    records = Records(names)
    rows = []
    for (*of, checkpoint), behind in jobs_of(cells, records).items():
        taken = parts_taken(behind, records)
        for name in sorted(behind):
            record, share = records[name], taken.get(name, 1.0)
            spent = (record["wall_seconds"], tokens_of(record), trained_of(record), *gpu_use(record))
            rows.append(
                (*of, record["stage"], checkpoint, record["peak_memory_mib"], *(share * each for each in spent))
            )
    known_of = ["student", "arm", "share", "select", "stage", "checkpoint", "memory", *SPENT]
    frame = pd.DataFrame(rows, columns=known_of)
    table = []
    for of, of_arm in frame.groupby(["student", "arm", "share", "select"], sort=False):
        known = [stage for stage in STAGES if stage in set(of_arm.stage)]
        for stage in known + sorted(set(of_arm.stage) - set(known)):
            group = of_arm[of_arm.stage == stage]
            each = group.groupby("checkpoint")[[*SPENT]].sum()
            jobs_each = len(group) / len(each)
            table.append(
                (*of, stage, len(each), jobs_each, each.seconds.mean(), each.seconds.min())
                + (each.seconds.max(), each.tokens.mean(), each.trained.mean(), group.memory.max())
                + tuple(each[name].mean() for name in GpuUse._fields)
            )
    return pd.DataFrame(table, columns=COLUMNS)
