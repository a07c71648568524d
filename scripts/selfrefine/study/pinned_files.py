"""Checks the user's own files against the sha256 in the configuration, which may be the catalogue's."""

from collections.abc import Iterator

from selfrefine.data.fetching import local_files
from selfrefine.errors import UserError
from selfrefine.store.hashing import KnownHashes
from selfrefine.study.artifact import Artifact
from selfrefine.study.artifacts import Artifacts
from selfrefine.study.resolve import loaded_models, split_of


def check_pinned_files(artifacts: Artifacts, hashes: KnownHashes) -> None:
    """`UserError` for a local file, still to be fetched, that is not the one whose sha256 the configuration has."""
    study = artifacts.study
    for where, made in _fetched(artifacts):
        of = made.of
        source = study.benchmarks[of["task"]].files[of["file"]] if "task" in of else study.models[of["model"]]
        files = local_files(source) if source.sha256 and not made.record.exists() else []
        found = hashes.sha256(files[0]) if len(files) == 1 and files[0].is_file() else None
        if found not in (None, source.sha256):
            raise UserError(
                f"configuration: {where}.sha256: {files[0]} has sha256 {found}, expected {source.sha256}. If that is "
                "the sum of a source that the catalogue (config/benchmarks.yaml) names, and this file is your own, set "
                "`sha256: null` beside its `source`; else the file has changed"
            )


def _fetched(artifacts: Artifacts) -> Iterator[tuple[str, Artifact]]:
    """What the study fetches, by the key of its section."""
    study = artifacts.study
    used = [(task, "train") for task in study.study.tasks] + [(task, "test") for task in study.study.benchmarks]
    for task, file in dict.fromkeys((task, split_of(study, task, split).file) for task, split in used):
        yield f"benchmarks.{task}.files.{file}", artifacts.raw(task, file)
    for model in loaded_models(study):
        yield f"models.{model}", artifacts.model(model)
