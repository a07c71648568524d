"""Draws a checkpoint's own answers to the training items, with and without a chain of thought, and judges them.

Goes on where an interrupted run stopped. With the checkpoint loaded, evaluates it on the tasks of --also that nobody else does.
"""

import argparse

from selfrefine import cli
from selfrefine.along import take_along
from selfrefine.benchmarks import read_items, subset
from selfrefine.engines import Request, complete
from selfrefine.errors import UserError
from selfrefine.files import write_jsonl
from selfrefine.loading import Loaded, add_loading
from selfrefine.paths import count, requests_for, to_rows
from selfrefine.provenance import Run
from selfrefine.sampling import SampleRecipe


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_recipe(parser, SampleRecipe)
    parser.add_argument("--items", required=True, type=cli.file_of("prepare"), help="the training items")
    add_loading(parser)
    cli.add_record(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    loaded = Loaded(args, args.recipe)
    with cli.begin(__file__, args, [args.items], args.recipe.seed, checkpoint=args.checkpoint) as run:
        if not run.made:
            sample(args, loaded, run)
    if loaded.is_loaded:
        take_along(args, loaded)


def sample(args: argparse.Namespace, loaded: Loaded, run: Run) -> None:
    recipe = args.recipe
    items = read_items(args.items)
    chosen = subset(list(items), recipe.share, recipe.seed)
    items = {item_id: item for item_id, item in items.items() if item_id in chosen}
    sampling = recipe.sampling

    def ask(items: dict[str, dict], style: str, samples: int) -> list[Request]:
        return requests_for(
            items,
            recipe.prompt,
            style,
            samples,
            sampling.generation,
            recipe.seed,
            request=sampling.hint if style == "rationale" else "",
            system=recipe.system,
        )

    requests = [*ask(items, "cot", sampling.cot), *ask(items, "plain", sampling.plain)]
    if not requests:
        raise UserError("nothing to sample: `sampling.cot` and `sampling.plain` are both 0")
    engine = loaded.engine
    # What may be asked later is looked at now: too long a prompt shall not end the stage after hours of work.
    engine.read(ask(items, "rationale", sampling.rationales))
    rows = to_rows(requests, complete(engine, requests, run.file, "sample paths"), items, recipe.extractor)
    solved = {row["item"] for row in rows if row["style"] == "cot" and row["correct"]}
    unsolved = {item_id: item for item_id, item in items.items() if item_id not in solved}
    if hinted := ask(unsolved, "rationale", sampling.rationales):
        rows += to_rows(hinted, complete(engine, hinted, run.file, "sample rationales"), items, recipe.extractor)
    rows.sort(key=lambda row: row["id"])
    write_jsonl(run.file, rows)
    made = sum(row["tokens"] for row in rows)
    run.record([run.file], engine.computed_in, items=len(items), paths=count(rows), tokens_made=made)


if __name__ == "__main__":
    cli.run(main)
