"""Evaluates a checkpoint on one exported task with lm-eval.

Resumes an interrupted run. With the checkpoint loaded, evaluates it on the further tasks of --also as well.
"""

import argparse
from pathlib import Path

from selfrefine.judging.evaluation import evaluate_task, files_of
from selfrefine.programs import cli
from selfrefine.programs.further_evaluations import evaluate_further
from selfrefine.programs.loaded_checkpoint import LoadedCheckpoint, add_checkpoint
from selfrefine.schema.stages import EvaluateSettings


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, EvaluateSettings)
    parser.add_argument("--task", required=True, type=Path, help="the exported task's record")
    add_checkpoint(parser)
    cli.add_record(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    loaded = LoadedCheckpoint(args, args.settings)
    with cli.begin(__file__, args, files_of(args.task, args.settings.task), checkpoint=args.checkpoint) as run:
        if not run.made:
            evaluate_task(args.task.parent, args.settings, loaded.engine, run)
    if loaded.is_loaded:
        evaluate_further(args, loaded)


if __name__ == "__main__":
    cli.run(main)
