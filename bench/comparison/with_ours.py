"""This repository's engine `transformers`, or that of another checkout of it."""

import sys
from pathlib import Path
from types import SimpleNamespace


class Program:
    """With `compute` "auto" it loads the student's bfloat16 weights, and the engine chooses what to multiply in."""

    def __init__(self, task: dict):
        library = _library(Path(task["checkout"]))
        self.Generation, self.Request, self.complete = library.Generation, library.Request, library.complete
        library.prepare_torch(task["threads"])
        dtype = "bfloat16" if task["compute"] == "auto" else task["compute"]
        model, tokenizer, identity = library.load_checkpoint(Path(task["checkpoint"]), dtype)
        self.engine = library.TransformersEngine(model, tokenizer, identity, task["batch"])
        self.scratch = Path(task["scratch"])
        self.compute = str(next(model.parameters()).dtype).removeprefix("torch.")
        self.version = _version()
        self._asked = 0

    def generate(self, wanted: dict) -> list[int]:
        generation = self.Generation(max_tokens=wanted["max_tokens"], temperature=wanted["temperature"])
        chats = wanted["chats"] or [[{"role": "user", "content": str(i)}] for i in range(len(wanted["prompts"]))]
        if wanted["exact"]:
            self._without_stop(wanted["prompts"])
        requests = [
            self.Request(id=str(i), messages=chat, generation=generation, seed=seed)
            for i, (chat, seed) in enumerate(zip(chats, wanted["seeds"], strict=True))
        ]
        self._asked += 1
        completions = self.complete(self.engine, requests, self.scratch / f"{self._asked}.jsonl", "peers")
        return [completions[request.id].tokens for request in requests]

    def _without_stop(self, prompts: list[list[int]]) -> None:
        """Makes the engine take token ids as they are, and generate up to the limit."""
        self.engine.encode = lambda messages: prompts[int(messages[0]["content"])]
        self.engine.stop_ids = set()
        self.engine.model.generation_config.eos_token_id = None


def _library(checkout: Path) -> SimpleNamespace:
    """What this needs of a checkout's library; its modules had other names before they were in packages."""
    scripts = checkout / "scripts"
    sys.path.insert(0, str(scripts))
    if (scripts / "selfrefine/engines/interface.py").exists():
        from selfrefine.engines.completions import complete
        from selfrefine.engines.interface import Request
        from selfrefine.engines.transformers import TransformersEngine
        from selfrefine.models.checkpoints import load_checkpoint, prepare_torch
        from selfrefine.schema.generation import Generation
    else:
        from selfrefine.engines.local import TransformersEngine

        from selfrefine.engines import Generation, Request, complete
        from selfrefine.models import load_checkpoint
        from selfrefine.models import settle_torch as prepare_torch
    return SimpleNamespace(
        Generation=Generation,
        Request=Request,
        complete=complete,
        TransformersEngine=TransformersEngine,
        load_checkpoint=load_checkpoint,
        prepare_torch=prepare_torch,
    )


def _version() -> str:
    from importlib.metadata import version

    return f"transformers {version('transformers')}"
