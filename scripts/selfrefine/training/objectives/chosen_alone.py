"""Supervised fine-tuning on chosen responses, in phase 2: what it learns is logged as of pairs."""

from typing import Any

import torch

from selfrefine.training.encoding import IGNORED
from selfrefine.training.objectives.supervised import SupervisedTrainer
from selfrefine.training.side_means import Responses, SideMeans
from selfrefine.training.trainer_mixins import EncodedMicroBatch, Update


class ChosenTrainer(SideMeans, SupervisedTrainer):
    """The trainer of phase 1, which notes how likely the chosen responses become."""

    def micro_batch_loss(self, model: Any, micro_batch: EncodedMicroBatch, update: Update) -> torch.Tensor:
        """Phase 1's; the loss is the negative log-probability of all tokens over the update's."""
        loss = super().micro_batch_loss(model, micro_batch, update)
        labels = micro_batch["batch"]["labels"][:, 1:]
        # TRL multiplies by the number of processes, over which gradients are averaged.
        log_probs = -loss.detach() * update["answers"] * micro_batch["copies"] / self.args.world_size
        self.note("chosen", Responses(log_probs, (labels != IGNORED).sum(), len(labels)), micro_batch["copies"])
        return loss
