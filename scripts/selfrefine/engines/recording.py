"""Records a live teacher's completions, so that they need not be made, or paid, again.

Its first line says where the completions come from. Each other line is a completion with the key of its request; no
question is kept. The engine `recorded` answers from it (recorded.py).
"""

from pathlib import Path
from typing import Any

from selfrefine.errors import UserError
from selfrefine.schema.record import Record
from selfrefine.store.files import read_jsonl, write_jsonl
from selfrefine.store.provenance import read_record, record_of

KEPT = ("key", "id", "text", "finish_reason", "tokens", "prompt_tokens")
# What a recording says of each job that generated its completions.
OF_RUNS = {"settings", "code", "packages", "machine", "started", "wall_seconds"}


def write_recording(answers: list[Path], teacher: str, model: Path | None, output: Path) -> str:
    """Records a teacher's answers (files of the stage teach, beside their records); says how many completions it has.

    `model` is the record of the teacher's weights, if it is not a served model. A recording that is there is added to:
    what it answers already stays as it is. `UserError` if the answers are those of more than one model, of another
    teacher or model than the recording's, or come from a recording themselves.
    """
    rows: dict[str, dict[str, Any]] = {}
    runs, sources = [], []
    for path in answers:
        record = read_record(record_of(path))
        if record.stage == "mix":
            raise UserError(f"{path}: are the answers of a mixture; name the outputs of the teachers that it mixes")
        if record.settings["engine"] == "recorded":
            raise UserError(f"{path}: was itself replayed from a recording; name the outputs of a live teacher")
        sources.append(_source_of(path, record, model))
        if sources[-1] != sources[0]:
            raise UserError(f"{path}: another model answered than in {answers[0]}; record them one by one")
        runs.append(record.model_dump(mode="json", include=OF_RUNS))
        rows |= {row["key"]: {name: row[name] for name in KEPT} for row in read_jsonl(path)}
    header = {"teacher": teacher, **sources[0]}
    kept, known = _read(output) if output.exists() else ({}, {})
    for fact in ("teacher", "source", "sha256", "revision", "extra"):
        if kept and kept.get(fact) != header.get(fact):
            raise UserError(
                f"{output}: has answers of another {fact}, {kept.get(fact)!r}, not {header.get(fact)!r}; name a new file"
            )
    added = rows.keys() - known.keys()
    rows |= known
    runs = [*kept.get("runs", ()), *runs]
    write_jsonl(output, [{"recording": {**header, "runs": runs}}, *(rows[key] for key in sorted(rows))])
    return f"{output}: {len(rows)} completions of {teacher}, {len(added)} of them new"


def _read(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What a recording says of itself, and its completions by key; `UserError` for another file."""
    rows = read_jsonl(path)
    if not rows or "recording" not in rows[0]:
        raise UserError(f"{path}: is no recording; name a new file")
    return rows[0]["recording"], {row["key"]: row for row in rows[1:]}


def _source_of(path: Path, record: Record, model: Path | None) -> dict[str, Any]:
    """Where answers come from, {source, sha256, licence}; of a served model neither weights nor licence are known."""
    settings = record.settings
    if settings["engine"] == "openai":
        source = {"source": f"served:{settings['served']}", "sha256": None, "licence": None}
        return source | {"revision": settings["revision"], "extra": settings["extra"]}
    if model is None:
        raise UserError(f"{path}: weights answered; name their record with --model")
    found = read_record(model).figures["source"]
    return {name: found[name] for name in ("source", "sha256", "licence")}
