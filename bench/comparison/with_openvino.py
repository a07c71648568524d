"""OpenVINO GenAI: continuous batching, on weights converted by optimum-intel.

Its KV cache has the dtype that it computes in; it is not quantised.
"""

from pathlib import Path

import numpy as np
import openvino
import openvino_genai
from openvino_tokenizers import convert_tokenizer
from optimum.exporters.openvino import main_export
from transformers import AutoTokenizer

PRECISION = {"float32": "f32", "bfloat16": "bf16"}


class Program:
    """The first load of weights includes their conversion, which takes a minute."""

    def __init__(self, task: dict):
        folder = Path(task["folder"]).with_name(f"{Path(task['folder']).name}-openvino")
        if not folder.exists():
            _convert(task["folder"], folder)
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_seqs = task["batch"]
        scheduler.max_num_batched_tokens = 2048
        scheduler.cache_size = 2
        precision = PRECISION[task["compute"]]
        properties = {
            "INFERENCE_PRECISION_HINT": precision,
            "KV_CACHE_PRECISION": precision,
            "INFERENCE_NUM_THREADS": task["threads"],
        }
        self.model = openvino_genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", properties)
        self.compute = task["compute"]
        self.version = f"openvino-genai {openvino_genai.__version__}"

    def generate(self, wanted: dict) -> list[int]:
        prompts = [openvino.Tensor(np.array([prompt], dtype=np.int64)) for prompt in wanted["prompts"]]
        settings = [self._settings(wanted, seed) for seed in wanted["seeds"]]
        return [len(result.m_generation_ids[0]) for result in self.model.generate(prompts, settings)]

    @staticmethod
    def _settings(wanted: dict, seed: int):
        settings = openvino_genai.GenerationConfig()
        settings.max_new_tokens = wanted["max_tokens"]
        settings.ignore_eos = wanted["exact"]
        settings.stop_token_ids = set() if wanted["exact"] else {wanted["stop"]}
        settings.apply_chat_template = False
        if wanted["temperature"]:
            settings.do_sample = True
            settings.temperature = wanted["temperature"]
            settings.rng_seed = seed
        return settings


def _convert(weights: str, folder: Path) -> None:
    main_export(weights, output=folder, task="text-generation-with-past", convert_tokenizer=False)
    models = convert_tokenizer(AutoTokenizer.from_pretrained(weights), with_detokenizer=True)
    for name, model in zip(("tokenizer", "detokenizer"), models, strict=True):
        openvino.save_model(model, folder / f"openvino_{name}.xml")
