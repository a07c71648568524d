"""Preference recipes: which of the sampled paths and demonstrations are chosen, which rejected, for each item.

A recipe is data; nothing here knows a method's name.
"""

import collections
import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

REASONS = ("no_chosen", "no_rejected", "same_text")


class Side(BaseModel):
    """Which texts may stand on one side of a pair."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Literal["student", "teacher"] = Field(
        "student", description="Sampled paths, or the teacher's demonstrations."
    )
    style: Literal["cot", "plain", "any"] = "any"
    verdict: Literal["correct", "wrong", "any"] = "any"


class Recipe(BaseModel):
    """How pairs are made from the paths of one checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chosen: Side
    rejected: Side
    fallback: Side | None = Field(
        None, description="Where an item has no chosen text: take one of these instead. None: drop the item."
    )
    prompt: Literal["cot", "plain"] = Field("cot", description="The prompt under which both sides are trained.")
    per_item: int = Field(1, gt=0, description="Pairs per item at most, no text used twice on one side.")
    cited: str = Field("", description="Where the recipe comes from.")

    @property
    def needs_teacher(self) -> bool:
        """Whether a side draws on demonstrations."""
        return any(
            side is not None and side.source == "teacher" for side in (self.chosen, self.rejected, self.fallback)
        )


class PairRecipe(BaseModel):
    """What the pair stage reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preference: Recipe
    validation: float = Field(
        0.1, gt=0, lt=1, description="Share of the items whose pairs are held out to select the checkpoint."
    )


def candidates(side: Side, paths: list[dict], demonstrations: list[dict]) -> list[dict]:
    """The texts of one item that a side admits, each text once, in a fixed order."""
    admitted = demonstrations if side.source == "teacher" else paths
    if side.source == "student" and side.style != "any":
        admitted = [row for row in admitted if row["style"] == side.style]
    found = [
        {
            "id": row["id"],
            "text": row["text"],
            "source": f"student {row['style']}" if side.source == "student" else "teacher",
            "finished": row["finish_reason"] == "stop",
            "correct": row["correct"],
        }
        for row in admitted
    ]
    found = [row for row in found if side.verdict == "any" or row["correct"] == (side.verdict == "correct")]
    unique = {row["text"]: row for row in sorted(found, key=_rank, reverse=True)}
    return sorted(unique.values(), key=_rank)


def _rank(row: dict) -> bytes:
    return hashlib.sha256(row["id"].encode()).digest()


def validation_items(item_ids: set[str], share: float) -> set[str]:
    """The items whose pairs are held out: the first `share` of them in a hashed order, at least one of two or more."""
    ranked = sorted(item_ids, key=lambda item_id: hashlib.sha256(f"validation:{item_id}".encode()).digest())
    return set(ranked[: max(round(len(ranked) * share), min(1, len(ranked) - 1))])


def make_pairs(paths: list[dict], demonstrations: list[dict], recipe: PairRecipe) -> tuple[list[dict], dict]:
    """Pairs {id, item, split, prompt, chosen, rejected} in the order of their ids, and the yield with reasons for dropped items.

    A text that was cut at max_tokens is never chosen. The order within an item is by hash of the ids, so that which
    texts meet does not depend on the order of rows.
    """
    preference = recipe.preference
    by_item, taught = collections.defaultdict(list), collections.defaultdict(list)
    for row in paths:
        by_item[row["item"]].append(row)
    for row in demonstrations:
        taught[row["item"]].append(row)
    pairs, dropped = [], collections.Counter()
    for item_id in sorted(by_item):
        rows, demos = by_item[item_id], taught.get(item_id, [])
        chosen = [row for row in candidates(preference.chosen, rows, demos) if row["finished"]]
        if not chosen and preference.fallback:
            chosen = [row for row in candidates(preference.fallback, rows, demos) if row["finished"]]
        rejected = candidates(preference.rejected, rows, demos)
        if not chosen or not rejected:
            dropped["no_rejected" if chosen else "no_chosen"] += 1
            continue
        made = _match(chosen, rejected, preference.per_item)
        if not made:
            dropped["same_text"] += 1
        for number, (good, bad) in enumerate(made):
            pairs.append(
                {
                    "id": f"{item_id}-{number}",
                    "item": item_id,
                    "split": "train",
                    "prompt": preference.prompt,
                    "chosen": good,
                    "rejected": bad,
                }
            )
    held_out = validation_items({pair["item"] for pair in pairs}, recipe.validation)
    for pair in pairs:
        if pair["item"] in held_out:
            pair["split"] = "validation"
    counts = {
        "items": len(by_item),
        "items_with_pairs": len({pair["item"] for pair in pairs}),
        "pairs": len(pairs),
        "train": sum(pair["split"] == "train" for pair in pairs),
        "validation": sum(pair["split"] == "validation" for pair in pairs),
        "dropped": {reason: dropped[reason] for reason in REASONS},
        "rejected_correct": sum(pair["rejected"]["correct"] for pair in pairs),
    }
    return pairs, counts


def _match(chosen: list[dict], rejected: list[dict], most: int) -> list[tuple[dict, dict]]:
    """Up to `most` pairs of different texts, in order, no text used twice on one side."""
    left, made = list(rejected), []
    for good in chosen:
        bad = next((row for row in left if row["text"] != good["text"]), None)
        if bad is not None and len(made) < most:
            left.remove(bad)
            made.append((good, bad))
    return made
