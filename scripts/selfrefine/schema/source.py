"""The source of a raw file or of weights, with its sha256."""

import re
import urllib.parse
from pathlib import PurePosixPath
from typing import Any, Literal, Self, get_args

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from selfrefine.schema.base import Strict

SCHEMES = ("pypi", "hf", "hf-model", "https", "file", "reasoning-gym")
PYPI = re.compile(r"pypi:(?P<package>[A-Za-z0-9._{}:-]+)==(?P<version>[^/]+)/(?P<member>.+)")
Format = Literal["jsonl", "json", "csv", "tsv", "parquet"]
HUB = re.compile(r"hf(?:-model)?:(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[\w.%-]+)(?:/(?P<member>.+))?")
COMMIT = re.compile(r"[0-9a-f]{40}")
# Keys that an entry has only where they are given.
SELDOM = ("gated", "format", "columns", "delimiter", "rows")


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
    gated: bool | None = Field(
        None, description="Whether the hub asks for a login and an accepted licence; only named, in the dry run."
    )

    @model_serializer(mode="wrap")
    def _given_alone(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is said of few sources and is not said of this one."""
        return {key: value for key, value in handler(self).items() if key not in SELDOM or value is not None}

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
            raise ValueError(
                f"source {self.source!r}: needs its `sha256`. If you do not know it yet, write 64 zeros: the fetch is then "
                "refused, and its message has the sum of what it found"
            )
        return self

    @property
    def repository(self) -> str | None:
        """The repository of the hub, as owner/name; None for a source of another kind."""
        found = HUB.fullmatch(self.source)
        return found["repository"] if found else None

    @property
    def pinned(self) -> bool:
        """Whether it always gives the same: it has a sha256, or a commit of the hub for its revision."""
        found = HUB.fullmatch(self.source)
        return found is None or self.sha256 is not None or bool(COMMIT.fullmatch(found["revision"]))

    @property
    def suffix(self) -> str:
        """The file's ending, which tells its format: ".jsonl", ".csv.gz", ".gguf", …; generated rows are JSON Lines."""
        if self.source.startswith("reasoning-gym:"):
            return ".jsonl"
        # `#` and `?` are characters of a local file's name, and end an address's path.
        local = self.source.startswith("file:")
        endings = PurePosixPath(self.source if local else urllib.parse.urlsplit(self.source).path).suffixes
        ending = "".join(endings[-2:] if endings[-1:] in ([".gz"], [".GZ"]) else endings[-1:])
        return ending.lower() if format_of(ending) or ending.lower() == ".gguf" else ending


def format_of(suffix: str) -> Format | None:
    """The format that a raw file's ending tells; None for an ending that tells none."""
    name = suffix.lower().removesuffix(".gz").removeprefix(".")
    found = "jsonl" if name == "ndjson" else name
    return next((known for known in get_args(Format) if known == found), None)


def check_query(query: str) -> str:
    """A JMESPath expression; `ValueError` if it is none."""
    try:
        jmespath.compile(query)
    except JMESPathError as error:
        raise ValueError(f"not a JMESPath expression: {' '.join(str(error).split())}") from None
    return query


class Reading(Strict):
    """How a raw file is read, where its ending does not say it all."""

    format: Format | None = Field(None, description="None: by the source's ending.")
    columns: list[str] | None = Field(
        None, min_length=2, description="The names of the columns of a CSV or TSV file that has no header."
    )
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="What stands between the values of a CSV file, if not a comma."
    )
    rows: str | None = Field(
        None, description="A JMESPath expression for the rows in a JSON file, such as data[].questions[]."
    )

    @field_validator("rows")
    @classmethod
    def _is_query(cls, rows: str | None) -> str | None:
        return rows and check_query(rows)

    @field_validator("columns")
    @classmethod
    def _named_once(cls, columns: list[str] | None) -> list[str] | None:
        if columns and len(set(columns)) != len(columns):
            raise ValueError("a column's name stands there twice")
        return columns


class RawFile(Source, Reading):
    """A benchmark's raw file: where it comes from, and how it is read."""

    @model_validator(mode="after")
    def _readable(self) -> Self:
        found = self.format or format_of(self.suffix)
        if found is None:
            raise ValueError(
                f"source {self.source!r}: unknown format {self.suffix!r}; use .jsonl, .json, .csv, .tsv or .parquet "
                "(or one of them with .gz), or say it with `format`"
            )
        if self.columns and found not in ("csv", "tsv"):
            raise ValueError(f"columns: names those of CSV and TSV files, and {self.source!r} is {found}")
        if self.delimiter and found != "csv":
            raise ValueError(f"delimiter: is for CSV files, and {self.source!r} is {found}; set `format: csv`")
        if self.rows and found != "json":
            raise ValueError(f"rows: is for JSON files, and {self.source!r} is {found}")
        return self

    @property
    def reading(self) -> Reading | None:
        """How it is read, where its ending does not say it all."""
        given = {name: value for name in Reading.model_fields if (value := getattr(self, name)) is not None}
        return Reading.model_validate(given) if given else None
