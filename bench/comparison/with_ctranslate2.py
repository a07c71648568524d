"""ctranslate2: its own runtime, on weights converted from merged ones; unquantised."""

from pathlib import Path

import ctranslate2
from ctranslate2.converters import TransformersConverter
from transformers import AutoTokenizer


class Program:
    """It has one seed for the process, none per request."""

    def __init__(self, task: dict):
        supported = ctranslate2.get_supported_compute_types("cpu")
        if task["compute"] not in supported:
            raise ValueError(f"not supported on this processor; unquantised: {sorted(supported & _PLAIN)}")
        folder = Path(task["scratch"]) / "converted"
        TransformersConverter(task["folder"]).convert(str(folder), quantization=task["compute"])
        self.model = ctranslate2.Generator(
            str(folder), device="cpu", compute_type=task["compute"], intra_threads=task["threads"], inter_threads=1
        )
        self.tokenizer = AutoTokenizer.from_pretrained(task["folder"])
        self.batch = task["batch"]
        self.compute = self.model.compute_type
        self.version = f"ctranslate2 {ctranslate2.__version__}"

    def generate(self, wanted: dict) -> list[int]:
        temperature = wanted["temperature"]
        drawn = {"sampling_topk": 0, "sampling_temperature": temperature} if temperature else {"sampling_topk": 1}
        ctranslate2.set_random_seed(wanted["seeds"][0])
        results = self.model.generate_batch(
            [self.tokenizer.convert_ids_to_tokens(prompt) for prompt in wanted["prompts"]],
            max_batch_size=self.batch,
            max_length=wanted["max_tokens"],
            min_length=wanted["max_tokens"] if wanted["exact"] else 0,
            include_prompt_in_result=False,
            end_token=[wanted["stop"]],
            return_end_token=True,
            **drawn,
        )
        return [len(result.sequences_ids[0]) for result in results]


_PLAIN = {"float32", "float16", "bfloat16"}
