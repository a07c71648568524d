"""The log of a training: rows of training.jsonl, tokens and seconds, from the trainer's history."""

from typing import Any, Literal, TypedDict

# One entry of the trainer's history: an update, a validation, or the end of training.
Entry = dict[str, Any]


class InstructRow(TypedDict):
    """One update of phase 1."""

    step: int
    loss: float
    learning_rate: float


class RefineRow(TypedDict):
    """One update, or one validation, of phase 2."""

    step: int
    split: Literal["train", "validation"]
    loss: float
    margin: float | None
    """The reward margin, chosen minus rejected, in nats times beta; None for losses without pairs."""
    accuracy: float | None
    """The share of pairs whose chosen response has the higher reward."""
    chosen_logp: float | None
    """The mean log-probability of a chosen response, in nats; None where the update has none."""
    rejected_logp: float | None
    chosen_token_logp: float | None
    """That of a token of the chosen responses: responses of other lengths do not move it."""
    rejected_token_logp: float | None
    chosen_reward: float | None
    """Beta times what a chosen response gained on the reference; without a reference, times its log-probability."""
    rejected_reward: float | None


def instruct_rows(history: list[Entry]) -> list[InstructRow]:
    """The log of phase 1."""
    return [
        {"step": entry["step"], "loss": entry["loss"], "learning_rate": entry["learning_rate"]}
        for entry in history
        if "loss" in entry
    ]


def refine_rows(history: list[Entry]) -> list[RefineRow]:
    """The log of phase 2."""
    return [_refine_row(entry) for entry in history if "loss" in entry or "eval_loss" in entry]


def _refine_row(entry: Entry) -> RefineRow:
    prefix = "eval_" if "eval_loss" in entry else ""
    return {
        "step": entry["step"],
        "split": "validation" if prefix else "train",
        "loss": entry[f"{prefix}loss"],
        "margin": entry.get(f"{prefix}rewards/margins"),
        "accuracy": entry.get(f"{prefix}rewards/accuracies"),
        "chosen_logp": entry.get(f"{prefix}logps/chosen"),
        "rejected_logp": entry.get(f"{prefix}logps/rejected"),
        "chosen_token_logp": entry.get(f"{prefix}token_logps/chosen"),
        "rejected_token_logp": entry.get(f"{prefix}token_logps/rejected"),
        "chosen_reward": entry.get(f"{prefix}rewards/chosen"),
        "rejected_reward": entry.get(f"{prefix}rewards/rejected"),
    }


def training_seconds(history: list[Entry]) -> float:
    """The seconds of the last run's updates and validations, without loading and saving."""
    return round(sum(entry.get("train_runtime", 0.0) for entry in history), 1)


def tokens_passed(history: list[Entry]) -> dict[str, int]:
    """Tokens from the trainer's history, where counts restart when a run is resumed.

    `tokens_seen` are those of the examples, as plain TRL counts them: of a pair, the prompt twice. `tokens_computed`
    are those that passed through the model: padding counts, a prefix that sequences share counts once.
    """
    totals = {}
    for name, logged in (("tokens_seen", "num_tokens"), ("tokens_computed", "computed_tokens")):
        totals[name] = last = 0
        for count in (entry[logged] for entry in history if logged in entry):
            totals[name] += int(count - last if count >= last else count)
            last = count
    return totals
