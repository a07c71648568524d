"""Phase 1: fine-tunes a student on a teacher's demonstrations (TRL's SFTTrainer, PEFT LoRA).

The loss is on the answer's tokens and the stop token. An interrupted run goes on from its last trainer checkpoint.
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
from selfrefine.schema.stages import InstructSettings
from selfrefine.store.files import read_jsonl
from selfrefine.store.run import Run
from selfrefine.training.examples import encode_demonstrations


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, InstructSettings)
    parser.add_argument("--start", required=True, type=Path, help="the record of the checkpoint to start from")
    parser.add_argument("--items", required=True, type=cli.file_of("prepare"), help="the training items")
    parser.add_argument(
        "--demonstrations", required=True, type=cli.file_of("demonstrate"), help="the teacher's demonstrations"
    )
    parser.add_argument("--threads", type=int, default=1)
    cli.add_compute(parser)
    cli.add_shots(parser)
    cli.add_record(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    inputs = [args.items, args.demonstrations, *cli.shots_given(args)]
    bound_threads(args.threads)
    leads = state().is_main_process
    with cli.begin(__file__, args, inputs, args.settings.seed, leads=leads, checkpoint=args.start) as run:
        if not agreed(leads and run.made):
            instruct(args, run)


def instruct(args: argparse.Namespace, run: Run) -> None:
    prepare_torch(args.threads)
    # What they import needs torch as it was just prepared.
    from selfrefine.training.instruct_phase import INSTRUCT
    from selfrefine.training.loop import Start, train

    start = Start.open(args.start, args.compute, args.settings.chat_template)
    if start.adapter:
        raise UserError(f"{args.start}: has an adapter already; instruct starts from a base model")
    items, demonstrations = read_items(args.items), read_jsonl(args.demonstrations)
    shots = items_to_show(args.settings.prompt, args.shots)
    examples, counts = encode_demonstrations(demonstrations, items, args.settings, start.tokenizer, shots)
    if not examples.train:
        raise UserError(f"{args.demonstrations}: no demonstration is left ({counts}); raise `max_length` or `share`")
    train(run, start, args.settings, examples, INSTRUCT, {"demonstrations": counts})


if __name__ == "__main__":
    cli.run(main)
