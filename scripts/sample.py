"""Draws a checkpoint's own answers to the training items, with and without a chain of thought, and judges them.

Goes on where an interrupted run stopped.
"""

import argparse
from pathlib import Path

from selfrefine import cli
from selfrefine.benchmarks import read_items, subset
from selfrefine.engines import Request, complete
from selfrefine.engines.weights import open_checkpoint_engine
from selfrefine.errors import UserError
from selfrefine.files import write_jsonl
from selfrefine.models import settle_torch
from selfrefine.paths import count, requests_for, to_rows
from selfrefine.provenance import Run
from selfrefine.sampling import SampleRecipe


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_recipe(parser, SampleRecipe)
    parser.add_argument("--checkpoint", required=True, type=Path, help="the checkpoint's manifest")
    parser.add_argument("--items", required=True, type=Path, help="the training items")
    parser.add_argument("--threads", type=int, default=1)
    cli.add_vllm(parser)
    cli.add_compute(parser)
    parser.add_argument("--output", required=True, type=Path, help="one judged path a line")
    cli.add_provenance(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    inputs = [args.checkpoint, args.items]
    with Run(__file__, args.recipe.model_dump(), inputs, args.provenance, args.recipe.seed) as run:
        if not run.made:
            sample(args, run)


def sample(args: argparse.Namespace, run: Run) -> None:
    recipe = args.recipe
    settle_torch(args.threads, args.recipe.engine)
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
    engine = open_checkpoint_engine(args.checkpoint, recipe, args.memory, args.batch_invariant, args.compute)
    # What may be asked later is looked at now: too long a prompt shall not end the stage after hours of work.
    engine.read(ask(items, "rationale", sampling.rationales))
    rows = to_rows(requests, complete(engine, requests, args.output, "sample paths"), items, recipe.extractor)
    solved = {row["item"] for row in rows if row["style"] == "cot" and row["correct"]}
    unsolved = {item_id: item for item_id, item in items.items() if item_id not in solved}
    if hinted := ask(unsolved, "rationale", sampling.rationales):
        rows += to_rows(hinted, complete(engine, hinted, args.output, "sample rationales"), items, recipe.extractor)
    rows.sort(key=lambda row: row["id"])
    write_jsonl(args.output, rows)
    made = sum(row["tokens"] for row in rows)
    run.record([args.output], engine.computed_in, items=len(items), paths=count(rows), tokens_made=made)


if __name__ == "__main__":
    cli.run(main)
