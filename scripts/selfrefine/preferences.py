"""Preference recipes: which of the sampled paths and demonstrations are chosen, which rejected, for each item.

A recipe is data; nothing here knows a method's name.
"""

import collections
import hashlib
import itertools
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

REASONS = ("no_chosen", "no_rejected", "same_text")


class Side(BaseModel):
    """Which texts may stand on one side of a pair."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Literal["student", "teacher"] = Field(
        "student", description="Sampled paths, or the teacher's demonstrations."
    )
    style: Literal["cot", "plain", "rationale", "any"] = Field(
        "any", description="How the student was asked; any leaves out rationales, which were given the answer."
    )
    verdict: Literal["correct", "wrong", "any"] = "any"


class Objective(BaseModel):
    """What the student is trained to do with the pairs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    loss: Literal["sigmoid", "sigmoid_norm", "ipo", "hinge", "robust", "odds_ratio", "kto", "sft"] = Field(
        "sigmoid",
        description="TRL's loss_type; sigmoid is DPO's [P], odds_ratio is ORPO's term, kto judges each text by itself, "
        "sft learns the chosen texts alone.",
    )
    beta: float | None = Field(
        None, gt=0, description="None: the refine section's. For odds_ratio the weight of the term (ORPO's lambda)."
    )
    nll: float = Field(
        0, ge=0, description="Weight of the chosen tokens' mean negative log-likelihood beside the loss."
    )
    reference: Literal["start", "none"] = Field(
        "start", description="Frozen copy of where training starts, or none: the log-likelihoods themselves count."
    )
    margin: float = Field(0, ge=0, description="Without a reference: by how much chosen should lead (SimPO's gamma).")
    restart: bool = Field(
        False, description="In later rounds train from where the first began, on what the last round's student wrote."
    )

    @model_validator(mode="after")
    def _fits(self):
        if self.margin and (self.reference != "none" or self.loss != "sigmoid_norm"):
            raise ValueError("margin needs `reference: none` and `loss: sigmoid_norm`: it is a lead per token")
        if self.loss == "sft" and (self.nll or self.reference != "start"):
            raise ValueError("loss sft has neither nll nor a reference")
        if self.loss == "kto" and (self.nll or self.reference != "start"):
            raise ValueError("loss kto has no nll, and needs `reference: start`")
        if self.loss == "odds_ratio" and self.reference != "none":
            raise ValueError("loss odds_ratio needs `reference: none`: it compares the student's own likelihoods")
        return self


class Selection(BaseModel):
    """How pairs are made from the paths of one checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chosen: Side
    rejected: Side | None = Field(None, description="None: no pairs but chosen texts, for loss sft.")
    fallback: Side | None = Field(
        None, description="Where an item has no chosen text: take one of these instead. None: drop the item."
    )
    prompt: Literal["cot", "plain"] = Field("cot", description="The prompt under which both sides are trained.")
    per_item: int = Field(1, gt=0, description="Pairs per item at most, no text used twice on one side.")
    unpaired: bool = Field(
        False, description="Texts that find no partner count too, up to per_item on each side; for loss kto."
    )

    @property
    def sides(self) -> list[Side]:
        """The sides that it names."""
        return [side for side in (self.chosen, self.rejected, self.fallback) if side is not None]

    @property
    def needs_teacher(self) -> bool:
        """Whether a side draws on demonstrations."""
        return any(side.source == "teacher" for side in self.sides)


class Recipe(Selection):
    """A preference recipe: which pairs, and what is learned from them."""

    objective: Objective = Objective()
    cited: str = Field("", description="Where the recipe comes from.")

    @model_validator(mode="after")
    def _has_what_it_learns_from(self):
        if self.rejected is None and self.objective.loss != "sft":
            raise ValueError(f"loss {self.objective.loss} compares two texts: name the `rejected` side")
        if self.unpaired and self.objective.loss != "kto":
            raise ValueError(f"loss {self.objective.loss} compares two texts: only loss kto can learn `unpaired` ones")
        return self


class Schedule(BaseModel):
    """Recipes one after the other, and how often: each step starts from the last one's checkpoint and samples from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: list[str] = Field(min_length=1, description="Names of recipes.")
    rounds: int = Field(1, gt=0)
    cited: str = Field("", description="Where the schedule comes from.")


class PairRecipe(BaseModel):
    """What the pair stage reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preference: Selection
    validation: float = Field(
        0.1, gt=0, lt=1, description="Share of the items whose pairs are held out to select the checkpoint."
    )


def candidates(side: Side, paths: list[dict], demonstrations: list[dict]) -> list[dict]:
    """The texts of one item that a side admits, each text once, in a fixed order."""
    admitted = demonstrations if side.source == "teacher" else paths
    if side.source == "student":
        styles = ("cot", "plain") if side.style == "any" else (side.style,)
        admitted = [row for row in admitted if row["style"] in styles]
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

    `rejected` is None where the recipe learns from chosen texts alone; either side may be None where it is `unpaired`.

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
        alone = preference.rejected is None
        rejected = [] if alone else candidates(preference.rejected, rows, demos)
        missing = not (chosen or rejected) if preference.unpaired else not chosen or not (rejected or alone)
        if missing:
            dropped["no_rejected" if chosen else "no_chosen"] += 1
            continue
        if preference.unpaired:
            bad_ones = [row for row in rejected if row["text"] not in {row["text"] for row in chosen}]
            made = list(itertools.zip_longest(chosen[: preference.per_item], bad_ones[: preference.per_item]))
        elif alone:
            made = [(text, None) for text in chosen[: preference.per_item]]
        else:
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
        "rejected_correct": sum(bool(pair["rejected"] and pair["rejected"]["correct"]) for pair in pairs),
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
