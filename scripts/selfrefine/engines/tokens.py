"""What the engines that hold the weights share: chats to token ids, where answers end, and token ids to completions."""

from pathlib import Path

from selfrefine.engines import Completion, Request
from selfrefine.errors import UserError


class TokenEngine:
    """The part of an engine that deals in a model's tokens, so that every engine asks and stops alike.

    `settings` is the model's configuration and `generation` its generation configuration, as transformers reads them;
    `computed_in` is the dtype in which the weights are multiplied.
    """

    def __init__(self, tokenizer, settings, generation, identity: dict, computed_in: str):
        self.tokenizer = tokenizer
        self.computed_in = computed_in
        self.identity = identity
        eos = generation.eos_token_id
        self.stop_ids = {tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])} - {None}
        self.limit = getattr(settings, "max_position_embeddings", None)
        self._prompts: dict[str, list[int]] = {}

    def encode(self, messages: list[dict[str, str]]) -> list[int]:
        """A chat's token ids, the cue for the assistant's turn included; the template alone sets special tokens."""
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def read(self, requests: list[Request]) -> None:
        """Notes the requests' prompts; `UserError` by id for one that leaves no room for its answer."""
        self._prompts = {request.id: self.encode(request.messages) for request in requests}
        for request in requests:
            if self.limit and self.needed(request) > self.limit:
                raise UserError(
                    f"{request.id}: its prompt of {len(self._prompts[request.id])} tokens and max_tokens "
                    f"{request.generation.max_tokens} exceed the model's {self.limit}; lower max_tokens or drop the item"
                )

    def needed(self, request: Request) -> int:
        """Tokens that a request takes at most, prompt and answer."""
        return len(self._prompts[request.id]) + request.generation.max_tokens

    def finish(self, tokens: list[int], prompt: list[int]) -> Completion:
        """The completion in the token ids that follow a prompt: they end at the first stop token."""
        end = next((i for i, token in enumerate(tokens) if token in self.stop_ids), None)
        kept = tokens if end is None else tokens[:end]
        text = self.tokenizer.decode(kept, skip_special_tokens=True).strip()
        length = len(kept) + (end is not None)
        return Completion(text, "length" if end is None else "stop", length, len(prompt))


def read_settings(folder: Path) -> tuple:
    """The (configuration, generation configuration) of the model in a folder, as loading its weights would read them."""
    from transformers import AutoConfig, GenerationConfig

    settings = AutoConfig.from_pretrained(folder)
    try:
        return settings, GenerationConfig.from_pretrained(folder)
    except OSError:  # the model comes without one
        return settings, GenerationConfig.from_model_config(settings)
