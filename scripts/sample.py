"""Samples a checkpoint's paths for the training items and judges them.

Some are sampled with a chain of thought, some without. Resumes an interrupted run. With the checkpoint loaded,
evaluates it on the tasks of --also as well.
"""

import argparse

from selfrefine.data.items import read_items, subset
from selfrefine.data.shots import items_to_show
from selfrefine.engines.completions import complete
from selfrefine.engines.interface import Request
from selfrefine.engines.item_requests import requests_for
from selfrefine.errors import UserError
from selfrefine.judging.sampled_paths import count, refuse_missing, to_rows
from selfrefine.programs import cli
from selfrefine.programs.further_evaluations import evaluate_further
from selfrefine.programs.loaded_checkpoint import LoadedCheckpoint, add_checkpoint
from selfrefine.schema.rows import Item
from selfrefine.schema.stages import SampleSettings
from selfrefine.store.files import write_jsonl
from selfrefine.store.run import Run


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, SampleSettings)
    parser.add_argument("--items", required=True, type=cli.file_of("prepare"), help="the training items")
    add_checkpoint(parser)
    cli.add_shots(parser)
    cli.add_record(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    loaded, inputs = LoadedCheckpoint(args, args.settings), [args.items, *cli.shots_given(args)]
    with cli.begin(__file__, args, inputs, args.settings.seed, checkpoint=args.checkpoint) as run:
        if not run.made:
            sample(args, loaded, run)
    if loaded.is_loaded:
        evaluate_further(args, loaded)


def sample(args: argparse.Namespace, loaded: LoadedCheckpoint, run: Run) -> None:
    settings = args.settings
    refuse_missing(settings.extractor)
    items = read_items(args.items)
    of_all = len(items)
    chosen = subset(list(items), settings.share, settings.seed)
    items = {item_id: item for item_id, item in items.items() if item_id in chosen}
    sampling, shots = settings.sampling, items_to_show(settings.prompt, args.shots)

    def ask(items: dict[str, Item], style: str, samples: int) -> list[Request]:
        return requests_for(
            *(items, settings.prompt, style, samples, sampling.generation, settings.seed),
            request=sampling.hint if style == "rationale" else "",
            system=settings.system,
            shots=shots,
            stop=settings.stop,
            thinking=settings.thinking,
        )

    requests = [*ask(items, "cot", sampling.cot), *ask(items, "plain", sampling.plain)]
    if not requests:
        if not items:
            raise UserError(
                f"{args.items}: {settings.share} % of its {of_all} items is none; raise `study.shares` or use more"
            )
        raise UserError("nothing to sample: `sampling.cot` and `sampling.plain` are both 0")
    engine = loaded.engine
    # Rationales may be asked for later; a prompt that is too long should end the stage now, not after hours of work.
    engine.read(ask(items, "rationale", sampling.rationales))
    judging = settings.extractor, settings.answer_phrases
    rows = to_rows(requests, complete(engine, requests, run.file, "sample paths"), items, *judging)
    solved = {row["item"] for row in rows if row["style"] == "cot" and row["correct"]}
    unsolved = {item_id: item for item_id, item in items.items() if item_id not in solved}
    if hinted := ask(unsolved, "rationale", sampling.rationales):
        rows += to_rows(hinted, complete(engine, hinted, run.file, "sample rationales"), items, *judging)
    rows.sort(key=lambda row: row["id"])
    write_jsonl(run.file, rows)
    made = sum(row["tokens"] for row in rows)
    run.record([run.file], engine.computed_in, items=len(items), paths=count(rows), tokens_made=made)


if __name__ == "__main__":
    cli.run(main)
