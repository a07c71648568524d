"""Evaluates a checkpoint on one exported task, and records the artifact."""

from pathlib import Path
from typing import Any

from selfrefine.engines.token_engine import TokenEngine
from selfrefine.errors import UserError
from selfrefine.judging.sampled_paths import refuse_missing
from selfrefine.schema.rows import item_of
from selfrefine.schema.stages import EvaluateSettings, StockAsked
from selfrefine.store.files import read_jsonl, write_json, write_jsonl
from selfrefine.store.locations import DOCUMENTS, OWN_TASKS, RECORD, REPORT, SPLITS
from selfrefine.store.register import witness
from selfrefine.store.run import Run


def files_of(task: Path, name: str) -> list[Path]:
    """The files that an evaluation reads of the exported task with this record and name; of lm-eval's own, its data."""
    if found := sorted(task.parent.glob(SPLITS)):
        own = task.with_name(OWN_TASKS)
        return [*found, *([own] if own.exists() else [])]
    return [task.with_name(file) for file in (f"{name}.yaml", "docs.jsonl", "answers.py")]


def evaluate_task(folder: Path, settings: EvaluateSettings, engine: TokenEngine, run: Run) -> None:
    """Evaluates on the task that was exported to a folder, and records the judged answers and lm-eval's report."""
    registered: dict[str, Any] = witness()
    if settings.stock is not None:
        _evaluate_stock(folder, settings, settings.stock, engine, run, registered)
        return
    documents = read_jsonl(folder / "docs.jsonl")
    for extractor in {row.get("extractor") for row in documents}:
        refuse_missing(extractor)
    # It imports lm-eval, which a job whose artifact exists need not wait for.
    from selfrefine.judging.lm_eval_model import EngineModel, run_lm_eval

    model = EngineModel(engine, run.file, settings.system, settings.thinking)
    report, answers = run_lm_eval(model, settings.task, folder)
    asked = {row["id"] for row in documents}
    if asked != {item_of(row) for row in answers}:
        raise UserError(f"{folder / RECORD}: lm-eval returned {len(answers)} of {len(asked)} answers; run again")
    write_jsonl(run.file, answers)
    write_json(run.folder / REPORT, report)
    made = sum(row["tokens"] for row in answers)
    run.record([run.folder / REPORT, run.file], engine.computed_in, items=len(asked), tokens_made=made, **registered)


def _evaluate_stock(
    folder: Path,
    settings: EvaluateSettings,
    asked: StockAsked,
    engine: TokenEngine,
    run: Run,
    registered: dict[str, Any],
) -> None:
    from selfrefine.judging.stock_evaluation import evaluate_stock

    report, documents, answers = evaluate_stock(folder, settings, asked, engine, run.file)
    write_jsonl(run.file, answers)
    write_jsonl(run.folder / DOCUMENTS, documents)
    write_json(run.folder / REPORT, report)
    made = sum(row["tokens"] for row in answers)
    run.record(
        [run.folder / REPORT, run.folder / DOCUMENTS, run.file],
        engine.computed_in,
        items=len(answers),
        tokens_made=made,
        **registered,
    )
