"""One artifact of a study: its place in the store, and the key that stands for how it is made.

An artifact lies in `results/store/STAGE/NAMES/KEY/`. Its names are what a scientist varies, for readers; its key says
what it is: the first digits of a SHA-256 over the stage, the settings that the stage reads, the version of its code,
its rule's command, the contents of the local files it reads, and the keys of its inputs. So the path of an artifact
says how it was made, all the way down, and that it is there says that it need not be made.
"""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfrefine.store.hashing import digest
from selfrefine.store.locations import DIGITS, FILES, RECORD, artifact_folder


@dataclasses.dataclass(frozen=True, eq=False)
class Artifact:
    """One artifact of a study: what it is called, and all that decides what it holds.

    `of` are the study's own names for it, as `stage_settings` and the planner take them. `inputs` are by the flag
    that hands them to the stage's script, whose version is `code`; `command` is its rule's text without what belongs
    to the machine; `sources` are the contents of local files.
    """

    stage: str
    names: tuple[str, ...]
    of: dict[str, str]
    settings: dict[str, Any]
    inputs: dict[str, tuple["Artifact", ...]]
    code: str
    command: str
    sources: tuple[tuple[str, str], ...] = ()

    @functools.cached_property
    def key(self) -> str:
        """The digits that tell it from all others of its names."""
        inputs = {flag: [artifact.key for artifact in artifacts] for flag, artifacts in self.inputs.items()}
        return digest(
            [self.stage, self.settings, self.code, self.command, [content for _, content in self.sources], inputs],
            DIGITS,
        )

    @functools.cached_property
    def folder(self) -> Path:
        """Where it lies."""
        return artifact_folder(self.stage, self.names, self.key)

    @functools.cached_property
    def record(self) -> Path:
        """Its record, written last: the artifact is whole where it is there."""
        return self.folder / RECORD

    @functools.cached_property
    def file(self) -> Path:
        """The file that others read of it."""
        return self.folder / FILES[self.stage]

    def behind(self) -> Iterator["Artifact"]:
        """All artifacts that it is made of, each once, itself last."""
        seen: set[int] = set()
        stack = [(self, False)]
        while stack:
            artifact, entered = stack.pop()
            if entered:
                yield artifact
            elif id(artifact) not in seen:
                seen.add(id(artifact))
                stack.append((artifact, True))
                stack += [(one, False) for artifacts in artifact.inputs.values() for one in artifacts]
