"""How long a study's jobs take on this machine's processor, estimated before they run."""

import json
import math
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from selfrefine.schema.assumptions import Assumptions, Rate
from selfrefine.study.design import Study
from selfrefine.study.planning import Planner
from selfrefine.study.resolve import loaded_models
from selfrefine.study.workload import ItemsOf, UnknownSize

# Work that is not worth a measurement: seconds at a rate that any processor reaches.
SHORT_SECONDS, SLOW_GFLOPS = 60, 30.0
SCRIPTS = Path(__file__).resolve().parents[2]


def expected_duration(
    study: Study,
    assumptions: Assumptions,
    jobs: Iterable[tuple[str, dict[str, str]]],
    cores: int,
    items_of: ItemsOf | None = None,
) -> str:
    """A sentence on how long jobs (stage, names) take on this processor, and what it computes in.

    "" for short work, where a model's size or the items of a split are not known yet, and where a GPU computes.
    Estimated from a measured rate of matrix products and the tokens that the plan assumes; `items_of` as for
    `Planner`.
    """
    jobs = list(jobs)
    if any(study.models[name].parameters is None for name in loaded_models(study)):
        return ""
    try:
        if _seconds(study, assumptions, jobs, SLOW_GFLOPS, items_of) < SHORT_SECONDS:
            return ""
    except UnknownSize:
        return ""
    dtype = study.students[study.study.students[0]].dtype
    threads = min(max(study.threads.train, study.threads.generate, study.threads.evaluate), cores)
    measured = _measured(dtype, study.compute, threads)
    if measured["gflops"] is None:
        return ""
    minutes = _seconds(study, assumptions, jobs, measured["gflops"], items_of) * threads / cores / 60
    return (
        f"About {max(round(minutes), 1)} minutes from here on {cores} cores: {len(jobs)} jobs; weights of {dtype} are "
        f"multiplied in {measured['computed_in']} ({measured['gflops']} GFLOP/s measured)."
    )


def _measured(dtype: str, compute: str, threads: int) -> Rate:
    """The rate of matrix products, measured in another process, so that this one need not load torch."""
    command = [sys.executable, "-m", "selfrefine.models.rate", "--dtype", dtype, "--compute", compute]
    command += ["--threads", str(threads)]
    said = subprocess.run(command, cwd=SCRIPTS, capture_output=True, text=True, check=True).stdout
    return cast(Rate, json.loads(said))


def _seconds(
    study: Study,
    assumptions: Assumptions,
    jobs: list[tuple[str, dict[str, str]]],
    gflops: float,
    items_of: ItemsOf | None,
) -> float:
    own = assumptions.processor
    rates = {"peak_tflops": gflops / 1e3, "generate": own.generate, "train": own.train}
    # Whether the weights fit is not asked here.
    gpu = assumptions.gpu.model_copy(update={**rates, "memory_gb": math.inf})
    as_gpu = assumptions.model_copy(update={"gpu": gpu, "start_seconds": own.start_seconds})
    planner = Planner(study.model_copy(update={"cluster": None}), as_gpu, items_of)
    hours = sum(planner.cost(stage, **names).gpu_hours for stage, names in jobs)
    return hours * 3600 + len(jobs) * own.job_seconds
