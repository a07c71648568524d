"""What the page is made from: the study's listing, tables, claims and figures."""

import dataclasses
import functools
from pathlib import Path
from typing import TypedDict

import yaml

from selfrefine.report.labels import NOTE, several
from selfrefine.report.model_names import Models
from selfrefine.report.study_tables import StudyTables
from selfrefine.schema.claim_results import AssessedClaim, FlipRow
from selfrefine.schema.results import EvaluatedCell


class PageIndex(TypedDict):
    """The listing that the page reads: where its responses lie, and the records of all jobs."""

    cells: list[EvaluatedCell]
    tasks: dict[str, str]
    """By benchmark, its test items with their prompts (docs.jsonl)."""
    items: dict[str, str]
    """By benchmark, its training items."""
    shots: dict[str, str]
    """By benchmark, the training items that its prompts show as worked examples."""
    answers: list[str]
    """Teachers' answers to training items."""
    paths: list[str]
    pairs: list[str]
    origins: dict[str, dict[str, str]]
    """By file of paths or pairs, what it is of."""
    records: list[str]


@dataclasses.dataclass(frozen=True)
class PageInputs:
    """Everything that the page shows. Figures and laid-out tables are files, by name."""

    index: PageIndex
    tables: StudyTables
    claims: list[AssessedClaim]
    flips: list[FlipRow]
    """The verdicts under other choices."""
    level: float
    margin: float
    extractor: str
    titles: dict[str, str]
    models: Models
    counts_unrefined: bool
    """Whether claims count refinements that had too few pairs."""
    figures: dict[str, Path]
    layouts: dict[str, Path]
    configuration: str
    sources: list[dict[str, str]]
    registration: str = ""
    """Whether the claims' policy was pre-registered, in words."""

    @functools.cached_property
    def name(self) -> str:
        """The study's name."""
        return str(yaml.safe_load(self.configuration)["study"]["name"])

    @functools.cached_property
    def unrefined(self) -> set[str]:
        """The files of judged answers of checkpoints that had too few pairs to be refined."""
        return {row["samples"] for row in self.tables.accuracy() if row["unrefined"]}

    @property
    def note(self) -> str:
        """What the page says of them; empty where there are none."""
        told = "Claims count them as refined." if self.counts_unrefined else "Claims leave them out."
        return f"{NOTE} {told}" if self.unrefined else ""

    @functools.cached_property
    def several(self) -> set[str]:
        """Recipe, share and seed, as far as the study has several: labels name them then."""
        return several(self.index["cells"], "recipe", "share", "seed")
