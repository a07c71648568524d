"""Which evaluations of a checkpoint share a job, and so one load of its weights.

On one machine, the job that has loaded a checkpoint evaluates it on the other benchmarks too, if no other process
does. On a cluster, the evaluations of a checkpoint are one job, in which they follow each other.
"""

import functools
from typing import Any

from selfrefine.store.hashing import canonical_json
from selfrefine.study.artifact import Artifact
from selfrefine.study.final_artifacts import FinalArtifacts
from selfrefine.workflow.rule_inputs import JobFunction, RuleInputs, signed
from selfrefine.workflow.rule_resources import RuleResources


class EvaluationJobs:
    """The functions with which rules say which evaluations are made together."""

    def __init__(self, finals: FinalArtifacts, inputs: RuleInputs, resources: RuleResources):
        self._finals = finals
        self._inputs = inputs
        self._resources = resources
        self._cluster = finals.study.cluster
        self._together = self._cluster is not None and self._cluster.evaluate_together
        # What Snakemake calls the group of evaluations that are one job; None where each is a job of its own.
        self.group = "evaluate" if self._together else None

    @functools.cached_property
    def _evaluated_on(self) -> dict[str, dict[str, None]]:
        """By checkpoint, the benchmarks that it is evaluated on, in their order."""
        found: dict[str, dict[str, None]] = {}
        for cell in self._finals.study.cells():
            found.setdefault(cell["checkpoint"], {})[cell["evaluation"]] = None
        return found

    def _siblings(self, checkpoint: str) -> list[Artifact]:
        """The evaluations of a checkpoint."""
        return [self._finals.artifacts.evaluation(checkpoint, task) for task in self._evaluated_on.get(checkpoint, ())]

    def _in_one_job(self, own: Artifact) -> list[Artifact]:
        """The evaluations that are to be made in one job with this one, which is among them."""
        siblings = self._siblings(own.of["checkpoint"])
        if not self._together or own not in siblings:
            return [own]
        return [one for one in siblings if one is own or not one.record.exists()]

    def before(self) -> JobFunction:
        """An input function: the evaluation that this one follows in its job; also the last, if that is made."""

        @signed
        def inputs(wildcards: Any) -> list[str]:
            own = self._inputs.artifact_of("evaluate", wildcards)
            siblings = self._siblings(own.of["checkpoint"])
            if not self._together or own not in siblings[1:]:
                return []
            *others, last = siblings[: siblings.index(own)]
            gap = last.record.exists() and not own.record.exists()
            missing = [one for one in others if gap and not one.record.exists()]
            return self._inputs.at_any_age([str(one.record) for one in (last, *missing[-1:])], own.record)

        return inputs

    def minutes(self) -> JobFunction:
        """A resources function: the minutes of an evaluation; those of one job fit the partition together."""
        estimated = self._resources.needs("runtime", "evaluate")

        @signed
        def value(wildcards: Any, attempt: int) -> int | None:
            found: int | None = estimated(wildcards, attempt) if callable(estimated) else None
            if found is None or self._cluster is None:
                return found
            jobs = self._in_one_job(self._inputs.artifact_of("evaluate", wildcards))
            return min(found, max(1, int(self._cluster.longest_hours * 60) // len(jobs)))

        return value

    def also(self, stage: str) -> JobFunction:
        """A params function: the evaluations that a job may make too while it has a checkpoint loaded, as JSON."""

        # Of a function that takes its input, Snakemake keeps no value: a further benchmark is no reason to run.
        @signed
        def text(wildcards: Any, input: Any) -> str:
            own = self._inputs.artifact_of(stage, wildcards)
            # A cluster has the evaluations in a job of their own, so that pairs need not wait for them.
            apart = self._cluster is not None and (stage == "sample" or not self._together)
            if apart or own.record.exists():
                return "[]"
            siblings = self._siblings(own.of.get("checkpoint") or own.of["start"])
            return canonical_json([_asked(one) for one in siblings if one is not own])

        return text


def _asked(evaluation: Artifact) -> dict[str, Any]:
    """What a program needs to make an evaluation."""
    return {
        "record": str(evaluation.record),
        "task": str(evaluation.inputs["task"][0].record),
        "settings": evaluation.settings,
        "code": evaluation.code,
    }
