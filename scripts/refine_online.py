"""Phase 2, online: the student samples completions as it learns (TRL's GRPOTrainer).

Each is rewarded by the verdict of the study's extractor. An interrupted run goes on from its last trainer checkpoint.
"""

import argparse
from pathlib import Path

from selfrefine.data.items import read_items
from selfrefine.data.shots import items_to_show
from selfrefine.judging.sampled_paths import judge, refuse_missing
from selfrefine.models.checkpoints import prepare_torch
from selfrefine.models.compute import bound_threads
from selfrefine.models.processes import agreed, state
from selfrefine.programs import cli
from selfrefine.schema.rows import Item
from selfrefine.schema.stages import RefineOnlineSettings
from selfrefine.store.run import Run


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, RefineOnlineSettings)
    parser.add_argument(
        "--start", required=True, type=Path, help="the record of the checkpoint to start from: also the reference"
    )
    parser.add_argument("--items", required=True, type=cli.file_of("prepare"), help="the training items")
    parser.add_argument("--threads", type=int, default=1)
    cli.add_vllm(parser)
    cli.add_compute(parser)
    cli.add_shots(parser)
    cli.add_record(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    inputs = [args.items, *cli.shots_given(args)]
    bound_threads(args.threads)
    leads = state().is_main_process
    with cli.begin(__file__, args, inputs, args.settings.seed, leads=leads, checkpoint=args.start) as run:
        if not agreed(leads and run.made):
            refine(args, run)


def refine(args: argparse.Namespace, run: Run) -> None:
    settings = args.settings
    refuse_missing(settings.extractor)
    prepare_torch(args.threads)
    # What they import needs torch as it was just prepared.
    from selfrefine.training.loop import Start
    from selfrefine.training.online.loop import train_online
    from selfrefine.training.online.prompts import ask

    def verdict(item: Item, text: str) -> bool:
        return judge(item, text, settings.extractor, settings.answer_phrases)["correct"]

    start = Start.open(args.start, args.compute, settings.chat_template)
    asked = ask(read_items(args.items), settings, start.tokenizer, items_to_show(settings.prompt, args.shots))
    train_online(run, start, settings, asked, verdict, args.memory)


if __name__ == "__main__":
    cli.run(main)
