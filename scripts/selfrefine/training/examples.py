"""Tokenised training examples, made of demonstrations or of preference pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from selfrefine.data.items import known_item, subset
from selfrefine.data.prompts import messages
from selfrefine.errors import UserError
from selfrefine.schema.rows import Demonstration, Item, Pair
from selfrefine.schema.stages import InstructSettings, RefineSettings
from selfrefine.training.encoding import encode_completion, encode_prompt, is_given_back

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class SupervisedExample(TypedDict):
    """A prompt and the answer to learn."""

    input_ids: list[int]
    completion_mask: list[int]
    """0 for the prompt's tokens, 1 for the answer's."""


class PairedExample(TypedDict):
    """A prompt with a chosen and a rejected response."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


class UnpairedExample(TypedDict):
    """A prompt with one response, judged by itself."""

    prompt_ids: list[int]
    completion_ids: list[int]
    label: bool
    """True for a chosen response."""


Example = SupervisedExample | PairedExample | UnpairedExample


@dataclass
class Examples:
    """The examples of one training job, all of one kind."""

    train: Sequence[Example]
    validation: Sequence[Example]
    """Empty where the last update is kept, not the one of lowest validation loss."""


def encode_demonstrations(
    demonstrations: Sequence[Demonstration],
    items: dict[str, Item],
    settings: InstructSettings,
    tokenizer: "PreTrainedTokenizerBase",
    shots: Sequence[Item] = (),
) -> tuple[Examples, dict[str, int]]:
    """The examples of a share of the demonstrations, and how many were used and how many dropped, by reason.

    An empty answer has nothing to learn, and one that the tokenizer cannot spell would teach something else.
    """
    share = subset([row["item"] for row in demonstrations], settings.share, settings.seed)
    examples: list[SupervisedExample] = []
    dropped = {"too_long": 0, "empty": 0, "not_spelled": 0}
    for row in sorted(demonstrations, key=lambda row: row["id"]):
        if row["item"] not in share:
            continue
        chat = messages(known_item(items, row), settings.prompt, settings.style, system=settings.system, shots=shots)
        prompt, answer = encode_prompt(tokenizer, chat), encode_completion(tokenizer, chat, row["text"])
        if reason := _unusable(tokenizer, [row["text"]], len(prompt) + len(answer), settings.training.max_length):
            dropped[reason] += 1
        else:
            examples.append(_supervised(prompt, answer))
    return Examples(examples, []), {"share": settings.share, "used": len(examples), **dropped}


def _unusable(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], length: int, longest: int) -> str | None:
    """Why an example is dropped; None if it is used."""
    if not all(text.strip() for text in texts):
        return "empty"
    if not all(is_given_back(tokenizer, text) for text in texts):
        return "not_spelled"
    return "too_long" if length > longest else None


def encode_pairs(
    pairs: Sequence[Pair],
    items: dict[str, Item],
    settings: RefineSettings,
    tokenizer: "PreTrainedTokenizerBase",
    shots: Sequence[Item] = (),
) -> tuple[Examples, dict[str, int]]:
    """The examples of the objective, how many there are by split, and how many pairs were dropped, by reason."""
    splits: dict[str, list[Example]] = {"train": [], "validation": []}
    dropped = {"too_long": 0, "empty": 0, "not_spelled": 0}
    for pair in sorted(pairs, key=lambda pair: pair["id"]):
        asked = known_item(items, pair), settings.prompt, pair["prompt"]
        chat = messages(*asked, system=settings.system, shots=shots)
        prompt = encode_prompt(tokenizer, chat)
        responses = {"chosen": pair["chosen"], "rejected": pair["rejected"]}
        encoded = {
            side: encode_completion(tokenizer, chat, response["text"], response["finished"])
            for side, response in responses.items()
            if response
        }
        texts = [response["text"] for response in responses.values() if response]
        length = len(prompt) + max(map(len, encoded.values()))
        if reason := _unusable(tokenizer, texts, length, settings.training.max_length):
            dropped[reason] += 1
            continue
        if "chosen" in encoded and encoded["chosen"][-1] != tokenizer.eos_token_id:
            raise UserError(f"pair {pair['id']}: the chosen answer does not end with the stop token")
        splits[pair["split"]] += _examples_of(prompt, encoded, settings.objective.loss)
    counts = {split: len(rows) for split, rows in splits.items()} | dropped
    return Examples(splits["train"], splits["validation"]), counts


def _examples_of(prompt: list[int], responses: dict[str, list[int]], loss: str) -> list[Example]:
    """What a loss learns from the responses of one pair."""
    if loss == "sft":
        return [_supervised(prompt, responses["chosen"])]
    if loss == "kto":
        return [
            {"prompt_ids": prompt, "completion_ids": ids, "label": side == "chosen"} for side, ids in responses.items()
        ]
    return [{"prompt_ids": prompt, "chosen_ids": responses["chosen"], "rejected_ids": responses["rejected"]}]


def _supervised(prompt: list[int], answer: list[int]) -> SupervisedExample:
    return {"input_ids": prompt + answer, "completion_mask": [0] * len(prompt) + [1] * len(answer)}


def longest_sequence(examples: Examples) -> int:
    """Tokens of the longest sequence that prompts and responses can form; KTO combines those of different items."""
    prompts, answers = [0], [0]
    for example in (*examples.train, *examples.validation):
        for name, ids in example.items():
            if name.endswith("_ids") and isinstance(ids, list):
                (prompts if name == "prompt_ids" else answers).append(len(ids))
    return max(prompts) + max(answers)
