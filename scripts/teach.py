"""Asks a teacher every item of a split and judges its answers; resumes an interrupted run."""

import argparse
import os
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from selfrefine.data.items import read_items
from selfrefine.data.mixtures import asked
from selfrefine.data.shots import items_to_show
from selfrefine.engines.checkpoint_engines import open_model_engine
from selfrefine.engines.completions import complete
from selfrefine.engines.interface import Engine
from selfrefine.engines.item_requests import requests_for
from selfrefine.engines.openai.server_engine import ServerEngine
from selfrefine.engines.recorded import RecordedEngine
from selfrefine.errors import UserError
from selfrefine.judging.sampled_paths import count, refuse_missing, to_rows
from selfrefine.models.checkpoints import prepare_torch
from selfrefine.programs import cli
from selfrefine.schema.rows import TeacherAnswer
from selfrefine.schema.server import Server
from selfrefine.schema.stages import TeachSettings
from selfrefine.store.files import write_jsonl
from selfrefine.store.run import Run


def arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_settings(parser, TeachSettings)
    parser.add_argument("--items", required=True, type=cli.file_of("prepare"), help="the items to ask")
    parser.add_argument("--model", type=Path, help="the record of the teacher's model (engines transformers and vllm)")
    parser.add_argument("--recording", type=Path, help="kept completions (engine recorded)")
    parser.add_argument(
        "--server",
        type=cli.as_json(Server),
        default=Server(),
        metavar="JSON",
        help="how to ask the server (engine openai); the API key is in the environment",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads that torch uses")
    cli.add_vllm(parser)
    cli.add_compute(parser)
    cli.add_shots(parser)
    cli.add_record(parser)
    return parser.parse_args()


def proxy_for(address: str) -> str | None:
    """The proxy that the environment sets for an address."""
    parts = urlsplit(address)
    return None if urllib.request.proxy_bypass(parts.hostname or "") else urllib.request.getproxies().get(parts.scheme)


def open_engine(args: argparse.Namespace) -> Engine:
    """The engine that answers for the teacher."""
    if args.settings.engine == "openai":
        if not args.settings.served:
            raise UserError("engine openai: name the model at the server with `served` in --settings")
        settings, server = args.settings, args.server
        key, proxy = os.environ.get(server.key_variable), proxy_for(server.endpoint)
        return ServerEngine(server, settings.served, settings.revision, settings.extra, key, proxy)
    if args.settings.engine == "recorded":
        if args.recording is None:
            raise UserError("engine recorded: name the kept completions with --recording")
        return RecordedEngine(args.recording)
    if args.model is None:
        raise UserError(f"engine {args.settings.engine}: name the record of the teacher's model with --model")
    prepare_torch(args.threads, args.settings.engine)
    settings = args.settings
    on_machine = (args.memory, args.batch_invariant, args.compute)
    return open_model_engine(args.model, settings.engine, settings.dtype, settings.batch_size, *on_machine)


def main() -> None:
    args = arguments()
    inputs = [args.items, *cli.shots_given(args)]
    if args.recording and str(args.recording) not in args.sources:
        inputs.append(args.recording)
    with cli.begin(__file__, args, inputs, checkpoint=args.model) as run:
        if not run.made:
            teach(args, run)


def teach(args: argparse.Namespace, run: Run) -> None:
    settings = args.settings
    refuse_missing(settings.extractor)
    items = asked(read_items(args.items), settings.drawn)
    requests = requests_for(
        *(items, settings.prompt, settings.style, 1, settings.generation, 0),
        request=settings.request,
        system=settings.system,
        shots=items_to_show(settings.prompt, args.shots),
        stop=settings.stop,
        thinking=settings.thinking,
    )
    engine = open_engine(args)
    completions = complete(engine, requests, run.file, f"teach {settings.style}")
    rows = to_rows(requests, completions, items, settings.extractor, settings.answer_phrases)
    keys = {request.id: request.key for request in requests}
    answers: list[TeacherAnswer] = [{**row, "key": keys[row["id"]]} for row in rows]
    write_jsonl(run.file, answers)
    made = sum(completion.tokens for completion in completions.values())
    if isinstance(engine, ServerEngine):
        figures = engine.report(requests)
    else:
        figures = {"tokens_made": made} if settings.engine != "recorded" else {"tokens_replayed": made}
    run.record([run.file], getattr(engine, "computed_in", None), engine=engine.identity, paths=count(rows), **figures)


if __name__ == "__main__":
    cli.run(main)
