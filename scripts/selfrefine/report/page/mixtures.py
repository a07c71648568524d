"""Who gave the answers in a file: one model or, of a mixture, several teachers."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from selfrefine.analysis.jobs import files_of_mixture
from selfrefine.store.files import read_json
from selfrefine.store.provenance import record_of

Row = TypeVar("Row", bound=Mapping[str, Any])


def answered_by(answers: Path) -> dict[str, dict[str, Any]]:
    """The settings under which the answers in a file were given, by teacher of a mixture; of others, by ""."""
    record = read_json(record_of(answers))
    if not (files := files_of_mixture(record)):
        return {"": record["settings"]}
    return {teacher: read_json(record_of(file))["settings"] for teacher, file in files.items()}


def of_part(rows: Sequence[Row], part: str) -> Iterator[Row]:
    """The answers of one teacher of a mixture; all of them where there is no mixture."""
    return (row for row in rows if row.get("teacher", "") == part)
