"""Trainer checkpoints: where an interrupted training goes on from."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft import PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from transformers import Trainer

from selfrefine.errors import UserError
from selfrefine.models.processes import agreed, state
from selfrefine.store.files import read_json, write_json
from selfrefine.store.run import Run
from selfrefine.training.training_log import Entry

# What marks a checkpoint whose weights several processes had sharded.
GATHERED = "pytorch_model_fsdp.bin"


class ResumedAdapter(Trainer):
    """Goes on from the adapter that was trained.

    transformers 5.19 (`Trainer._load_from_checkpoint`) loads the adapters in subfolders alone where a checkpoint has any.
    An adapter that is the reference lies in one, and the trained one beside it: it would begin from its start again.
    """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        resumed = self.model if model is None else model
        if isinstance(resumed, PeftModel) and Path(resume_from_checkpoint, SAFETENSORS_WEIGHTS_NAME).exists():
            resumed.load_adapter(resume_from_checkpoint, "default", is_trainable=True)


def open_scratch(scratch: Path, run: Run) -> None:
    """Prepares the trainer's folder; checkpoints of other settings, other code or other inputs are removed from it."""
    if run.leads:
        _remove_foreign(scratch, run)
    state().wait_for_everyone()


def _remove_foreign(scratch: Path, run: Run) -> None:
    mark = scratch / "identity.json"
    inputs = {path: state.sha256 for path, state in run.inputs.items()}
    identity = {"settings": run.settings, "code": run.code, "inputs": inputs}
    if not mark.exists() or read_json(mark) != json.loads(json.dumps(identity)):
        shutil.rmtree(scratch, ignore_errors=True)
        write_json(mark, identity)


def last_checkpoint(scratch: Path) -> Path | None:
    """The newest whole trainer checkpoint; half-written ones are removed.

    The trainer saves `trainer_state.json` last, so a checkpoint without a readable one was torn by a kill.
    """
    whole = []
    for folder in scratch.glob("checkpoint-*"):
        try:
            step = json.loads((folder / "trainer_state.json").read_text())["global_step"]
        except (OSError, ValueError, KeyError):
            shutil.rmtree(folder)
            continue
        whole.append((step, folder))
    return max(whole)[1] if whole else None


def run_to_the_end(
    trainer: Trainer, scratch: Path, updates: int, is_done: Callable[[], bool] = lambda: False
) -> list[Entry]:
    """Trains, going on from the last whole checkpoint; the trainer's history. `is_done`: whether it may end earlier.

    `UserError` if training stopped before its last update: a half-trained model must not pass for a finished one.
    """
    checkpoint = agreed(last_checkpoint(scratch) if state().is_main_process else None)
    if checkpoint and (checkpoint / GATHERED).exists() != trainer.is_fsdp_enabled:
        raise UserError(
            f"{checkpoint}: was saved by a training that {'did not shard' if trainer.is_fsdp_enabled else 'sharded'} "
            "its weights among several GPUs; set `cluster.gpus_to_train` as it was, or delete the folder to start over"
        )
    if checkpoint:
        print(f"going on from {checkpoint.name}", flush=True)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.state.global_step != updates and not is_done():
        raise UserError(
            f"training stopped at update {trainer.state.global_step} of {updates}; run again to go on from its last "
            "checkpoint"
        )
    history: list[Entry] = trainer.state.log_history
    return history
