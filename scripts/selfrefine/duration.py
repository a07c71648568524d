"""How long a study's jobs take on this machine's processor, said before they run."""

import json
import math
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from selfrefine.planning import Assumptions, ItemsOf, Planner, UnknownSize
from selfrefine.study import Study

# Work that is not worth a measurement: seconds at a rate that any processor reaches.
SHORT_SECONDS, SLOW_TFLOPS = 60, 0.03


def foretell(
    study: Study,
    assumptions: Assumptions,
    jobs: Iterable[tuple[str, dict[str, str]]],
    cores: int,
    items_of: ItemsOf | None = None,
) -> str:
    """A sentence on how long jobs (rule, wildcards) take on this processor, and what it computes in.

    "" for short work, where a model's size or the items of a split are not known yet, and where a GPU computes. Reckoned from a
    measured rate of matrix products, and the tokens that the plan assumes; `items_of` as for `Planner`.
    """
    jobs = list(jobs)
    if any(study.models[name].parameters is None for name in study.loaded()):
        return ""
    slow = {"computed_in": "", "gflops": SLOW_TFLOPS * 1e3}
    try:
        if _seconds(study, assumptions, jobs, slow, items_of) < SHORT_SECONDS:
            return ""
    except UnknownSize:
        return ""
    dtype = study.students[study.study.students[0]].dtype
    threads = max(study.threads.train, study.threads.generate, study.threads.evaluate)
    command = [sys.executable, str(Path(__file__).parent.parent / "rate.py"), "--dtype", dtype]
    command += ["--threads", str(min(threads, cores)), "--compute", study.compute]
    measured = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if measured["gflops"] is None:
        return ""
    minutes = _seconds(study, assumptions, jobs, measured, items_of) * min(threads, cores) / cores / 60
    return (
        f"About {max(round(minutes), 1)} minutes from here on {cores} cores: {len(jobs)} jobs; weights of {dtype} are "
        f"multiplied in {measured['computed_in']} ({measured['gflops']} GFLOP/s measured)."
    )


def _seconds(study: Study, assumptions: Assumptions, jobs: list, measured: dict, items_of: ItemsOf | None) -> float:
    own = assumptions.processor
    rates = {"peak_tflops": measured["gflops"] / 1e3, "generate": own.generate, "train": own.train}
    # Whether the weights fit is not asked here.
    gpu = assumptions.gpu.model_copy(update={**rates, "memory_gb": math.inf})
    as_gpu = assumptions.model_copy(update={"gpu": gpu, "start_seconds": own.start_seconds})
    planner = Planner(study.model_copy(update={"cluster": None}), as_gpu, items_of)
    hours = sum(planner.cost(rule, **wildcards).gpu_hours for rule, wildcards in jobs)
    return hours * 3600 + len(jobs) * own.job_seconds
