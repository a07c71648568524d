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
    """Records a teacher's answers (files of the stage teach, beside their records); says how many completions it kept.

    `model` is the record of the teacher's weights, if it is not a served model. `UserError` if the answers are those of
    more than one model, or come from a recording themselves.
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
    header = {"teacher": teacher, **sources[0], "runs": runs}
    write_jsonl(output, [{"recording": header}, *(rows[key] for key in sorted(rows))])
    return f"{output}: {len(rows)} completions of {teacher}"


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
