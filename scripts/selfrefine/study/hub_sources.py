"""What a study takes from the Hugging Face hub: what is gated, and what is not pinned to a commit."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from selfrefine.schema.source import Source
from selfrefine.study.artifact import Artifact
from selfrefine.study.design import Study
from selfrefine.study.final_artifacts import FinalArtifacts
from selfrefine.study.resolve import loaded_models, stock_task

HUB = "https://huggingface.co"


class HubSource(NamedTuple):
    """A repository that something is fetched from: its kind and name, where the study names it, and one of its files."""

    kind: str
    """`model` or `dataset`, as the hub has it."""
    repository: str
    key: str
    """The key of the configuration, such as models.NAME."""
    source: Source | None
    """None for the data of a task of lm-eval, which it fetches itself."""

    @property
    def page(self) -> str:
        """The page on which access is asked for."""
        return f"{HUB}/{'datasets/' if self.kind == 'dataset' else ''}{self.repository}"


def hub_sources(study: Study, fetched: Iterable[Artifact]) -> Iterator[HubSource]:
    """What of the artifacts comes from the hub; others are left out."""
    for one in fetched:
        if one.stage == "fetch_task":
            if data := stock_task(study, one.of["task"]).data:
                yield HubSource("dataset", data, one.of["task"], None)
            continue
        source: Source
        if one.stage == "fetch":
            source = study.benchmarks[one.of["task"]].files[one.of["file"]]
            kind, key = "dataset", f"benchmarks.{one.of['task']}.files.{one.of['file']}"
        elif one.stage == "fetch_model":
            source = study.models[one.of["model"]]
            kind, key = "model", f"models.{one.of['model']}"
        else:
            continue
        if source.repository:
            yield HubSource(kind, source.repository, key, source)


def gated(finals: FinalArtifacts) -> list[str]:
    """A line on what is still to be fetched and is gated, by the configuration; none where nothing is."""
    # Not by planning the whole study: a run may ask for a part that can be made while others lack a file.
    study, artifacts = finals.study, finals.artifacts
    asked = [artifacts.model(name) for name in loaded_models(study) if study.models[name].gated]
    for task in sorted({*study.study.tasks, *study.study.benchmarks}):
        asked += [artifacts.raw(task, file) for file, source in study.benchmarks[task].files.items() if source.gated]
    found = {one.page: one for one in hub_sources(study, (one for one in asked if not one.record.exists()))}
    if not found:
        return []
    named = ", ".join(f"{one.key} ({page})" for page, one in found.items())
    return [
        f"Gated on the Hugging Face hub: {named}. Ask for access on each page, and log in with `hf auth login`, or set "
        "HF_TOKEN; a run checks it before its first job"
    ]


def hub_notes(finals: FinalArtifacts) -> list[str]:
    """For the plan: what is gated, and what may change because no commit is named."""
    lines = gated(finals)
    loose = [one for one in hub_sources(finals.study, finals.behind_all()) if one.source and not one.source.pinned]
    if loose:
        named = ", ".join(f"{one.key} ({one.repository})" for one in loose)
        lines.append(
            f"Not pinned to a commit: {named}. The hub may hold something else tomorrow; once it is fetched, its record "
            "has the sha256. Name a commit in `source`, or give the file's `sha256`"
        )
    return [f"{line}." for line in lines]
