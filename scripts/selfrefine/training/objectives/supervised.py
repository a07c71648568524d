"""Supervised fine-tuning: the likelihood of a demonstration, or of the chosen response alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from selfrefine.training.batches import EpochOrder
from selfrefine.training.encoding import IGNORED, check_example
from selfrefine.training.examples import SupervisedExample
from selfrefine.training.trainer_mixins import EncodedMicroBatch, PackedUpdates, Update


class SupervisedTrainer(PackedUpdates, SFTTrainer):
    """TRL's SFTTrainer; the loss is the mean negative log-likelihood of an update's answer tokens.

    `lengths`, one per example, puts examples of similar length into the same update.
    """

    def __init__(self, *, lengths: Sequence[int] | None, **options: Any):
        self._lengths = lengths
        super().__init__(**options)

    def _get_train_sampler(self, dataset: Any = None) -> EpochOrder:
        return EpochOrder(len(self.train_dataset), self.update_size, self.args.seed, self._lengths)

    def count_tokens(self, example: Mapping[str, Any]) -> int:
        """Prompt and answer."""
        return len(example["input_ids"])

    def count_answers(self, example: Mapping[str, Any]) -> int:
        """Tokens with a label."""
        return sum(label != IGNORED for label in example["labels"][1:])

    def micro_batch_loss(self, model: Any, micro_batch: EncodedMicroBatch, update: Update) -> torch.Tensor:
        """The sum over the micro-batch's answer tokens, divided by the number of the update's."""
        loss = self.compute_loss(model, micro_batch["batch"], num_items_in_batch=update["answers"])
        return loss / micro_batch["copies"]


def supervised_config(arguments: dict[str, Any]) -> SFTConfig:
    """The trainer's arguments: the prompt carries no loss."""
    return SFTConfig(**arguments, completion_only_loss=True)


def check_first_batch(
    trainer: SupervisedTrainer, examples: Sequence[SupervisedExample], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Checks what the trainer really batches: prompt masked, stop token learned, at most one BOS token."""
    prompt_lengths = {tuple(example["input_ids"]): example["completion_mask"].count(0) for example in examples}
    batch = trainer.data_collator(
        [trainer.train_dataset[i] for i in range(min(len(examples), trainer.args.per_device_train_batch_size))]
    )
    for ids, mask, labels in zip(
        batch["input_ids"].tolist(), batch["attention_mask"].tolist(), batch["labels"].tolist(), strict=True
    ):
        kept = [i for i, bit in enumerate(mask) if bit]
        sequence = [ids[i] for i in kept]
        check_example(sequence, [labels[i] for i in kept], prompt_lengths[tuple(sequence)], tokenizer)
