"""Counts of tokens read and made, and estimates without a tokenizer."""

import dataclasses

from selfrefine.engines.interface import Request


@dataclasses.dataclass
class Tokens:
    """Tokens read and made."""

    prompt: int = 0
    made: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.prompt + other.prompt, self.made + other.made)

    def __sub__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.prompt - other.prompt, self.made - other.made)

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt + self.made


def estimated_tokens(text: str) -> int:
    """A string's tokens without a tokenizer: one per four characters, which fits English."""
    return -(-len(text) // 4)


def likely(request: Request) -> int:
    """Tokens that a request's prompt likely has: its characters / 4, and 4 for each message's role and delimiters."""
    return sum(estimated_tokens(message["content"]) + 4 for message in request.messages)


def most(request: Request) -> Tokens:
    """Tokens that a request can cost at most.

    No tokenizer makes more tokens of a string than it has bytes; 64, and 16 a message, are for what the chat template
    adds.
    """
    prompt = 64 + sum(len(message["content"].encode()) + 16 for message in request.messages)
    return Tokens(prompt, request.generation.max_tokens)
