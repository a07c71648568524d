"""Evaluates a checkpoint on one exported task with lm-eval; goes on where an interrupted run stopped."""

import argparse
import os
import tempfile
from pathlib import Path

from selfrefine import cli
from selfrefine.errors import UserError
from selfrefine.files import read_jsonl, write_json, write_jsonl
from selfrefine.provenance import Run


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    from selfrefine.evaluation import EvaluateRecipe

    cli.add_recipe(parser, EvaluateRecipe)
    parser.add_argument("--checkpoint", required=True, type=Path, help="the checkpoint's manifest")
    parser.add_argument("--task", required=True, type=Path, help="the exported task's YAML")
    parser.add_argument("--threads", type=int, default=1)
    cli.add_vllm(parser)
    cli.add_compute(parser)
    parser.add_argument("--report", required=True, type=Path, help="lm-eval's results")
    parser.add_argument("--samples", required=True, type=Path, help="one judged answer a line")
    cli.add_provenance(parser)
    return parser.parse_args()


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        # lm-eval loads the documents through `datasets`, which would otherwise fill the user's cache, job by job.
        os.environ["HF_DATASETS_CACHE"] = cache
        args = arguments()
        folder = args.task.parent
        inputs = [args.checkpoint, args.task, folder / "docs.jsonl", folder / "answers.py"]
        with Run(__file__, args.recipe.model_dump(), inputs, args.provenance) as run:
            if not run.made:
                evaluate(args, run)


def evaluate(args: argparse.Namespace, run: Run) -> None:
    from selfrefine import evaluation
    from selfrefine.engines.weights import open_checkpoint_engine
    from selfrefine.models import settle_torch

    recipe = args.recipe
    settle_torch(args.threads, args.recipe.engine)
    engine = open_checkpoint_engine(args.checkpoint, recipe, args.memory, args.batch_invariant, args.compute)
    model = evaluation.EngineModel(engine, args.report, recipe.system)
    report, samples = evaluation.evaluate(model, recipe.task, args.task.parent)
    asked = {row["id"] for row in read_jsonl(args.task.parent / "docs.jsonl")}
    if asked != {row["id"] for row in samples}:
        raise UserError(f"{args.task}: lm-eval returned {len(samples)} of {len(asked)} answers; run again")
    write_jsonl(args.samples, samples)
    write_json(args.report, report)
    made = sum(row["tokens"] for row in samples)
    run.record([args.report, args.samples], engine.computed_in, items=len(samples), tokens_made=made)


if __name__ == "__main__":
    cli.run(main)
