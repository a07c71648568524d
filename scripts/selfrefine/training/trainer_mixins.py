"""Mixins for TRL's trainers: updates in packed rows, on one GPU or several."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import torch
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from selfrefine.store.files import naming_write_errors
from selfrefine.training.batches import UpdateLoader, UpdateSampler, micro_batches
from selfrefine.training.finite import check_number, check_reference, check_trained
from selfrefine.training.frozen_layers import speed_up
from selfrefine.training.packing import pack, trial
from selfrefine.training.resumption import ResumedAdapter


class ShardedWeights(Trainer):
    """Has a TRL trainer learn from sharded weights (FSDP) what it learns from whole ones.

    The reference's log-probabilities are the policy's own before its first update, while its weights are whole on each
    GPU. TRL would load a reference model from the folder that the configuration names: the base model's, even where an
    adapter was merged into the policy. And the forward pass is autocast, as it is without FSDP, because accelerate
    would round the weights that it gathers, and the log-probabilities, to bfloat16.
    """

    _built = False

    def __init__(self, *positional: Any, **options: Any):
        super().__init__(*positional, **options)
        self._built = True
        if self._sharded:
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = None

    @property
    def is_fsdp_enabled(self) -> bool:
        """The trainers ask it before they decide on a reference, and again when they shard the weights."""
        return self._built and self._sharded

    @is_fsdp_enabled.setter
    def is_fsdp_enabled(self, sharded: bool) -> None:
        self._sharded = sharded

    def autocast_smart_context_manager(
        self, *positional: Any, **options: Any
    ) -> contextlib.AbstractContextManager[Any]:
        """Around each forward pass; without FSDP, accelerate has wrapped the model's own."""
        return (
            self.accelerator.autocast()
            if self.is_fsdp_enabled
            else super().autocast_smart_context_manager(*positional, **options)
        )


class EncodedMicroBatch(TypedDict):
    """A micro-batch (batches.py) with its tensors."""

    batch: dict[str, torch.Tensor]
    fraction: float
    copies: int


class Update(TypedDict):
    """One process's part of an update."""

    tokens: int
    """Of all examples of the update, as TRL counts them."""
    answers: int
    """Of those, the tokens that are learned."""
    micro_batches: list[EncodedMicroBatch]


