"""What jobs ask a cluster for, and how a training job starts on its GPUs."""

import functools
from typing import Any

from selfrefine.study.design import Study
from selfrefine.study.planning import Needs, Planner
from selfrefine.study.resources import host_mb
from selfrefine.workflow.rule_inputs import JobFunction, RuleInputs, signed

NO_CLUSTER = Needs(0, host_mb(0, 1), None)


class RuleResources:
    """The functions with which rules say what a job asks a cluster for."""

    def __init__(self, study: Study, planner: Planner, inputs: RuleInputs):
        self._study = study
        self._planner = planner
        self._inputs = inputs
        self._needs = functools.cache(self._estimated)

    def _estimated(self, stage: str, values: tuple[str, ...], key: str, attempt: int) -> Needs:
        return self._planner.needs(stage, attempt, **self._inputs.named(stage, values, key).of)

    def needs(self, resource: str, stage: str) -> JobFunction | int:
        """A resources function: what a job asks for, more at each attempt; a value where there is no cluster."""
        # A value cannot say that there is no limit.
        if self._study.cluster is None and resource != "runtime":
            return {"gpu": NO_CLUSTER.gpu, "mem_mb": NO_CLUSTER.mem_mb}[resource]

        @signed
        def value(wildcards: Any, attempt: int) -> int | None:
            found = self._needs(stage, tuple(wildcards), wildcards.key, attempt)
            return {"gpu": found.gpu, "mem_mb": found.mem_mb, "runtime": found.runtime}[resource]

        return value


@signed
def launcher(wildcards: Any, resources: Any) -> str:
    """Params: how a training job starts, with one process for each of its GPUs."""
    gpus = resources.get("gpu", 0)
    if gpus < 2:
        return "python"
    return (
        f"accelerate launch --multi_gpu --num_processes {gpus} --num_machines 1 --main_process_port 0"
        " --mixed_precision no --dynamo_backend no"
    )
