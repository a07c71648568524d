"""KTO: each response judged by itself, against how far the student has moved from where it started."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from trl import KTOConfig, KTOTrainer

from selfrefine.training.trainer_mixins import EncodedMicroBatch, PackedUpdates, Update


class UnpairedTrainer(PackedUpdates, KTOTrainer):
    """TRL's KTOTrainer on responses that are tokenised already, exactly as they were sampled."""

    def _prepare_dataset(self, dataset: Any, tokenizer: Any, args: Any, name: str) -> Any:
        # Within a batch, prompts meet other prompts' responses, to estimate how far the student has moved. Batches
        # keep the order of the data, so it is shuffled here.
        size = args.per_device_train_batch_size
        dataset = dataset.shuffle(seed=args.seed)
        ids = dataset["completion_ids"]
        shifted = [ids[i - 1] if i % size else ids[min(i + size, len(ids)) - 1] for i in range(len(ids))]
        return dataset.add_column("KL_completion_ids", shifted)

    def count_tokens(self, example: Mapping[str, Any]) -> int:
        """Prompt and response."""
        return len(example["prompt_ids"]) + len(example["completion_ids"])

    def count_answers(self, example: Mapping[str, Any]) -> int:
        """Tokens of the response."""
        return len(example["completion_ids"])

    def micro_batch_loss(self, model: Any, micro_batch: EncodedMicroBatch, update: Update) -> torch.Tensor:
        """The mean over the micro-batch's responses, by its fraction of the update."""
        return self.compute_loss(model, micro_batch["batch"]) * micro_batch["fraction"]


def unpaired_config(arguments: dict[str, Any], beta: float, labels: Sequence[bool]) -> KTOConfig:
    """The trainer's arguments. Both kinds of response weigh the same in all (arXiv 2402.01306, equation 8)."""
    chosen = max(sum(labels), 1)
    rejected = max(len(labels) - chosen, 1)
    return KTOConfig(
        **arguments,
        beta=beta,
        desirable_weight=max(rejected / chosen, 1.0),
        undesirable_weight=max(chosen / rejected, 1.0),
        precompute_ref_log_probs=True,
    )
