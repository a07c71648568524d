"""Stop strings: where a text ends at one, and when the tokens made so far hold one."""

from collections.abc import Sequence
from typing import Any

# Tokens decoded beyond the bytes of the longest stop string: a token may hold no text, or a part of a character.
MARGIN = 4


def cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text up to the first stop string, and whether there is one."""
    places = [place for string in stop if (place := text.find(string)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


class StopStrings:
    """Says whether a sequence that grows token by token has come upon a stop string."""

    def __init__(self, tokenizer: Any, stop: Sequence[str]):
        self.tokenizer = tokenizer
        self.stop = tuple(stop)
        self.window = MARGIN + max((len(string.encode()) for string in stop), default=0)

    def reached(self, tokens: Sequence[int]) -> bool:
        """Whether the last token completes a stop string."""
        if not self.stop:
            return False
        # A token holds a byte or more, so a string that the last token completes lies within the window.
        text = self.tokenizer.decode(list(tokens[-self.window :]), skip_special_tokens=True)
        return cut(text, self.stop)[1]

    def until(self, tokens: Sequence[int]) -> list[int]:
        """The tokens up to the one that completes the first stop string."""
        if self.stop and cut(self.tokenizer.decode(list(tokens), skip_special_tokens=True), self.stop)[1]:
            return next((list(tokens[:i]) for i in range(1, len(tokens) + 1) if self.reached(tokens[:i])), list(tokens))
        return list(tokens)
