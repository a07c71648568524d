"""TRL's SFTTrainer or DPOTrainer as a user would script them: python plain_trl.py TASK.

TASK is a JSON file: {stage: sft or dpo, model, adapter (a folder or null), data: {train, validation} in chats, settings
(a stage's section of the configuration), compute: default or float32, threads, output}. Hyper-parameters, LoRA and
batches are the study's; all else is TRL's default: bfloat16 autocast, activations recomputed, the reference's
likelihoods computed at each update. The validation losses that decide which weights are kept are computed as often as
the study does. Writes the adapter and `plain.json`: {seconds (of the trainer's loop)}.
"""

import json
import math
import sys
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(task["threads"])
    settings, output = task["settings"], Path(task["output"])
    dpo = task["stage"] == "dpo"
    lora = LoraConfig(
        r=settings["lora"]["r"],
        lora_alpha=settings["lora"]["alpha"],
        lora_dropout=settings["lora"]["dropout"],
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    options = {
        "output_dir": str(output / "trainer"),
        "num_train_epochs": settings["epochs"],
        "learning_rate": settings["learning_rate"],
        "lr_scheduler_type": "cosine",
        "per_device_train_batch_size": settings["micro_batch_size"],
        "gradient_accumulation_steps": settings["batch_size"] // settings["micro_batch_size"],
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": not torch.cuda.is_available(),
    }
    if task["compute"] == "float32":
        options["bf16"] = False
    dtype = torch.float32 if task["compute"] == "float32" else "auto"
    model = AutoModelForCausalLM.from_pretrained(task["model"], dtype=dtype)
    if task["adapter"]:
        model = PeftModel.from_pretrained(model, task["adapter"], is_trainable=True)
    data = {name: Dataset.from_list(rows) for name, rows in task["data"].items() if rows}
    if dpo:
        every = min(settings["evaluate_every"], math.ceil(len(data["train"]) / settings["batch_size"]))
        options |= {
            "warmup_steps": settings["warmup_steps"],
            "eval_strategy": "steps",
            "eval_steps": every,
            "save_steps": every,
            "per_device_eval_batch_size": settings["micro_batch_size"],
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
        }
    trainer_class, config = (DPOTrainer, DPOConfig) if dpo else (SFTTrainer, SFTConfig)
    trainer = trainer_class(
        model=model,
        args=config(**options),
        train_dataset=data["train"],
        eval_dataset=data.get("validation"),
        peft_config=None if task["adapter"] else lora,
    )
    trainer.train()
    trainer.save_model(str(output))
    seconds = sum(entry.get("train_runtime", 0.0) for entry in trainer.state.log_history)
    (output / "plain.json").write_text(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
