"""The arguments that TRL's trainers get: from the settings, the number of updates and the machine."""

from pathlib import Path
from typing import Any

import torch

from selfrefine.errors import UserError
from selfrefine.models.processes import state
from selfrefine.schema.generation import Dtype
from selfrefine.schema.optimisation import Optimisation


def common_arguments(training: Optimisation, scratch: Path, seed: int, updates: int, dtype: Dtype) -> dict[str, Any]:
    """The arguments that both phases share; `dtype` is the one in which weights are multiplied.

    `UserError` if the examples of an update cannot be divided among the processes.
    """
    processes = state().num_processes
    if training.batch_size % (training.micro_batch_size * processes):
        raise UserError(
            f"batch_size {training.batch_size} cannot be shared out among {processes} processes in micro-batches of "
            f"{training.micro_batch_size}; set a `micro_batch_size` that divides {training.batch_size} / {processes}"
        )
    return {
        "output_dir": str(scratch),
        "per_device_train_batch_size": training.micro_batch_size,
        "max_steps": updates,
        "learning_rate": training.learning_rate,
        "weight_decay": training.weight_decay,
        "lr_scheduler_type": training.schedule,
        "max_grad_norm": training.max_grad_norm,
        "max_length": None,
        "gradient_checkpointing": training.gradient_checkpointing,
        # An adapter's float32 weights are added to frozen ones, which are multiplied in the student's dtype. Where all
        # weights learn, they are kept in float32, which can hold the small updates, and multiplied in the student's
        # dtype.
        "bf16": training.method == "full" and dtype == "bfloat16",
        "fp16": False,
        "logging_steps": 1,
        "logging_first_step": True,
        "save_strategy": "steps",
        "save_total_limit": 1,
        "seed": seed,
        "data_seed": seed,
        "report_to": "none",
        "disable_tqdm": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
        "ddp_find_unused_parameters": False,
        # Checkpoints are gathered first. With checkpoints that each process saves a part of, transformers 5.19 looks
        # for the best one before its folder exists, so that some processes miss it (Trainer._save_checkpoint).
        **({"fsdp": True, "fsdp_config": {"state_dict_type": "FULL_STATE_DICT"}} if is_sharded(training) else {}),
    }


def is_sharded(training: Optimisation) -> bool:
    """Whether processes shard weights, gradients and optimizer state (FSDP): where all weights learn on several GPUs.

    An adapter's are small, and the frozen weights below it are packed or fit on each GPU.
    """
    return training.method == "full" and state().num_processes > 1


def on_one_gpu(arguments: Any) -> Any:
    """A trainer's arguments, its process kept to one GPU where it sees several.

    The trainer would divide each batch among them, which TRL refuses. Its error names `CUDA_VISIBLE_DEVICES`, which
    would have to be set anew for each job.
    """
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
