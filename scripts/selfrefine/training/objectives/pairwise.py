"""Losses that compare a chosen with a rejected response: DPO and its relatives, SimPO, ORPO."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import logsigmoid
from trl import DPOConfig, DPOTrainer

from selfrefine.schema.preference import Objective
from selfrefine.training.batches import EpochOrder
from selfrefine.training.objectives.reference_cache import name_by_data
from selfrefine.training.side_means import SIDES, Responses, SideMeans
from selfrefine.training.trainer_mixins import EncodedMicroBatch, Update


def margin_loss(chosen: torch.Tensor, rejected: torch.Tensor, beta: float, margin: float) -> torch.Tensor:
    """SimPO's loss (arXiv 2405.14734, equation 6) of mean log-probabilities per token: chosen leads by a margin."""
    return -logsigmoid(beta * (chosen - rejected) - margin).mean()


def odds_ratio_loss(chosen: torch.Tensor, rejected: torch.Tensor, weight: float) -> torch.Tensor:
    """ORPO's term (arXiv 2403.07691, equations 4 and 7) of mean log-probabilities per token.

    TRL's own trainer for it would tokenise the responses anew. A probability of 1 counts as the largest number below
    1: its odds are infinite.
    """
    most = -torch.finfo(chosen.dtype).eps
    chosen, rejected = chosen.clamp(max=most), rejected.clamp(max=most)
    chosen_odds, rejected_odds = (mean - torch.log(-torch.expm1(mean)) for mean in (chosen, rejected))
    return -weight * logsigmoid(chosen_odds - rejected_odds).mean()


name_by_data()


class PairTrainer(SideMeans, DPOTrainer):
    """TRL's DPOTrainer on pairs that are tokenised already, exactly as they were sampled.

    Terms that TRL lacks are added here, and the one over single tokens, because TRL would average it over each pass.
    """

    def __init__(self, *, objective: Objective, **options: Any):
        self._objective = objective
        super().__init__(**options)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _get_train_sampler(self, dataset: Any = None) -> EpochOrder:
        return EpochOrder(len(self.train_dataset), self.update_size, self.args.seed)

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        if self._objective.reference == "start":
            return super()._precompute_ref_logps(dataset, name, batch_size)
        # Without a reference, the log-likelihoods themselves count.
        for column in ("ref_chosen_logps", "ref_rejected_logps"):
            dataset = dataset.add_column(column, [0.0] * len(dataset))
        return dataset

    def count_tokens(self, example: Mapping[str, Any]) -> int:
        """Both responses, each with the prompt."""
        return 2 * len(example["prompt_ids"]) + len(example["chosen_ids"]) + len(example["rejected_ids"])

    def count_answers(self, example: Mapping[str, Any]) -> int:
        """Tokens of the chosen response, whose likelihood may be a term of the loss."""
        return len(example["chosen_ids"])

    def arrange(self, examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Pairs of one question side by side, so that they share its prompt in a packed row."""
        by_prompt: dict[tuple[int, ...], list[dict[str, Any]]] = {}
        for example in examples:
            by_prompt.setdefault(tuple(example["prompt_ids"]), []).append(example)
        return [example for group in by_prompt.values() for example in group]

    def micro_batch_loss(self, model: Any, micro_batch: EncodedMicroBatch, update: Update) -> torch.Tensor:
        """The mean over the micro-batch's pairs, by its fraction of the update, and the chosen tokens' term."""
        batch = micro_batch["batch"]
        seen: list[torch.Tensor] = []

        def noting_log_probs(**inputs: Any) -> Any:
            outputs = model(**inputs)
            seen.append(outputs.log_probs)
            return outputs

        # Where the loss is one of ours, TRL's is computed too, for the rewards that it logs.
        loss = self.compute_loss(noting_log_probs, batch)
        (log_probs,) = seen
        lengths = batch["completion_mask"][:, 1:].sum(1)
        for side, sums, tokens in zip(SIDES, log_probs.float().sum(1).chunk(2), lengths.chunk(2), strict=True):
            rewards = self.beta * (sums - batch[f"ref_{side}_logps"])
            number = len(sums)
            self.note(side, Responses(sums.sum(), tokens.sum(), number, rewards.sum(), number), micro_batch["copies"])
        if self._objective.loss == "odds_ratio" or self._objective.margin:
            chosen, rejected = (log_probs.float().sum(1) / lengths).chunk(2)
            if self._objective.loss == "odds_ratio":
                loss = odds_ratio_loss(chosen, rejected, self.beta)
            else:
                loss = margin_loss(chosen, rejected, self.beta, self._objective.margin)
        loss = loss * micro_batch["fraction"]
        if self._objective.nll:
            counted = self.args.world_size / micro_batch["copies"] / update["answers"]
            loss = loss - self._objective.nll * log_probs.chunk(2)[0].float().sum() * counted
        return loss


def pair_config(arguments: dict[str, Any], beta: float, objective: Objective) -> DPOConfig:
    """The trainer's arguments; TRL has no odds ratio."""
    loss = "sigmoid" if objective.loss == "odds_ratio" else objective.loss
    return DPOConfig(**arguments, beta=beta, loss_type=loss, precompute_ref_log_probs=True)
