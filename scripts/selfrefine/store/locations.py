"""Every place below results/, built and parsed here alone, and the names of artifacts' files."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

RESULTS = Path("results")
NAME = "store"
STORE = RESULTS / NAME

# The store's own folders and files: which artifacts have the same content, the code that made them, hashes of local
# files, the register of policies, the configuration files of its studies.
CONTENTS = ".contents"
CODE = "code"
HASHES = ".hashes.jsonl"
POLICIES = ".policies.jsonl"
INVOCATIONS = ".invocations.json"
# Beside the store: what was damaged; and, where a study was shared, which of its files were left out.
ASIDE = "set-aside"
LEFT_OUT = "left-out.json"
SET_ASIDE = "`python scripts/study.py verify --set-aside` moves it out of the way, and snakemake makes it again"

# The key of an artifact: so many hexadecimal digits of a hash.
DIGITS = 12
KEY = f"[0-9a-f]{{{DIGITS}}}"

RECORD = "record.json"
# By stage, the file that others read of its artifacts.
FILES = {
    "prepare": "items.jsonl",
    "embed": "perplexities.jsonl",
    "choose": "items.jsonl",
    "teach": "answers.jsonl",
    "mix": "answers.jsonl",
    "demonstrate": "demonstrations.jsonl",
    "sample": "paths.jsonl",
    "pair": "pairs.jsonl",
    "evaluate": "samples.jsonl",
    "page": "index.html",
    "summarise": "summary.md",
    "claims": "claims.md",
    "flips": "flips.csv",
}
# By its name, the file of a listing: what the configuration alone decides.
LISTINGS = {
    "tables": "tables.json",
    "training": "training.json",
    "page": "page.json",
    "asked": "asked.json",
    "configuration": "configuration.yaml",
    "sources": "sources.csv",
    "policy": "policy.json",
    "flips": "flips.json",
}
# The tables of a study, each in a CSV file of its name.
TABLES = (
    "accuracy",
    "arms",
    "comparisons",
    "lengths",
    "demonstrations",
    "paths",
    "solving",
    "pass_at_k",
    "pairs",
    "refinements",
    "stages",
    "costs",
)
# The formats of a figure, and of a table laid out as in the paper.
FIGURE_FORMATS = ("svg", "pdf", "png")
LAYOUT_FORMATS = ("csv", "md", "tex")
# The verdicts on the claims as data, beside the page.
VERDICTS = "claims.json"
# The verdicts under other choices as tables for a reader, and the verdicts of an extractor that the study did not ask.
FLIPS_PAGE = "flips.md"
REJUDGED = "rejudged.jsonl"
# The long form of the summary, beside it.
DETAILS = "details.md"
# Of a checkpoint, losses by update; and where it is an adapter, not whole weights, the adapter's settings.
TRAINING = "training.jsonl"
ADAPTER = "adapter_config.json"
# Beside a student's perplexities of training items, their embeddings: a row for each, in the same order.
EMBEDDINGS = "embeddings.npy"
# Beside chosen items, their ids in the order in which they were chosen.
CHOSEN_ORDER = "order.json"
# Of an exported task, its items with their prompts.
DOCUMENTS = "docs.jsonl"
# Of a task of lm-eval, the data of each split and, where it is of a folder of tasks, that folder.
SPLITS = "data-*.parquet"
OWN_TASKS = "tasks.zip"
# Of an evaluation, lm-eval's own results.
REPORT = "report.json"
# What a stage keeps to go on from after a kill, in the artifact's folder: journals' suffix, and the trainer's folder.
PARTIAL = ".partial"
TRAINER = "trainer"
# What the folders are called in which killed processes were fetching.
FETCHING = ".fetch-"


# The store.


class Place(NamedTuple):
    """What the path of an artifact says: its stage, its names and its key."""

    stage: str
    names: tuple[str, ...]
    key: str


def artifact_folder(stage: str, names: Iterable[str], key: str) -> Path:
    """Where an artifact lies."""
    return STORE.joinpath(stage, *names, key)


def names_folder(stage: str, names: Iterable[str]) -> Path:
    """Where all artifacts of a stage lie that have these names, each in a folder of its key."""
    return STORE.joinpath(stage, *names)


def place_of(path: str | Path) -> Place | None:
    """What the path of an artifact's folder, or of a file in it, says; None for a path that is none of an artifact."""
    path = Path(path)
    if not path.is_relative_to(STORE):
        return None
    stage, *parts = path.relative_to(STORE).parts or ("",)
    for number, part in reversed(list(enumerate(parts))):
        if re.fullmatch(KEY, part):
            return Place(stage, tuple(parts[:number]), part)
    return None


def data_file(folder: Path, split: str) -> Path:
    """The data of a split of a task of lm-eval."""
    return folder / SPLITS.replace("*", split)


def split_of_data(file: Path) -> str:
    """The split that a file of data holds."""
    before, after = SPLITS.split("*")
    return file.name.removeprefix(before).removesuffix(after)


def listing_file(record: str | Path) -> Path:
    """The file of a listing, by its record."""
    folder = Path(record).parent
    return folder / LISTINGS[folder.parent.name]


def table_file(folder: Path, table: str) -> Path:
    """The file of a table in the folder of the tables."""
    return folder / f"{table}.csv"


def is_result(name: str) -> bool:
    """Whether a file is one of the results, not one that the study read from outside."""
    return name.startswith(f"{RESULTS}/")


def is_listing(name: str) -> bool:
    """Whether a file is one that the configuration alone decides."""
    return name.startswith(f"{STORE}/listing/")


# The results of a study under their own names.


def study_folder(study: str) -> Path:
    """The folder of a study's results, which are links into the store."""
    return RESULTS / study


def summary_file(study: str) -> Path:
    """The summary of a study, under its own name."""
    return study_folder(study) / result_name("summarise", FILES["summarise"])


def result_name(stage: str, file: str) -> str:
    """What a file of a final artifact is called in the folder of the study's results."""
    if file == LISTINGS["sources"]:
        return f"tables/{file}"
    folder = {"tables": "tables/", "plot": "figures/", "layout": "tables/paper/", "flips": "tables/"}.get(stage, "")
    return f"{folder}{file}"


def marker_file(study: str, key: str, number: int) -> Path:
    """The marker that says which results a study's folder shows, laid out for the n-th time."""
    return study_folder(study) / ".shown" / f"{key}.{number}"


def marker_numbers(study: str, key: str) -> list[int]:
    """How often results of a key have been laid out in a study's folder, as its markers say."""
    folder = marker_file(study, key, 0).parent
    return [int(path.suffix[1:]) for path in folder.glob(f"{key}.*")]


def folder_of_marker(marker: Path) -> Path:
    """The folder of the study's results that a marker stands for."""
    return marker.parent.parent
