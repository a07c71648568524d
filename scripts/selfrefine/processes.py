"""The processes of one training job, one for each GPU, as `accelerate launch` starts them: all of them train, one leads.

A job of one process needs no launcher, and nothing here then waits for anyone.
"""


def state():
    """Accelerate's view of the job's processes; on a CPU they speak through gloo."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())


def agreed(value):
    """What the leading process has for `value`, in every process; waits until all have asked."""
    from accelerate.utils import broadcast_object_list

    shared = [value]
    if state().num_processes > 1:
        broadcast_object_list(shared, from_process=0)
    return shared[0]
