"""The processes of one training job, one for each GPU, as `accelerate launch` starts them: all of them train, one leads.

A job of one process needs no launcher, and nothing here then waits for anyone.
"""

import os


def state():
    """Accelerate's view of the job's processes.

    They speak through gloo about what lies in the host, as weights and moments do that are gathered for a checkpoint, and
    through NCCL about what lies on GPUs.
    """
    import torch
    from accelerate import PartialState

    if not torch.cuda.is_available():
        return PartialState(cpu=True)
    return PartialState(**({"backend": "cuda:nccl,cpu:gloo"} if "LOCAL_RANK" in os.environ else {}))


def agreed(value):
    """What the leading process has for `value`, in every process; waits until all have asked."""
    from accelerate.utils import broadcast_object_list

    shared = [value]
    if state().num_processes > 1:
        broadcast_object_list(shared, from_process=0)
    return shared[0]
