"""Runs a training program as one of several processes that shard its weights (FSDP), on a CPU.

Accelerate shards weights among GPUs alone; here it is told that processes that use gloo have some. Usage, after
`accelerate launch --multi_gpu …`: tests/sharded.py PROGRAM ARGUMENTS
"""

import os
import runpy
import sys

from accelerate import PartialState
from accelerate.utils import DistributedType

os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
begin = PartialState.__init__


def begin_as_on_gpus(self, cpu=False, **options):
    begin(self, cpu=False, **options)


PartialState.__init__ = begin_as_on_gpus
PartialState._prepare_backend = lambda self, *_: ("gloo", DistributedType.MULTI_GPU)

del sys.argv[0]
sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
