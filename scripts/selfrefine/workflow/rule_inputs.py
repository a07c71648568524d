"""How a rule finds a job's inputs, settings and code: by names and key in its output's path."""

import functools
import inspect
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from snakemake.io import ancient

from selfrefine.schema.source import Source
from selfrefine.store.hashing import canonical_json
from selfrefine.study.artifact import Artifact
from selfrefine.study.final_artifacts import FinalArtifacts
from selfrefine.study.model_uses import uses_of
from selfrefine.workflow.refusal import refused

# What Snakemake calls for each job, with its wildcards and, by their names, what else it takes.
JobFunction = Callable[..., Any]


def signed(function: JobFunction) -> JobFunction:
    """A function that Snakemake calls for each job: it takes the signature each time, and finds it here."""
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined] # any attribute may be
    return function


class RuleInputs:
    """The functions with which rules look up artifacts of a study.

    `plans`: whether this process plans, and does not only run one job.
    """

    def __init__(self, finals: FinalArtifacts, root: Path, plans: bool):
        self._finals = finals
        # Stands in the place of an input that is gone and not needed: it is always there, and older than any record.
        self._substitute = str(root / "Snakefile")
        self._plans = plans
        # Snakemake asks several functions for the inputs, parameters and resources of each of ten thousand jobs.
        self.named = functools.cache(self._named)

    def _named(self, stage: str, values: tuple[str, ...], key: str) -> Artifact:
        """The artifact of a stage that the values of a path's wildcards name."""
        names = "/".join(value for value in values if value != key)
        with refused():
            return self._finals.at(stage, tuple(names.split("/")) if names else (), key)

    def artifact_of(self, stage: str, wildcards: Any) -> Artifact:
        """The artifact of a stage that a path's wildcards name: all before the key are its names, in their order."""
        return self.named(stage, tuple(wildcards), wildcards.key)

    def at_any_age(self, paths: list[str], done: str | Path) -> list[str]:
        """Inputs of a job whose record is `done`: what is finished does not look at them again.

        Where the record is not there, the job runs and waits for its inputs. Where it is, their ages mean nothing,
        and one that is gone is not made again for it: the Snakefile stands in its place.
        """
        if not os.path.exists(done):
            return paths
        return [ancient(path if os.path.exists(path) else self._substitute) for path in paths]

    def made(self, stage: str, *flags: str) -> JobFunction:
        """An input function: the records of what a stage reads under these flags."""

        @signed
        def inputs(wildcards: Any) -> list[str]:
            one = self.artifact_of(stage, wildcards)
            paths = [str(each.record) for flag in flags for each in one.inputs.get(flag, ())]
            return self.at_any_age(paths, one.record)

        return inputs

    def flagged(self, stage: str, *flags: str) -> JobFunction:
        """A params function: the inputs that not every job of a stage has, as command-line flags."""

        @signed
        def text(wildcards: Any) -> str:
            inputs = self.artifact_of(stage, wildcards).inputs
            found = ((flag.replace("_", "-"), each.record) for flag in flags for each in inputs.get(flag, ()))
            return " ".join(f"--{flag} {shlex.quote(str(path))}" for flag, path in found)

        return text

    def settings(self, stage: str) -> JobFunction:
        """A params function: a job's settings as canonical JSON, those that its key was taken of."""

        @signed
        def text(wildcards: Any) -> str:
            return canonical_json(self.artifact_of(stage, wildcards).settings)

        return text

    def code(self, stage: str) -> str | JobFunction:
        """The code of a stage as it is in the key; a params function where this process runs one job."""
        if self._plans:
            return self._finals.artifacts.code(stage)

        @signed
        def text(wildcards: Any) -> str:
            return self.artifact_of(stage, wildcards).code

        return text

    def sources(self, stage: str) -> JobFunction:
        """A params function: the local files that a job reads, with the contents that its key was taken of, as JSON."""

        @signed
        def text(wildcards: Any) -> str:
            return canonical_json(dict(self.artifact_of(stage, wildcards).sources))

        return text

    def source_of_file(self, wildcards: Any) -> str:
        """Params: where a benchmark's file comes from, as JSON."""
        of = self.artifact_of("fetch", wildcards).of
        return _source_json(self._finals.study.benchmarks[of["task"]].files[of["file"]])

    def source_of_model(self, wildcards: Any) -> str:
        """Params: where a model comes from, as JSON."""
        return _source_json(self._finals.study.models[wildcards.model])

    def uses_of_model(self, wildcards: Any) -> str:
        """Params: the students and teachers that a model answers for, as JSON."""
        return canonical_json([use.model_dump() for use in uses_of(self._finals.study, wildcards.model)])

    def student_models(self, stage: str) -> JobFunction:
        """An input function: the students' models, checked, before a teacher is asked who may have to be paid."""

        @signed
        def inputs(wildcards: Any) -> list[str]:
            study = self._finals.study
            models = dict.fromkeys(study.students[name].model for name in study.study.students)
            paths = [str(self._finals.artifacts.model(model).record) for model in models]
            return self.at_any_age(paths, self.artifact_of(stage, wildcards).record)

        return inputs

    # Listings, and the last job.

    def listing_text(self, wildcards: Any) -> str:
        """Params: what a listing says."""
        return self._finals.listings.text(self.artifact_of("listing", wildcards).of["part"])

    def asked(self, wildcards: Any) -> str:
        """Input: the listing of what served teachers are asked."""
        return str(self._finals.listings.artifact("asked").record)

    def asked_items(self, wildcards: Any) -> list[str]:
        """Input: the items that served teachers are asked."""
        return [str(one.record) for one in self._finals.listings.asked_items()]

    def finals(self, wildcards: Any) -> list[str]:
        """Input: the records of all that the study is asked for, for the job that shows it under clean names."""
        return self.at_any_age([str(one.record) for one in self._finals.all()], self._finals.shown())

    def results(self, wildcards: Any) -> list[str]:
        """Input: the records of all that the study is asked for, and the marker of its results' names."""
        with refused():
            return [*(str(one.record) for one in self._finals.all()), self._finals.shown()]


def _source_json(source: Source) -> str:
    return source.model_dump_json(include={"source", "parts", "sha256", "licence"})
