"""Preference pairs of sampled paths and demonstrations, chosen by a preference recipe."""

import collections
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from selfrefine.schema.preference import REASONS, TOO_UNLIKE, Selection, Side
from selfrefine.schema.rows import Demonstration, Pair, Response, SampledPath
from selfrefine.schema.stages import PairSettings

# A chosen and a rejected response; either may be None where they are unpaired, the rejected one where there are no
# pairs.
Match = tuple[Response | None, Response | None]


def make_pairs(
    paths: Sequence[SampledPath], demonstrations: Sequence[Demonstration], settings: PairSettings
) -> tuple[list[Pair], dict[str, Any]]:
    """Pairs in the order of their ids, and the yield, with the number of dropped items by reason.

    A response that was cut at max_tokens is never chosen. Within an item, responses are ordered by a hash of their
    ids, so that pairs do not depend on the order of rows.
    """
    by_item, taught = collections.defaultdict(list), collections.defaultdict(list)
    for path in paths:
        by_item[path["item"]].append(path)
    for demonstration in demonstrations:
        taught[demonstration["item"]].append(demonstration)
    pairs: list[Pair] = []
    dropped: collections.Counter[str] = collections.Counter()
    matched = settings.preference.length_ratio is not None
    lost = 0
    for item in sorted(by_item):
        matches = _match(by_item[item], taught.get(item, []), settings.preference)
        if matched:
            lost += _without_lengths(by_item[item], settings.preference) - (
                0 if isinstance(matches, str) else len(matches)
            )
        if isinstance(matches, str):
            dropped[matches] += 1
            continue
        for number, (chosen, rejected) in enumerate(matches):
            pairs.append(
                {
                    "id": f"{item}-{number}",
                    "item": item,
                    "split": "train",
                    "prompt": settings.preference.prompt,
                    "chosen": chosen,
                    "rejected": rejected,
                }
            )
    held_out = validation_items({pair["item"] for pair in pairs}, settings.validation)
    for pair in pairs:
        if pair["item"] in held_out:
            pair["split"] = "validation"
    counts = {
        "items": len(by_item),
        "items_with_pairs": len({pair["item"] for pair in pairs}),
        "pairs": len(pairs),
        "train": sum(pair["split"] == "train" for pair in pairs),
        "validation": sum(pair["split"] == "validation" for pair in pairs),
        "dropped": {reason: dropped[reason] for reason in (*REASONS, *([TOO_UNLIKE] if matched else []))},
        "rejected_correct": sum(bool(pair["rejected"] and pair["rejected"]["correct"]) for pair in pairs),
    }
    return pairs, counts | ({"lost_to_length": lost} if matched else {})


def validation_items(items: set[str], share: float) -> set[str]:
    """The items whose pairs are held out: the first `share` of them in a hashed order, at least one of two or more."""
    ranked = sorted(items, key=lambda item: hashlib.sha256(f"validation:{item}".encode()).digest())
    return set(ranked[: max(round(len(ranked) * share), min(1, len(ranked) - 1))])


def _match(
    paths: Sequence[SampledPath], demonstrations: Sequence[Demonstration], recipe: Selection
) -> list[Match] | str:
    """One item's pairs, at most `per_item`; without any, the reason."""
    chosen = [row for row in _candidates(recipe.chosen, paths, demonstrations) if row["finished"]]
    if not chosen and recipe.fallback:
        chosen = [row for row in _candidates(recipe.fallback, paths, demonstrations) if row["finished"]]
    if recipe.rejected is None:
        return [(response, None) for response in chosen[: recipe.per_item]] or "no_chosen"
    rejected = _candidates(recipe.rejected, paths, demonstrations)
    if recipe.unpaired:
        texts = {row["text"] for row in chosen}
        others = [row for row in rejected if row["text"] not in texts]
        return [*itertools.zip_longest(chosen[: recipe.per_item], others[: recipe.per_item])] or "no_chosen"
    if not (chosen and rejected):
        return "no_rejected" if chosen else "no_chosen"
    if recipe.length_ratio is None:
        return _match_different(chosen, rejected)[: recipe.per_item] or "same_text"
    tokens = {row["id"]: row["tokens"] for row in paths}
    matches = _match_lengths(chosen, rejected, tokens, recipe.length_ratio)[: recipe.per_item]
    return matches or (TOO_UNLIKE if _match_different(chosen, rejected) else "same_text")


def _without_lengths(paths: Sequence[SampledPath], recipe: Selection) -> int:
    """How many pairs an item would have, were lengths to play no part."""
    matches = _match(paths, [], recipe.model_copy(update={"length_ratio": None}))
    return 0 if isinstance(matches, str) else len(matches)


def _candidates(side: Side, paths: Sequence[SampledPath], demonstrations: Sequence[Demonstration]) -> list[Response]:
    """The responses to one item that a side admits, each text once, in a fixed order."""
    if side.source == "teacher":
        found = [_response(row, "teacher") for row in demonstrations]
    else:
        styles = ("cot", "plain") if side.style == "any" else (side.style,)
        found = [_response(row, f"student {row['style']}") for row in paths if row["style"] in styles]
    found = [row for row in found if side.verdict == "any" or row["correct"] == (side.verdict == "correct")]
    unique = {row["text"]: row for row in sorted(found, key=_rank, reverse=True)}
    return sorted(unique.values(), key=_rank)


def _response(row: SampledPath | Demonstration, source: str) -> Response:
    return {
        "id": row["id"],
        "text": row["text"],
        "source": source,
        "finished": row["finish_reason"] == "stop",
        "correct": row["correct"],
    }


def _rank(response: Response) -> bytes:
    return hashlib.sha256(response["id"].encode()).digest()


def _match_different(chosen: list[Response], rejected: list[Response]) -> list[Match]:
    """Pairs of responses that differ, in order, no response used twice."""
    left = list(rejected)
    matches: list[Match] = []
    for response in chosen:
        other = next((row for row in left if row["text"] != response["text"]), None)
        if other is not None:
            left.remove(other)
            matches.append((response, other))
    return matches


def _match_lengths(
    chosen: list[Response], rejected: list[Response], tokens: Mapping[str, int], most: float
) -> list[Match]:
    """Pairs of responses that differ, those of closest length first, no response used twice.

    The longer has at most `most` times the tokens of the shorter. Among pairs alike in this, the responses' order counts.
    """

    def ratio(one: Response, other: Response) -> float:
        lengths = tokens[one["id"]], tokens[other["id"]]
        return max(lengths) / max(min(lengths), 1)

    both = itertools.product(enumerate(chosen), enumerate(rejected))
    close = sorted(
        (ratio(one, other), first, second)
        for (first, one), (second, other) in both
        if one["text"] != other["text"] and ratio(one, other) <= most
    )
    matches: list[Match] = []
    used: set[tuple[str, int]] = set()
    for _, first, second in close:
        sides = {("chosen", first), ("rejected", second)}
        if not used & sides:
            used |= sides
            matches.append((chosen[first], rejected[second]))
    return matches
