"""How TRL's trainers make an update here: its examples together, cut into passes, each pass one packed row."""

import contextlib

import torch
from peft import PeftModel
from torch.utils.data import BatchSampler, DataLoader
from transformers.trainer_utils import EvalLoopOutput

from selfrefine.frozen import speed_up
from selfrefine.packing import pack, trial
from selfrefine.training import ShardedAlike


def shares(examples: list, size: int, processes: int, process: int) -> list[dict]:
    """What one process passes through the model of an update, a share at a time: {examples, part, copies}.

    In each round every process takes as many examples, `size` at most; `part` is what the round is of the update. Those that
    are left over pass on every process and count once: `copies` is how often they pass. So all processes make as many passes,
    and together they find what the update's examples give, none counted twice.
    """
    found, start = [], 0
    while len(examples) - start >= processes:
        each = min(size, (len(examples) - start) // processes)
        own = start + process * each
        part = each * processes / len(examples)
        found.append({"examples": examples[own : own + each], "part": part, "copies": 1})
        start += each * processes
    for first in range(start, len(examples), size):
        rest = examples[first : first + size]
        found.append({"examples": rest, "part": len(rest) / len(examples), "copies": processes})
    return found


class Updates(BatchSampler):
    """The examples of each update, the last of an epoch with those that are left."""

    def __init__(self, order, size: int):
        super().__init__(order, size, drop_last=False)

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)


class UpdateLoader(DataLoader):
    """Loads whole updates, on every process all of each."""

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.batch_sampler.set_epoch(epoch)


class WholeUpdates(ShardedAlike):
    """Has a TRL trainer take an update's examples together and pass them through the model in packed rows.

    What is learned is the mean over the update's answer tokens, or its pairs, however they are cut into passes and shared out
    among processes, the last update of an epoch included. A trainer says what a share adds to it (`learned`), how many tokens
    an example has as TRL counts them (`length`), how many of them it answers with (`answers`), and in what order the examples
    of an update pass (`together`).
    """

    # What TRL logs of each pass that is not computed here.
    UNLOGGED = ("entropy", "mean_token_accuracy", "logits/chosen", "logits/rejected")

    def __init__(self, *positional, update: int, longest: int, **options):
        self._update, self._longest = update, longest
        self._asks_packed = False
        self._tokens = {"num_tokens": 0, "computed_tokens": 0}
        self._parts: list[float] = []
        super().__init__(*positional, **options)
        self._ask_packed()

    def _ask_packed(self) -> None:
        """Has the model answer from packed rows, where it can."""
        if self._asks_packed:
            return
        self._asks_packed = True
        model = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        if why := pack(model, self._longest):
            print(f"texts are padded, not packed, for this model: {why}", flush=True)
        else:
            speed_up(model, trial(model))
        model.base_model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module, positional, named) -> None:
        if module.training:
            self._tokens["computed_tokens"] += named["input_ids"].numel()

    def _precompute_ref_logps(self, dataset, name, batch_size):
        self._ask_packed()
        return super()._precompute_ref_logps(dataset, name, batch_size)

    def together(self, examples: list[dict]) -> list[dict]:
        """An update's examples in the order in which they pass."""
        return examples

    def get_train_dataloader(self) -> UpdateLoader:
        """The training examples, by update."""
        order = self._get_train_sampler(self.train_dataset)
        return UpdateLoader(
            self.train_dataset, batch_sampler=Updates(order, self._update), collate_fn=self._cut, pin_memory=False
        )

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        """The validation examples, as if they were one update."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        return DataLoader(dataset, batch_size=len(dataset), collate_fn=self._cut)

    def _cut(self, examples: list[dict]) -> dict:
        counts = {"tokens": sum(map(self.length, examples)), "answers": sum(map(self.answers, examples))}
        size, processes = self.args.per_device_train_batch_size, self.args.world_size
        cut = shares(self.together(examples), size, processes, self.args.process_index)
        return counts | {"shares": [share | {"batch": self.data_collator(share.pop("examples"))} for share in cut]}

    def training_step(self, model, inputs, num_items_in_batch=None):
        """The loss of an update, its gradients left in the parameters."""
        model.train()
        update = self._prepare_inputs(inputs)
        self._tokens["num_tokens"] += update["tokens"]
        self._parts, total = [], 0.0
        for number, share in enumerate(update["shares"], 1):
            alone = number < len(update["shares"])
            with self.accelerator.no_sync(model) if alone else contextlib.nullcontext():
                with self.compute_loss_context_manager():
                    loss = self._learn(model, share, update)
                self.accelerator.backward(loss)
            total = total + loss.detach()
        return total

    def _learn(self, model, share: dict, update: dict):
        self._parts.append(share["part"])
        return self.learned(model, share, update)

    def evaluation_loop(self, dataloader, description, *_, metric_key_prefix="eval", **__) -> EvalLoopOutput:
        """The loss over all validation examples."""
        self.model.eval()
        self._parts, total = [], 0.0
        for inputs in dataloader:
            update = self._prepare_inputs(inputs)
            for share in update["shares"]:
                with torch.no_grad(), self.compute_loss_context_manager():
                    total = total + self._learn(self.model, share, update)
        loss = self.accelerator.gather(total).mean().item()
        return EvalLoopOutput(None, None, {f"{metric_key_prefix}_loss": loss}, len(dataloader.dataset))

    def floating_point_ops(self, inputs) -> int:
        """What the trainer would estimate from one padded batch; nobody asks."""
        return 0

    def log(self, logs: dict, start_time: float | None = None) -> None:
        """Logs an update or a validation, each of its passes by what it is of the whole."""
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name in self.UNLOGGED:
            metrics.pop(name, None)
        for name, values in metrics.items():
            if len(values) == len(self._parts):
                metrics[name] = [sum(value * part for value, part in zip(values, self._parts, strict=True))]
        if "loss" in logs:
            own = torch.tensor(self._tokens["computed_tokens"], device=self.accelerator.device)
            metrics["num_tokens"] = [self._tokens["num_tokens"]]
            metrics["computed_tokens"] = [self.accelerator.reduce(own).item()]
        super().log(logs, start_time)


class TextUpdates(WholeUpdates):
    """For TRL's SFTTrainer: the mean negative log-likelihood of an update's answer tokens."""

    def length(self, example: dict) -> int:
        """Tokens of an example."""
        return len(example["input_ids"])

    def answers(self, example: dict) -> int:
        """Tokens that it answers with."""
        return sum(label != -100 for label in example["labels"][1:])

    def learned(self, model, share: dict, update: dict):
        """What a share adds to an update's loss."""
        return self.compute_loss(model, share["batch"], num_items_in_batch=update["answers"]) / share["copies"]
