"""llama.cpp through xllamacpp, on weights written as GGUF: one slot per request of a batch."""

import threading
from pathlib import Path

import xllamacpp
from gguf_weights import write_gguf

# Tokens that a slot holds.
ROOM = 512


class Program:
    def __init__(self, task: dict):
        path = Path(task["scratch"]) / "weights.gguf"
        write_gguf(Path(task["folder"]), path, task["compute"])
        settings = xllamacpp.CommonParams()
        settings.model.path = str(path)
        settings.n_parallel = self.batch = task["batch"]
        settings.n_ctx = task["batch"] * ROOM
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = task["threads"]
        self.model = xllamacpp.Server(settings)
        self.compute = task["compute"]
        self.version = f"xllamacpp {xllamacpp.__version__}"

    def generate(self, wanted: dict) -> list[int]:
        counts = [0] * len(wanted["prompts"])
        places = iter(range(len(counts)))
        guard = threading.Lock()

        def work() -> None:
            while True:
                with guard:
                    place = next(places, None)
                if place is None:
                    return
                answer = self.model.handle_completions(self._body(wanted, place))
                counts[place] = answer["usage"]["completion_tokens"]

        threads = [threading.Thread(target=work) for _ in range(self.batch)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return counts

    @staticmethod
    def _body(wanted: dict, place: int) -> dict:
        return {
            "prompt": wanted["prompts"][place],
            "n_predict": wanted["max_tokens"],
            "temperature": wanted["temperature"],
            "seed": wanted["seeds"][place],
            "ignore_eos": wanted["exact"],
            "cache_prompt": False,
            # Nothing but the temperature between the model and the draw.
            "samplers": ["temperature"],
        }
