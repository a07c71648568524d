"""A checkpoint's weights, loaded once for all that one job asks of them."""

import argparse
import functools
import json
from pathlib import Path

from selfrefine import cli
from selfrefine.engines.weights import Answering, open_checkpoint_engine


def add_loading(parser: argparse.ArgumentParser) -> None:
    """Adds what loads a checkpoint, and what may be done with it loaded."""
    parser.add_argument("--checkpoint", required=True, type=Path, help="the checkpoint's record")
    parser.add_argument(
        "--also",
        type=json.loads,
        default=[],
        metavar="JSON",
        help="further evaluations of the checkpoint: [{record, task (the exported task's record), recipe, code}]",
    )
    parser.add_argument("--threads", type=int, default=1)
    cli.add_vllm(parser)
    cli.add_compute(parser)


class Loaded:
    """A checkpoint's engine, loaded when it is first used."""

    def __init__(self, args: argparse.Namespace, answering: Answering):
        self._args, self._answering = args, answering

    @property
    def is_loaded(self) -> bool:
        return "engine" in vars(self)

    @functools.cached_property
    def engine(self):
        """The engine."""
        from selfrefine.models import settle_torch

        args = self._args
        settle_torch(args.threads, self._answering.engine)
        return open_checkpoint_engine(args.checkpoint, self._answering, args.memory, args.batch_invariant, args.compute)
