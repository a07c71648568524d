"""Samples with `transformers.generate` as a user would script it: python plain_sample.py TASK.

TASK is a JSON file: {model, adapter (a folder), threads, compute, batch, asked (what a worker is asked for), output}:
writes the completions to the output.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(task["threads"])
    model = AutoModelForCausalLM.from_pretrained(task["model"], dtype=getattr(torch, task["compute"]))
    model = PeftModel.from_pretrained(model, task["adapter"]).merge_and_unload().eval()
    tokenizer = AutoTokenizer.from_pretrained(task["model"], padding_side="left")
    asked = task["asked"]
    completions = []
    torch.manual_seed(0)
    for start in range(0, len(asked["prompts"]), task["batch"]):
        inputs = tokenizer.pad({"input_ids": asked["prompts"][start : start + task["batch"]]}, return_tensors="pt")
        made = model.generate(
            **inputs,
            do_sample=True,
            temperature=asked["temperature"],
            top_k=0,
            max_new_tokens=asked["max_tokens"],
            pad_token_id=tokenizer.pad_token_id,
        )
        completions += tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    Path(task["output"]).write_text(json.dumps(completions))


if __name__ == "__main__":
    main()
