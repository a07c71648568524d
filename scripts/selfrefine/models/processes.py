"""The processes of one training job, one per GPU: all train, one leads.

A job of one process needs no launcher, and nothing here waits for anyone then.
"""

import os
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from accelerate import PartialState

Value = TypeVar("Value")


def state() -> "PartialState":
    """Accelerate's view of the job's processes.

    They use gloo for tensors in the host's memory, such as weights and optimizer state that are gathered for a
    checkpoint, and NCCL for tensors on GPUs.
    """
    import torch
    from accelerate import PartialState

    if not torch.cuda.is_available():
        return PartialState(cpu=True)
    return PartialState(**({"backend": "cuda:nccl,cpu:gloo"} if "LOCAL_RANK" in os.environ else {}))


def agreed(value: Value) -> Value:
    """The leading process's `value`, in every process; waits until all have asked."""
    from accelerate.utils import broadcast_object_list

    shared = [value]
    if state().num_processes > 1:
        broadcast_object_list(shared, from_process=0)
    return shared[0]
