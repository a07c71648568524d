"""The listings of a study: files that its configuration alone decides, such as what tables read."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfrefine.schema.results import SELECT
from selfrefine.store.files import whole_file
from selfrefine.store.hashing import digest
from selfrefine.store.locations import LISTINGS, listing_file
from selfrefine.store.run import note_text
from selfrefine.study.artifact import Artifact
from selfrefine.study.policy import policy_of
from selfrefine.study.table_inputs import TableInputs

# By listing, what it has of the index.
PARTS = {
    "tables": (
        "cells",
        "chosen",
        "answers",
        "parts",
        "demonstrations",
        "training",
        "paths",
        "pairs",
        "origins",
        "records",
    ),
    "training": ("training",),
    "flips": ("cells", "training", "tasks", "styles"),
    "page": ("cells", "tasks", "items", "shots", "answers", "paths", "pairs", "origins", "records"),
}


class Listings:
    """The listings of a study; the key of each is that of its content."""

    def __init__(self, inputs: TableInputs):
        self.inputs = inputs
        self.study = inputs.study
        self.text = functools.cache(self._text)

    def artifact(self, part: str) -> Artifact:
        """A listing as an artifact."""
        return self.inputs.artifacts.once(
            ("listing", part),
            lambda: Artifact("listing", (part,), {"part": part}, {"text": digest(self.text(part), 64)}, {}, "", ""),
        )

    def file(self, part: str) -> Path:
        """Where a listing lies."""
        return self.artifact(part).folder / LISTINGS[part]

    def _text(self, part: str) -> str:
        """What a listing says."""
        if part == "configuration":
            return self.study.yaml()
        if part == "sources":
            return self.study.sources_csv()
        if part == "policy":
            return json.dumps(self.policy(), indent=1, ensure_ascii=False) + "\n"
        if part == "asked":
            return json.dumps(self._asked(), indent=1) + "\n"
        index: dict[str, Any] = {**self.inputs.index}
        if not index["chosen"]:
            # Studies that choose nothing are listed without what choosing adds.
            del index["chosen"]
            index["cells"] = [without_select(cell) for cell in index["cells"]]
        return json.dumps({kind: index[kind] for kind in PARTS[part] if kind in index}, indent=1) + "\n"

    def policy(self) -> dict[str, Any]:
        """What is registered before the first evaluation."""
        return policy_of(self.study)

    def _served_answers(self) -> list[Artifact]:
        served = self.study.served()
        return [one for one in self.inputs.asked_for if one.of["teacher"] in served]

    def _asked(self) -> list[dict[str, Any]]:
        """What is asked of served teachers, {teacher, items, shots, settings, server} per file of answers."""
        return [
            {
                "teacher": one.of["teacher"],
                "items": str(one.inputs["items"][0].file),
                "shots": next((str(shots.file) for shots in one.inputs.get("shots", ())), None),
                "settings": one.settings,
                "server": self.study.teachers[one.of["teacher"]].server.model_dump(),
            }
            for one in self._served_answers()
        ]

    def asked_items(self) -> list[Artifact]:
        """The items that served teachers are asked, and those that their prompts show."""
        asked = self._served_answers()
        return list(
            dict.fromkeys(each for one in asked for flag in ("items", "shots") for each in one.inputs.get(flag, ()))
        )


def without_select(cell: Mapping[str, Any]) -> dict[str, Any]:
    """A cell without the fact of how items were chosen."""
    return {fact: value for fact, value in cell.items() if fact != SELECT}


def write_listing(record: str | Path, text: str) -> None:
    """Writes a listing and its record."""
    path = listing_file(record)
    with whole_file(path) as file:
        file.write(text)
    note_text(Path(record), path, digest(text, 64))
