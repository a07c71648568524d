"""Asks a teacher every item of a split and judges its answers; goes on where an interrupted run stopped."""

import argparse
import os
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from selfrefine import cli
from selfrefine.benchmarks import read_items
from selfrefine.engines import complete
from selfrefine.errors import UserError
from selfrefine.files import write_jsonl
from selfrefine.paths import count, requests_for, to_rows
from selfrefine.provenance import Run
from selfrefine.serving import Server
from selfrefine.teaching import Teaching


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_recipe(parser, Teaching)
    parser.add_argument("--items", required=True, type=cli.file_of("prepare"), help="the items to ask")
    parser.add_argument("--model", type=Path, help="the record of the teacher's model (engines transformers and vllm)")
    parser.add_argument("--recording", type=Path, help="kept completions (engine recorded)")
    parser.add_argument(
        "--server",
        type=cli.recipe(Server),
        default=Server(),
        metavar="JSON",
        help="where and how to ask (engine openai); the API key is in the environment",
    )
    parser.add_argument("--threads", type=int, default=1)
    cli.add_vllm(parser)
    cli.add_compute(parser)
    cli.add_record(parser)
    return parser.parse_args()


def proxy_for(address: str) -> str | None:
    """The proxy that the environment sets for an address."""
    parts = urlsplit(address)
    return None if urllib.request.proxy_bypass(parts.hostname) else urllib.request.getproxies().get(parts.scheme)


def open_engine(args: argparse.Namespace):
    if args.recipe.engine == "openai":
        if not args.recipe.served:
            raise UserError("engine openai: name the model at the server with `served` in --recipe")
        from selfrefine.engines.server import ServerEngine

        recipe, server = args.recipe, args.server
        key, proxy = os.environ.get(server.key_variable), proxy_for(server.endpoint)
        return ServerEngine(server, recipe.served, recipe.revision, recipe.extra, key, proxy)
    if args.recipe.engine == "recorded":
        if args.recording is None:
            raise UserError("engine recorded: name the kept completions with --recording")
        from selfrefine.engines.recorded import RecordedEngine

        return RecordedEngine(args.recording)
    if args.model is None:
        raise UserError(f"engine {args.recipe.engine}: name the record of the teacher's model with --model")
    from selfrefine.engines.weights import open_model_engine
    from selfrefine.models import settle_torch

    settle_torch(args.threads, args.recipe.engine)
    recipe = args.recipe
    on_machine = (args.memory, args.batch_invariant, args.compute)
    return open_model_engine(args.model, recipe.engine, recipe.dtype, recipe.batch_size, *on_machine)


def main() -> None:
    args = arguments()
    inputs = [args.items]
    if args.recording and str(args.recording) not in args.sources:
        inputs.append(args.recording)
    with cli.begin(__file__, args, inputs, checkpoint=args.model) as run:
        if not run.made:
            teach(args, run)


def teach(args: argparse.Namespace, run: Run) -> None:
    recipe = args.recipe
    items = read_items(args.items)
    requests = requests_for(
        items, recipe.prompt, recipe.style, 1, recipe.generation, 0, request=recipe.request, system=recipe.system
    )
    engine = open_engine(args)
    completions = complete(engine, requests, run.file, f"teach {recipe.style}")
    rows = to_rows(requests, completions, items, recipe.extractor)
    keys = {request.id: request.key for request in requests}
    write_jsonl(run.file, ({**row, "key": keys[row["id"]]} for row in rows))
    made = sum(completion.tokens for completion in completions.values())
    if recipe.engine == "openai":
        figures = engine.report(requests)
    else:
        figures = {"tokens_made": made} if recipe.engine != "recorded" else {"tokens_replayed": made}
    run.record([run.file], getattr(engine, "computed_in", None), engine=engine.identity, paths=count(rows), **figures)


if __name__ == "__main__":
    cli.run(main)
