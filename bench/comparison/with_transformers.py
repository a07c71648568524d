"""`transformers.generate` as a user would script it: left-padded batches in the order of the file."""

from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer


class Program:
    """Samples from the same distribution as our engine: without top-k."""

    def __init__(self, task: dict):
        torch.set_num_threads(task["threads"])
        dtype = getattr(torch, task["compute"])
        self.model = AutoModelForCausalLM.from_pretrained(Path(task["folder"]), dtype=dtype).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(task["folder"], padding_side="left")
        self.batch = task["batch"]
        self.compute = task["compute"]
        self.version = f"transformers {transformers.__version__}"

    @torch.inference_mode()
    def generate(self, wanted: dict) -> list[int]:
        settings = {"do_sample": False}
        if wanted["temperature"]:
            settings = {"do_sample": True, "temperature": wanted["temperature"], "top_k": 0, "top_p": 1.0}
            torch.manual_seed(wanted["seeds"][0])
        if wanted["exact"]:
            self.model.generation_config.eos_token_id = None
        counts = []
        for start in range(0, len(wanted["prompts"]), self.batch):
            prompts = wanted["prompts"][start : start + self.batch]
            inputs = self.tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
            made = self.model.generate(
                **inputs,
                **settings,
                max_new_tokens=wanted["max_tokens"],
                pad_token_id=self.tokenizer.pad_token_id,
            )
            for row in made[:, inputs["input_ids"].shape[1] :].tolist():
                stop = wanted["stop"] if wanted["stop"] in row else None
                counts.append(len(row) if stop is None or wanted["exact"] else row.index(stop) + 1)
        return counts
