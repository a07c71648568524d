"""Copies a finished study, without weights and questions, to a folder where others can trace it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from selfrefine.audit.recorded_results import RecordedResults
from selfrefine.errors import UserError
from selfrefine.report.page.embedded import without_questions
from selfrefine.schema.record import Record
from selfrefine.store.files import write_json
from selfrefine.store.locations import CODE, FILES, LEFT_OUT, POLICIES, RESULTS, STORE, marker_file
from selfrefine.store.provenance import state_of

WEIGHTS = ".safetensors"
# Where a page had the text of a question.
QUESTION = "(The text is left out here: it has a licence of its own. The workflow fetches it.)"
# Stages whose files are large, or hold questions of a benchmark, which has a licence of its own. Their records tell where
# they are from and what their sha256 is, so the workflow can make them again and compare.
LEAVES_OUT = (
    *("fetch", "fetch_model", "fetch_task", "prepare", "export_task", "embed", "choose", "demonstrate", "sample"),
    *("pair", "page"),
)


def share(results: Path, study: str, target: Path) -> str:
    """Copies what a study shows and what it was counted from; says how much.

    The folder is then one of results, for `trace --results`. `UserError` if the study is not finished, one of its files
    is not what its record says, or the folder holds anything.
    """
    if target.exists() and any(target.iterdir()):
        raise UserError(f"{target}: is not empty; name a new folder, or delete this one first")
    found = RecordedResults(results)
    shown = found.folder / marker_file(study, "", 0).parent.relative_to(RESULTS)
    markers = [path for path in shown.glob("*") if path.is_file() and not path.name.startswith(".")]
    if not markers:
        raise UserError(f"{shown.parent}: shows no finished study; run snakemake to its end first")
    records = dict(_behind(found, markers[0].read_text().split()))
    kept, left_out = [*records], []
    for name, record in records.items():
        for made, state in record.outputs.items():
            if made.endswith(WEIGHTS) or record.stage in LEAVES_OUT:
                left_out.append(made)
            elif found.state(made) == state:
                kept.append(made)
            else:
                raise UserError(
                    f"{made}: is not what {name} says; `python scripts/study.py verify` says what is damaged"
                )
    beside = {f"{STORE}/{CODE}/{record.code}.json" for record in records.values()} | {f"{STORE}/{POLICIES}"}
    kept += [name for name in sorted(beside) if found.is_there(name)]
    kept += [f"{RESULTS}/{path.relative_to(found.folder).as_posix()}" for path in _shown(shown.parent)]
    for name in kept:
        _copy(found, name, target)
    page = target / study / FILES["page"]
    if page.is_file():
        page.write_text(without_questions(page.read_text("utf-8"), QUESTION), "utf-8")
    write_json(target / LEFT_OUT, sorted(left_out))
    files = [path for path in target.rglob("*") if path.is_file()]
    size = sum(state_of(path).bytes for path in files) / 1e6
    return f"{target}: {len(records)} records, {len(files)} files ({size:.1f} MB); {len(left_out)} more by size and sha256 alone"


def _behind(found: RecordedResults, names: list[str]) -> Iterator[tuple[str, Record]]:
    """Records and all that was read for them, each once."""
    seen: set[str] = set()
    waiting = list(reversed(names))
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        record = found.record(name)
        yield name, record
        makers = (found.maker(read) for read in record.inputs)
        waiting += [maker for maker in makers if maker]


def _shown(folder: Path) -> Iterator[Path]:
    """The files of a study under their own names, without hidden ones."""
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(path, name) for name in sorted(files) if not name.startswith("."))


def _copy(found: RecordedResults, name: str, target: Path) -> None:
    """Copies a file to the place that it has in the results; a link becomes a file."""
    place = target / Path(name).relative_to(RESULTS)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(found.locate(name), place)
