"""KTO: each response judged by itself, against how far the student has moved from where it started."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from trl import KTOConfig, KTOTrainer

from selfrefine.training.objectives.reference_cache import name_by_data
from selfrefine.training.side_means import SIDES, Responses, SideMeans
from selfrefine.training.trainer_mixins import EncodedMicroBatch, Update

name_by_data()


class UnpairedTrainer(SideMeans, KTOTrainer):
    """TRL's KTOTrainer on responses that are tokenised already, exactly as they were sampled.

    TRL estimates how far the student has moved from each pass. Here all passes of an update share one estimate, so that
    the loss does not depend on how the update is cut into passes.
    """

    _measured: Update | None = None
    _moved: torch.Tensor

    def _prepare_dataset(self, dataset: Any, tokenizer: Any, args: Any, name: str) -> Any:
        # Within an update, prompts meet other prompts' responses, to estimate how far the student has moved. Updates
        # keep the order of the data, so it is shuffled here. The validation examples are as one update.
        size = self.update_size if name == "train" else len(dataset)
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
        if self._measured is not update:
            self._moved, self._measured = self._estimate(model, update), update
        # TRL subtracts the reference's log-probabilities, which the estimate is without.
        batch = micro_batch["batch"]
        batch = batch | {"ref_KL_logps": torch.zeros_like(batch["ref_KL_logps"])}
        seen: list[torch.Tensor] = []

        def noting_log_probs(**inputs: Any) -> Any:
            outputs = model(**inputs)
            seen.append(outputs.log_probs.float().sum(1))
            return outputs

        loss = self.compute_loss(noting_log_probs, batch)
        (sums,) = seen
        lengths, is_chosen = batch["completion_mask"][:, 1:].sum(1), batch["label"].bool()
        for side, mine in zip(SIDES, (is_chosen, ~is_chosen), strict=True):
            rewards = self.beta * (sums - batch["ref_logps"])
            own = Responses(sums[mine].sum(), lengths[mine].sum(), mine.sum(), rewards[mine].sum(), mine.sum())
            self.note(side, own, micro_batch["copies"])
        return loss * micro_batch["fraction"]

    def _estimate(self, model: Any, update: Update) -> torch.Tensor:
        """The mean log-ratio of the prompts' other responses over an update, on all processes together."""
        total = torch.zeros(2, device=self.accelerator.device)
        for part in update["micro_batches"]:
            batch = part["batch"]
            ratios = super()._compute_kl_logps(model, batch) - batch["ref_KL_logps"]
            total += torch.stack([ratios.float().sum(), ratios.new_tensor(len(ratios)).float()]) / part["copies"]
        ratio, count = self.accelerator.reduce(total)
        return ratio / count

    def _compute_kl_logps(self, model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self._moved.expand(len(batch["label"]))


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
