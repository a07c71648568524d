"""Evaluates a checkpoint on one exported task with lm-eval; goes on where an interrupted run stopped.

With the checkpoint loaded, evaluates it on the further tasks of --also as well.
"""

import argparse
from pathlib import Path

from selfrefine import cli
from selfrefine.along import take_along
from selfrefine.errors import UserError
from selfrefine.files import read_jsonl, write_json, write_jsonl
from selfrefine.loading import Loaded, add_loading
from selfrefine.names import REPORT
from selfrefine.provenance import RECORD, Run
from selfrefine.tasks import EvaluateRecipe


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_recipe(parser, EvaluateRecipe)
    parser.add_argument("--task", required=True, type=Path, help="the exported task's record")
    add_loading(parser)
    cli.add_record(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    loaded = Loaded(args, args.recipe)
    with cli.begin(__file__, args, files_of(args.task, args.recipe.task), checkpoint=args.checkpoint) as run:
        if not run.made:
            evaluate(args.task.parent, args.recipe, loaded, run)
    if loaded.is_loaded:
        take_along(args, loaded)


def files_of(task: Path, name: str) -> list[Path]:
    """What an evaluation reads of the exported task with this record."""
    return [task.with_name(file) for file in (f"{name}.yaml", "docs.jsonl", "answers.py")]


def evaluate(folder: Path, recipe: EvaluateRecipe, loaded: Loaded, run: Run) -> None:
    """One evaluation, on the task that was exported to a folder."""
    from selfrefine import evaluation

    engine = loaded.engine
    model = evaluation.EngineModel(engine, run.file, recipe.system)
    report, samples = evaluation.evaluate(model, recipe.task, folder)
    asked = {row["id"] for row in read_jsonl(folder / "docs.jsonl")}
    if asked != {row["id"] for row in samples}:
        raise UserError(f"{folder / RECORD}: lm-eval returned {len(samples)} of {len(asked)} answers; run again")
    write_jsonl(run.file, samples)
    write_json(run.folder / REPORT, report)
    made = sum(row["tokens"] for row in samples)
    run.record([run.folder / REPORT, run.file], engine.computed_in, items=len(samples), tokens_made=made)


if __name__ == "__main__":
    cli.run(main)
