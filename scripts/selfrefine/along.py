"""Evaluations that a job takes along while it has a checkpoint loaded; what the job itself makes does not depend on them."""

import argparse
import traceback
from pathlib import Path

from selfrefine.files import Busy
from selfrefine.loading import Loaded
from selfrefine.provenance import Run
from selfrefine.tasks import EvaluateRecipe


def take_along(args: argparse.Namespace, loaded: Loaded) -> None:
    """The further evaluations of `args.also`: each that is exported, not made yet, and that no other process is at.

    What goes wrong there is left to that task's own job.
    """
    # The script that evaluates: it may be the one that runs.
    import evaluate

    for other in args.also:
        record, task = Path(other["record"]), Path(other["task"])
        if record.exists() or not task.exists():
            continue
        recipe = EvaluateRecipe.model_validate(other["recipe"])
        try:
            inputs, options = evaluate.files_of(task, recipe.task), {"version": other["code"], "wait": False}
            with Run(evaluate.__file__, other["recipe"], inputs, record, checkpoint=args.checkpoint, **options) as run:
                if not run.made:
                    evaluate.evaluate(task.parent, recipe, loaded, run)
                    print(f"{record}: made along with {args.record}", flush=True)
        except Busy:
            continue
        except Exception:
            traceback.print_exc()
            print(f"{record}: not made along with {args.record}: its own job will say more", flush=True)
