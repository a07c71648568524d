"""Phase 2: preference optimisation (TRL's trainers) of a checkpoint, with itself as the reference.

Keeps the weights of lowest validation loss. An interrupted run goes on from its last trainer checkpoint.
"""

import argparse
from pathlib import Path

from selfrefine.data.items import read_items
from selfrefine.data.shots import items_to_show
from selfrefine.errors import UserError
from selfrefine.models.checkpoints import prepare_torch
from selfrefine.models.compute import bound_threads
from selfrefine.models.processes import agreed, state
from selfrefine.programs import cli
from selfrefine.schema.stages import RefineSettings
from selfrefine.store.files import read_jsonl
from selfrefine.store.run import Run
from selfrefine.training.examples import encode_pairs


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, RefineSettings)
    parser.add_argument(
        "--start", required=True, type=Path, help="the record of the checkpoint to start from: also the reference"
    )
    parser.add_argument("--items", required=True, type=cli.file_of("prepare"), help="the training items")
    parser.add_argument("--pairs", required=True, type=cli.file_of("pair"), help="the preference pairs")
    parser.add_argument(
        "--paths", type=cli.file_of("sample"), help="the sampled paths, whose tokens count in a budget `refine.tokens`"
    )
    parser.add_argument("--threads", type=int, default=1)
    cli.add_compute(parser)
    cli.add_shots(parser)
    cli.add_record(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    inputs = [args.items, args.pairs, *([args.paths] if args.paths else []), *cli.shots_given(args)]
    bound_threads(args.threads)
    leads = state().is_main_process
    with cli.begin(__file__, args, inputs, args.settings.seed, leads=leads, checkpoint=args.start) as run:
        if not agreed(leads and run.made):
            refine(args, run)


def refine(args: argparse.Namespace, run: Run) -> None:
    prepare_torch(args.threads)
    # What they import needs torch as it was just prepared.
    from selfrefine.training.budget import within_budget
    from selfrefine.training.loop import Start, train
    from selfrefine.training.refine_phase import REFINE, record_unchanged

    start = Start.open(args.start, args.compute, args.settings.chat_template)
    pairs, items = read_jsonl(args.pairs), read_items(args.items)
    shots = items_to_show(args.settings.prompt, args.shots)
    examples, counts = encode_pairs(pairs, items, args.settings, start.tokenizer, shots)
    if examples.train and examples.validation:
        if args.settings.training.tokens and args.paths is None:
            raise UserError("refine.tokens: counts what was sampled; name the sampled paths with --paths")
        sampled = read_jsonl(args.paths) if args.paths else []
        training = within_budget(args.settings.training, examples.train, sampled, args.paths)
        train(run, start, args.settings.model_copy(update={"training": training}), examples, REFINE, {"pairs": counts})
    elif counts["too_long"]:
        raise UserError(f"{args.pairs}: too few pairs are left ({counts}); raise `max_length`")
    elif run.leads:
        print(f"{args.pairs}: too few pairs to learn from ({counts}): the student is left as it was", flush=True)
        record_unchanged(run, start, args.settings, {"pairs": counts})


if __name__ == "__main__":
    cli.run(main)
