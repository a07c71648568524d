"""This repository's engine `transformers`, or that of another checkout of it, by its public interfaces."""

import sys
from pathlib import Path


class Program:
    """`compute` "auto" loads the student's bfloat16 weights and leaves to the engine what it multiplies in."""

    def __init__(self, task: dict):
        sys.path.insert(0, f"{task['checkout']}/scripts")
        from selfrefine.engines.local import TransformersEngine
        from selfrefine.models import load_checkpoint, settle_torch

        settle_torch(task["threads"])
        dtype = "bfloat16" if task["compute"] == "auto" else task["compute"]
        model, tokenizer, identity = load_checkpoint(Path(task["checkpoint"]), dtype)
        self.engine = TransformersEngine(model, tokenizer, identity, task["batch"])
        self.scratch = Path(task["scratch"])
        self.compute = str(next(model.parameters()).dtype).removeprefix("torch.")
        self.version = _version()
        self._asked = 0

    def generate(self, wanted: dict) -> list[int]:
        from selfrefine.engines import Generation, Request, complete

        generation = Generation(max_tokens=wanted["max_tokens"], temperature=wanted["temperature"])
        chats = wanted["chats"] or [[{"role": "user", "content": str(i)}] for i in range(len(wanted["prompts"]))]
        if wanted["exact"]:
            self._without_stop(wanted["prompts"])
        requests = [
            Request(id=str(i), messages=chat, generation=generation, seed=seed)
            for i, (chat, seed) in enumerate(zip(chats, wanted["seeds"], strict=True))
        ]
        self._asked += 1
        completions = complete(self.engine, requests, self.scratch / f"{self._asked}.jsonl", "peers")
        return [completions[request.id].tokens for request in requests]

    def _without_stop(self, prompts: list[list[int]]) -> None:
        """Has the engine read token ids as they are, and go on until the limit."""
        self.engine.encode = lambda messages: prompts[int(messages[0]["content"])]
        self.engine.stop_ids = set()
        self.engine.model.generation_config.eos_token_id = None


def _version() -> str:
    from importlib.metadata import version

    return f"transformers {version('transformers')}"