class PackedUpdates(ResumedAdapter, ShardedWeights):
    """Has a TRL trainer take an update's examples together and pass them through the model in packed rows.

    The loss is the mean over the update's answer tokens, or over its pairs, however they are cut into micro-batches
    and divided among processes, the last update of an epoch included. A subclass says what a micro-batch adds to the
    loss (`micro_batch_loss`), how many tokens an example has (`count_tokens`), how many of them are learned
    (`count_answers`), and in what order the examples of an update pass (`arrange`).
    """

    # Metrics that TRL logs for each pass and that a packed pass does not compute.
    UNLOGGED = ("entropy", "mean_token_accuracy", "logits/chosen", "logits/rejected")

    def __init__(self, *positional: Any, update_size: int, longest: int, **options: Any):
        self.update_size, self._longest = update_size, longest
        self._is_prepared = False
        self._tokens = {"num_tokens": 0, "computed_tokens": 0}
        self._fractions: list[float] = []
        super().__init__(*positional, **options)
        self._prepare_packing()

    def micro_batch_loss(self, model: Any, micro_batch: EncodedMicroBatch, update: Update) -> torch.Tensor:
        """What a micro-batch adds to the update's loss."""
        raise NotImplementedError

    def count_tokens(self, example: Mapping[str, Any]) -> int:
        """Tokens of an example, as TRL counts them."""
        raise NotImplementedError

    def count_answers(self, example: Mapping[str, Any]) -> int:
        """Tokens of an example that are learned."""
        raise NotImplementedError

    def arrange(self, examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """An update's examples in the order in which they pass."""
        return examples

    def _prepare_packing(self) -> None:
        """Has the model compute log-probabilities from packed rows, where it can."""
        if self._is_prepared:
            return
        self._is_prepared = True
        model = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        why_padded: str | None
        if model.device.type == "cuda":
            # A step for each sequence leaves a GPU idle: DPO of a model of 1B ran at a fifth of TRL's rate on an H200.
            why_padded = "on a GPU, a step for each sequence takes longer than padding"
        else:
            why_padded = pack(model, self._longest)
        if why_padded:
            print(f"sequences are padded, not packed: {why_padded}", flush=True)
        else:
            speed_up(model, trial(model))
        model.base_model.register_forward_pre_hook(self._count_computed, with_kwargs=True)

    def _count_computed(self, module: torch.nn.Module, positional: Any, named: Mapping[str, Any]) -> None:
        if module.training:
            self._tokens["computed_tokens"] += named["input_ids"].numel()

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        self._prepare_packing()
        made = super()._precompute_ref_logps(dataset, name, batch_size)
        check_reference({column: made[column] for column in made.column_names if column.startswith("ref_")})
        return made

    def get_train_dataloader(self) -> UpdateLoader:
        """The training examples, by update."""
        order = self._get_train_sampler(self.train_dataset)
        return UpdateLoader(
            self.train_dataset,
            batch_sampler=UpdateSampler(order, self.update_size),
            collate_fn=self._cut,
            pin_memory=False,
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """The validation examples, as if they were one update."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        return DataLoader(dataset, batch_size=len(dataset), collate_fn=self._cut)

    def _cut(self, examples: list[dict[str, Any]]) -> Update:
        size, processes = self.args.per_device_train_batch_size, self.args.world_size
        cut = micro_batches(self.arrange(examples), size, processes, self.args.process_index)
        return {
            "tokens": sum(map(self.count_tokens, examples)),
            "answers": sum(map(self.count_answers, examples)),
            "micro_batches": [
                {"batch": self.data_collator(part["examples"]), "fraction": part["fraction"], "copies": part["copies"]}
                for part in cut
            ],
        }

    def training_step(self, model: Any, inputs: Update, num_items_in_batch: Any = None) -> torch.Tensor:
        """The loss of an update, its gradients left in the parameters."""
        model.train()
        update = self._prepare_inputs(inputs)
        self._tokens["num_tokens"] += update["tokens"]
        self._fractions, total = [], 0.0
        for number, micro_batch in enumerate(update["micro_batches"], 1):
            is_last = number == len(update["micro_batches"])
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    loss = self._noted_loss(model, micro_batch, update)
                self.accelerator.backward(loss)
            total = total + loss.detach()
        check_number(float(total), "loss", self.state.global_step + 1)
        return total

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        check_number(float(norm), "gradient norm", self.state.global_step + 1)
        return norm

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        check_trained(model, self.state.global_step)
        with naming_write_errors(Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")):
            super()._save_checkpoint(model, trial)

    def _noted_loss(self, model: Any, micro_batch: EncodedMicroBatch, update: Update) -> torch.Tensor:
        self._fractions.append(micro_batch["fraction"])
        return self.micro_batch_loss(model, micro_batch, update)

    def evaluation_loop(
        self, dataloader: DataLoader, description: str, *_: Any, metric_key_prefix: str = "eval", **__: Any
    ) -> EvalLoopOutput:
        """The loss over all validation examples."""
        self.model.eval()
        self._fractions, total = [], 0.0
        for inputs in dataloader:
            update = self._prepare_inputs(inputs)
            for micro_batch in update["micro_batches"]:
                with torch.no_grad(), self.compute_loss_context_manager():
                    total = total + self._noted_loss(self.model, micro_batch, update)
        loss = self.accelerator.gather(total).mean().item()
        check_number(loss, "validation loss", self.state.global_step)
        return EvalLoopOutput(None, None, {f"{metric_key_prefix}_loss": loss}, len(dataloader.dataset))

    def floating_point_ops(self, inputs: Update) -> int:
        """The trainer would estimate it from one padded batch; nothing reads it."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs an update or a validation; each micro-batch counts by its fraction of the whole."""
        metrics: dict[str, Sequence[float]] = self._metrics["train" if self.model.training else "eval"]
        for name in self.UNLOGGED:
            metrics.pop(name, None)
        for name, values in metrics.items():
            if len(values) == len(self._fractions):
                metrics[name] = [sum(value * part for value, part in zip(values, self._fractions, strict=True))]
        if "loss" in logs:
            own = torch.tensor(self._tokens["computed_tokens"], device=self.accelerator.device)
            metrics["num_tokens"] = [self._tokens["num_tokens"]]
            metrics["computed_tokens"] = [self.accelerator.reduce(own).item()]
        super().log(logs, start_time)
