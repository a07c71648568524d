"""The log of an online refinement: rows of training.jsonl, and sums over all updates."""

from typing import Any, Literal, TypedDict

from selfrefine.training.training_log import Entry


class OnlineRow(TypedDict):
    """One update; what tells of a sampling is None where an update learns from the one before."""

    step: int
    split: Literal["train"]
    loss: float
    learning_rate: float
    reward: float | None
    """The share of completions that are correct."""
    kl: float | None
    """The estimated divergence from where training started, in nats per token; None where it has no weight."""
    no_variance: float | None
    """The share of groups whose rewards were all equal, from which nothing is learned."""
    length: float | None
    """Tokens of a completion, the mean."""
    cut: float | None
    """The share of completions that were cut at max_tokens."""
    clipped: float | None
    """The share of tokens whose probability ratio was clipped."""
    sampled_tokens: int
    trained_tokens: int


def online_rows(history: list[Entry]) -> list[OnlineRow]:
    """The log, a row for each update."""
    return [_row(entry) for entry in history if "loss" in entry]


def _row(entry: Entry) -> OnlineRow:
    groups = entry.get("groups")
    return {
        "step": entry["step"],
        "split": "train",
        "loss": entry["loss"],
        "learning_rate": entry["learning_rate"],
        "reward": entry.get("reward"),
        "kl": entry.get("kl"),
        "no_variance": 1 - entry["groups_varied"] / groups if groups else None,
        "length": entry.get("completions/mean_length"),
        "cut": entry.get("cut"),
        "clipped": entry.get("clip_ratio/region_mean"),
        "sampled_tokens": int(entry["sampled_tokens"]),
        "trained_tokens": int(entry["trained_tokens"]),
    }


def spent(history: list[Entry]) -> dict[str, int]:
    """The tokens that were sampled, and those that passed in updates, since training began."""
    return {
        "tokens_made": sum(int(entry.get("sampled_tokens", 0)) for entry in history),
        "tokens_seen": sum(int(entry.get("trained_tokens", 0)) for entry in history),
    }


def figures(history: list[Entry]) -> dict[str, Any]:
    """What the record says of the training."""
    rows = online_rows(history)
    rewards = [row["reward"] for row in rows if row["reward"] is not None]
    return {
        **spent(history),
        "groups": sum(int(entry.get("groups", 0)) for entry in history),
        "groups_varied": sum(int(entry.get("groups_varied", 0)) for entry in history),
        "first_reward": rewards[0],
        "final_reward": rewards[-1],
    }
