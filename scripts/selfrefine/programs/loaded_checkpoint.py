"""A checkpoint that one job loads once, for its own stage and for further evaluations."""

import argparse
import functools
import json
from pathlib import Path

from selfrefine.engines.checkpoint_engines import open_checkpoint_engine
from selfrefine.engines.token_engine import TokenEngine
from selfrefine.models.checkpoints import prepare_torch
from selfrefine.programs import cli
from selfrefine.schema.generation import Answering


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that load a checkpoint, and `--also`."""
    parser.add_argument("--checkpoint", required=True, type=Path, help="the checkpoint's record")
    parser.add_argument(
        "--also",
        type=json.loads,
        default=[],
        metavar="JSON",
        help="further evaluations of the checkpoint: [{record, task (the exported task's record), settings, code}]",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads that torch uses")
    cli.add_vllm(parser)
    cli.add_compute(parser)


class LoadedCheckpoint:
    """A checkpoint's engine, loaded when it is first used."""

    def __init__(self, args: argparse.Namespace, answering: Answering):
        self._args, self._answering = args, answering

    @property
    def is_loaded(self) -> bool:
        """Whether the engine has been used."""
        return "engine" in vars(self)

    @functools.cached_property
    def engine(self) -> TokenEngine:
        """The engine."""
        args = self._args
        prepare_torch(args.threads, self._answering.engine)
        return open_checkpoint_engine(args.checkpoint, self._answering, args.memory, args.batch_invariant, args.compute)
