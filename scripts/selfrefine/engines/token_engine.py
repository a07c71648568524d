"""The base of engines that hold the weights: chats to token ids, token ids to completions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfrefine.engines.interface import Completion, Request
from selfrefine.engines.stop_strings import cut
from selfrefine.engines.thoughts import CLOSES, OPENS
from selfrefine.errors import UserError
from selfrefine.models.chat_templates import opens_thought, render
from selfrefine.schema.rows import Message

# Tokens at a prompt's end that may open a thought.
TAIL = 8


class TokenEngine:
    """Encodes chats, checks that they fit the model, and cuts completions at the stop token, alike for every engine.

    `settings` is the model's configuration and `generation` its generation configuration, as transformers reads them;
    `computed_in` is the dtype in which the weights are multiplied.
    """

    def __init__(self, tokenizer: Any, settings: Any, generation: Any, identity: dict[str, Any], computed_in: str):
        self.tokenizer = tokenizer
        self.computed_in = computed_in
        self.identity = identity
        eos = generation.eos_token_id
        self.stop_ids: set[int] = {tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])} - {None}
        self.limit: int | None = getattr(settings, "max_position_embeddings", None)
        self._prompts: dict[str, list[int]] = {}

    def batches(self, requests: list[Request]) -> list[list[Request]]:
        """Cuts the requests into batches; the cut is a function of the requests alone."""
        raise NotImplementedError

    def generate(self, batch: list[Request]) -> list[Completion]:
        """The completions of one batch, in its order."""
        raise NotImplementedError

    def encode(self, messages: list[Message]) -> list[int]:
        """A chat's token ids, with the generation prompt; the template alone sets special tokens."""
        return self.tokenizer(render(self.tokenizer, messages), add_special_tokens=False)["input_ids"]

    def rendered(self, request: Request) -> str:
        """A request's prompt as the model reads it."""
        return request.messages[-1]["content"] if request.raw else render(self.tokenizer, request.messages)

    def encode_text(self, text: str) -> list[int]:
        """A text's token ids, with the special tokens that the tokenizer adds; one that begins the text is not doubled."""
        begin = self.tokenizer.bos_token
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=not (begin and text.startswith(begin)))
        return ids

    def read(self, requests: list[Request]) -> None:
        """Encodes the requests' prompts; `UserError` by id for one that leaves no room for its completion."""
        self._prompts = {
            request.id: self.encode_text(request.messages[-1]["content"])
            if request.raw
            else self.encode(request.messages)
            for request in requests
        }
        for request in requests:
            if self.limit and self.needed(request) > self.limit:
                raise UserError(
                    f"{request.id}: its prompt of {len(self._prompts[request.id])} tokens and max_tokens "
                    f"{request.generation.max_tokens} exceed the model's {self.limit}; lower max_tokens or drop the "
                    "item"
                )

    def needed(self, request: Request) -> int:
        """Tokens that a request takes at most, prompt and completion."""
        return len(self._prompts[request.id]) + request.generation.max_tokens

    def finish(self, tokens: list[int], prompt: list[int], stop: Sequence[str] = (), raw: bool = False) -> Completion:
        """The completion in the token ids that follow a prompt: they end at the first stop token or stop string."""
        end = next((i for i, token in enumerate(tokens) if token in self.stop_ids), None)
        kept = tokens if end is None else tokens[:end]
        text, stopped = cut(self.tokenizer.decode(kept, skip_special_tokens=True), stop)
        # Of a thought that the prompt opens and that has no end, the text alone would not tell.
        is_cut = end is None and not stopped and CLOSES not in text
        if is_cut and not raw and opens_thought(self.tokenizer.decode(prompt[-TAIL:])):
            text = f"{OPENS}\n{text}"
        length = len(kept) + (end is not None)
        return Completion(
            text if raw else text.strip(), "length" if end is None and not stopped else "stop", length, len(prompt)
        )


def read_settings(folder: Path) -> tuple[Any, Any]:
    """The (configuration, generation configuration) of a model's folder, as loading its weights would read them."""
    from transformers import AutoConfig, GenerationConfig

    settings = AutoConfig.from_pretrained(folder)
    try:
        return settings, GenerationConfig.from_pretrained(folder)
    except OSError:  # the model comes without one
        return settings, GenerationConfig.from_model_config(settings)
