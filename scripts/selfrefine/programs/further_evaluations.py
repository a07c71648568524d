"""Further evaluations of the checkpoint that a job has loaded, besides the job's own artifact."""

import argparse
import traceback
from pathlib import Path

from selfrefine.judging.evaluation import evaluate_task, files_of
from selfrefine.programs.loaded_checkpoint import LoadedCheckpoint
from selfrefine.schema.stages import EvaluateSettings
from selfrefine.store.fingerprint import scripts_folder
from selfrefine.store.locks import Busy
from selfrefine.store.run import Run

# The program of the evaluate stage, whose artifacts these are.
EVALUATE = scripts_folder(Path(__file__)) / "evaluate.py"


def evaluate_further(args: argparse.Namespace, loaded: LoadedCheckpoint) -> None:
    """Makes those evaluations of `args.also` that are possible, missing, and not being made by another process.

    An error in one is printed; its own job will make it or report the error.
    """
    for other in args.also:
        record, task = Path(other["record"]), Path(other["task"])
        if record.exists() or not task.exists():
            continue
        settings = EvaluateSettings.model_validate(other["settings"])
        if settings.engine != args.settings.engine:
            continue
        try:
            with Run(
                EVALUATE,
                other["settings"],
                files_of(task, settings.task),
                record,
                version=other["code"],
                wait=False,
                checkpoint=args.checkpoint,
            ) as run:
                if not run.made:
                    evaluate_task(task.parent, settings, loaded.engine, run)
                    print(f"{record}: made along with {args.record}", flush=True)
        except Busy:
            continue
        except Exception:
            traceback.print_exc()
            print(f"{record}: not made along with {args.record}: its own job will say more", flush=True)
