"""TRL keeps the reference's log-probabilities in files named by a hash of data and weights.

On a GPU, hashing is most of what a refinement waits for before its first update: TRL casts all weights to float32 on the
host and hashes them on one core. Here it is not needed. The files lie in the job's own scratch folder, beside the data
that it has just written, so they hold one reference alone.
Can go when TRL names them without the weights (https://github.com/huggingface/trl/pull/5906 has how it does).
"""

from trl.trainer import dpo_trainer, kto_trainer


def name_by_data() -> None:
    """Has TRL's trainers name these files by the data alone."""
    for module in (dpo_trainer, kto_trainer):
        module.hash_module = _one_for_all


def _one_for_all(module: object) -> str:
    return "the reference of this folder"
