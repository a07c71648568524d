"""The version of each stage's code, which stands for the code in the keys of artifacts.

`scripts/versions.json` lists for each stage a version and the fingerprints (fingerprint.py) of the code that counts as
this version, each with a reason. Code with a listed fingerprint contributes the version to keys; any other code
contributes its fingerprint, so a local edit reruns what it touches. Whoever changes the code decides: a new version
where results change, one more fingerprint where they do not.
"""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from selfrefine.errors import UserError
from selfrefine.store.files import read_json, whole_file
from selfrefine.store.fingerprint import fingerprint

FILE = "versions.json"


class Version(BaseModel):
    """A stage's version, and the fingerprints that count as this version, each with the reason."""

    model_config = ConfigDict(extra="forbid")

    version: int = Field(ge=1)
    fingerprints: dict[str, str]

    @property
    def name(self) -> str:
        """How keys and records name it."""
        return f"version {self.version}"


def read_versions(folder: Path) -> dict[str, Version]:
    """The listed versions, by stage; `folder` is that of the scripts."""
    path = Path(folder) / FILE
    try:
        return {stage: Version.model_validate(entry) for stage, entry in read_json(path).items()}
    except ValidationError as error:
        fault = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None


def version_of(stage: str, folder: Path) -> str:
    """How keys name a stage's code: by its version where the fingerprint is listed, else by the fingerprint."""
    found, listed = fingerprint(Path(folder) / f"{stage}.py"), read_versions(folder).get(stage)
    return listed.name if listed and found in listed.fingerprints else found


def adopt(stage: str, because: str, folder: Path, raise_version: bool = False) -> Version:
    """Lists the fingerprint of a stage's present code under its version or, with `raise_version`, under the next one.

    `UserError` if no script has the stage's name or no reason is given.
    """
    script = Path(folder) / f"{stage}.py"
    if not script.exists():
        raise UserError(f"{stage}: there is no stage of this name; {folder} has no {stage}.py")
    if not because.strip():
        raise UserError("adopt: say why the results are the same, or why they are not")
    versions = read_versions(folder)
    known = versions.get(stage)
    if known is None or raise_version:
        known = Version(version=known.version + 1 if known else 1, fingerprints={})
    known.fingerprints[fingerprint(script)] = because.strip()
    versions[stage] = known
    with whole_file(Path(folder) / FILE) as file:
        listed = {name: versions[name].model_dump() for name in sorted(versions)}
        file.write(json.dumps(listed, indent=2, ensure_ascii=False) + "\n")
    return known
