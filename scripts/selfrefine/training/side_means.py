"""Means of an update's chosen and of its rejected responses: log-probabilities and rewards."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from transformers.trainer_utils import EvalLoopOutput

from selfrefine.training.trainer_mixins import PackedUpdates, Update

SIDES = ("chosen", "rejected")


class Responses(NamedTuple):
    """Responses of one side, summed up."""

    log_probs: float | torch.Tensor
    tokens: float | torch.Tensor
    number: float | torch.Tensor
    rewards: float | torch.Tensor = 0.0
    rewarded: float | torch.Tensor = 0.0
    """How many of them have a reward: none where a loss knows no rewards."""


class SideMeans(PackedUpdates):
    """Logs for each side of an update, or of the validation examples, what became of its responses.

    `logps/SIDE` is the mean log-probability of a response, `token_logps/SIDE` that of a token, `rewards/SIDE` the mean
    reward. TRL takes means over each pass, where KTO's sides differ in number. These are exact, however an update is
    cut into passes, and shared out among processes. A margin of rewards says nothing of whether the chosen responses
    become less likely, as they often do (arXiv 2402.13228, 2410.08847).
    """

    _sums: dict[str, torch.Tensor]

    def note(self, side: str, responses: "Responses", copies: int) -> None:
        """Counts responses of one side in; `copies` as in a micro-batch."""
        values = [torch.as_tensor(value, dtype=torch.float, device=self.accelerator.device) for value in responses]
        sums = torch.stack([value.detach() for value in values]) / copies
        self._sums[side] = self._sums.get(side, torch.zeros_like(sums)) + sums

    def training_step(self, model: Any, inputs: Update, num_items_in_batch: Any = None) -> torch.Tensor:
        """Begins anew with each update."""
        self._sums = {}
        return super().training_step(model, inputs, num_items_in_batch)

    def evaluation_loop(self, *positional: Any, **named: Any) -> EvalLoopOutput:
        """Begins anew with each validation."""
        self._sums = {}
        return super().evaluation_loop(*positional, **named)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means to what is logged of an update or a validation."""
        if "loss" in logs or "eval_loss" in logs:
            self._metrics["train" if self.model.training else "eval"] |= self._means()
        super().log(logs, start_time)

    def _means(self) -> Mapping[str, list[float]]:
        found: dict[str, list[float]] = {}
        for side in SIDES:
            nothing = torch.zeros(len(Responses._fields), device=self.accelerator.device)
            of = Responses(*self.accelerator.reduce(self._sums.get(side, nothing)).tolist())
            if of.number:
                found[f"logps/{side}"], found[f"token_logps/{side}"] = (
                    [of.log_probs / of.number],
                    [of.log_probs / of.tokens],
                )
            if of.rewarded:
                found[f"rewards/{side}"] = [of.rewards / of.rewarded]
        if all(f"rewards/{side}" in found for side in SIDES):
            found["rewards/margins"] = [found["rewards/chosen"][0] - found["rewards/rejected"][0]]
        return found
