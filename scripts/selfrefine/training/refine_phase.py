"""Phase 2: its updates, its trainer and its log; and a student that has too few pairs to learn from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from peft import get_peft_model
from transformers import PreTrainedTokenizerBase, set_seed

from selfrefine.schema.optimisation import RefineTraining
from selfrefine.schema.stages import RefineSettings
from selfrefine.store.files import write_jsonl
from selfrefine.store.locations import TRAINING
from selfrefine.store.run import Run
from selfrefine.training.batches import count_updates
from selfrefine.training.examples import Examples, UnpairedExample
from selfrefine.training.loop import Phase, Start
from selfrefine.training.objectives.chosen_alone import ChosenTrainer
from selfrefine.training.objectives.pairwise import PairTrainer, pair_config
from selfrefine.training.objectives.supervised import supervised_config
from selfrefine.training.objectives.unpaired import UnpairedTrainer, unpaired_config
from selfrefine.training.saving import save_trained
from selfrefine.training.trainable_weights import check_targets, load_for_training, lora_config
from selfrefine.training.trainer_arguments import on_one_gpu
from selfrefine.training.trainers import trainer_options
from selfrefine.training.training_log import Entry, refine_rows


def planned_updates(training: RefineTraining, examples: int) -> int:
    """The number of updates of a full run."""
    return min(training.max_steps, count_updates(examples, training.batch_size, training.epochs))


def own_arguments(training: RefineTraining, updates: int) -> dict[str, Any]:
    """The trainer's arguments of this phase alone: the weights of lowest validation loss are kept."""
    every = min(training.evaluate_every, updates)
    return {
        "per_device_eval_batch_size": training.micro_batch_size,
        "warmup_steps": training.warmup_steps,
        "eval_strategy": "steps",
        "eval_steps": every,
        "save_steps": every,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
    }


def preference_trainer(
    model: Any,
    settings: RefineSettings,
    examples: Examples,
    arguments: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
) -> ChosenTrainer | PairTrainer | UnpairedTrainer:
    """The trainer of a preference recipe's objective."""
    options = trainer_options(model, settings, examples, Path(arguments["output_dir"]), tokenizer)
    objective = settings.objective
    beta = objective.beta or settings.training.beta
    if objective.loss == "sft":
        return ChosenTrainer(args=on_one_gpu(supervised_config(arguments)), lengths=None, **options)
    if objective.loss == "kto":
        labels = [example["label"] for example in cast(Sequence[UnpairedExample], examples.train)]
        return UnpairedTrainer(args=on_one_gpu(unpaired_config(arguments, beta, labels)), **options)
    return PairTrainer(args=on_one_gpu(pair_config(arguments, beta, objective)), objective=objective, **options)


def write_log(path: Path, history: list[Entry]) -> dict[str, Any]:
    """Writes the log; the record gets the validation losses and the update whose weights were kept."""
    rows = refine_rows(history)
    write_jsonl(path, rows)
    losses = {row["step"]: row["loss"] for row in rows if row["split"] == "validation"}
    return {"validation_loss": losses, "kept_update": min(losses, key=lambda step: losses[step])}


def record_unchanged(run: Run, start: Start, settings: RefineSettings, counts: dict[str, Any]) -> None:
    """Records the start, without an update, as the checkpoint of a student that has too few pairs to learn from.

    So one student without pairs does not stop a study; the summary names it.
    """
    set_seed(settings.seed)
    model = load_for_training(start.folder, start.adapter, settings, start.compute)
    if not start.adapter and settings.training.method == "lora":
        check_targets(model, settings.training.lora)
        model = get_peft_model(model, lora_config(settings.training.lora))
    names = save_trained(model, start.tokenizer, run.folder, settings.dtype)
    write_jsonl(run.folder / TRAINING, [])
    run.record([run.folder / name for name in (TRAINING, *names)], trained=True, **counts, updates=0)


REFINE = Phase(planned_updates, own_arguments, preference_trainer, write_log, has_reference=True)
