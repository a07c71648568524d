"""Opens a study without Snakemake: its configuration, read as the Snakefile reads it, and its keys."""

import functools
from pathlib import Path
from typing import Any

from selfrefine.store.commands import commands_of
from selfrefine.store.hashing import KnownHashes
from selfrefine.store.locations import HASHES, STORE
from selfrefine.store.versions import version_of
from selfrefine.study.artifacts import Artifacts
from selfrefine.study.design import Study
from selfrefine.study.final_artifacts import FinalArtifacts
from selfrefine.study.yaml_files import read_yaml

ROOT = Path(__file__).resolve().parents[3]
# What the Snakefile reads first, and what it reads where no other file has a study.
SHARED = ("config/benchmarks.yaml", "config/recipes.yaml")
DEFAULT = "config/config.yaml"


def read_configuration(paths: list[Path]) -> dict[str, Any]:
    """The configuration that `snakemake --configfile PATHS` has; `UserError` names a file that cannot be read."""
    config: dict[str, Any] = {}
    own = [read_yaml(path) for path in paths]
    shared = [read_yaml(ROOT / name) for name in SHARED]
    if not any({"models", "students", "teachers"}.intersection(part) for part in own):
        shared.append(read_yaml(ROOT / DEFAULT))
    for part in (*shared, *own):
        merge(config, part)
    return config


def merge(config: dict[str, Any], update: dict[str, Any]) -> None:
    """Puts a configuration over another one, key by key, as Snakemake does."""
    for key, value in update.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            merge(config[key], value)
        else:
            config[key] = value


def open_study(paths: list[Path]) -> FinalArtifacts:
    """The final artifacts of a study, in the working directory."""
    return finals_of(Study.read(read_configuration(paths)).located(ROOT))


def finals_of(study: Study, keep: bool = True) -> FinalArtifacts:
    """The final artifacts of a validated study; hashes of local files are kept in the store, unless `keep` is false."""
    hashes = KnownHashes(STORE / HASHES, keep)
    code = functools.cache(lambda stage: version_of(stage, ROOT / "scripts"))

    def content(path: Path) -> str | None:
        # What has vanished since it was read is taken for what it was.
        return hashes.sha256(path) or hashes.last(path)

    return FinalArtifacts(Artifacts(study, code, commands_of(ROOT / "rules").__getitem__, content), hashes)
