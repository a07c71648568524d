"""A stand-in for vLLM 0.32: the names and return types that the engine uses, on transformers.

It behaves where an engine could go wrong: it takes only ids, stops only at the given stop tokens, samples with the
request's generator, and returns the stop token among the ids but not in the text. `STARTED` keeps every LLM.
"""

import dataclasses
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

STARTED: list["LLM"] = []


@dataclasses.dataclass
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int | None = 16
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    detokenize: bool = True
    stop: list[str] | None = None


@dataclasses.dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None
    logprobs: None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclasses.dataclass
class RequestOutput:
    request_id: str
    prompt: str | None
    prompt_token_ids: list[int] | None
    prompt_logprobs: None
    outputs: list[CompletionOutput]
    finished: bool


class LLM:
    def __init__(self, model: str, **options):
        self.folder = Path(model)
        self.options = options
        self.asked: list[tuple[list[int], SamplingParams]] = []
        self.resets = 0
        self.tokenizer = None if options["skip_tokenizer_init"] else AutoTokenizer.from_pretrained(options["tokenizer"])
        self.model = AutoModelForCausalLM.from_pretrained(
            model, dtype=getattr(torch, options["dtype"]), use_safetensors=True
        ).eval()
        STARTED.append(self)

    def reset_prefix_cache(self) -> bool:
        self.resets += 1
        return True

    def generate(self, prompts, sampling_params, *, use_tqdm=True) -> list[RequestOutput]:
        asked = [(ids, params) for (ids,), params in zip(map(dict.values, prompts), sampling_params, strict=True)]
        self.asked += asked
        for ids, params in asked:
            assert len(ids) + params.max_tokens <= self.options["max_model_len"]
        for _ in use_tqdm(range(1), desc="Processed prompts", dynamic_ncols=True):
            made = self._made(asked)
        return [self._answer(*one, tokens) for one, tokens in zip(asked, made, strict=True)]

    @torch.inference_mode()
    def _made(self, asked: list[tuple[list[int], SamplingParams]]) -> list[list[int]]:
        """The tokens that follow each prompt, a step for all at once."""
        width = max(len(ids) for ids, _ in asked)
        step = torch.tensor([[0] * (width - len(ids)) + ids for ids, _ in asked])
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids, _ in asked])
        places, cache = (mask.cumsum(-1) - 1).clamp(min=0), DynamicCache(config=self.model.config)
        generators = [torch.Generator().manual_seed(params.seed or 0) for _, params in asked]
        made: list[list[int]] = [[] for _ in asked]
        for _ in range(max(params.max_tokens for _, params in asked)):
            seen = {"attention_mask": mask, "position_ids": places, "past_key_values": cache}
            logits = self.model(input_ids=step, **seen, logits_to_keep=1).logits[:, -1].float()
            drawn = []
            for row, (_, params), generator in zip(logits, asked, generators, strict=True):
                if params.temperature:
                    chances = torch.softmax(row / params.temperature, dim=-1)
                    drawn.append(int(torch.multinomial(chances, 1, generator=generator)))
                else:
                    drawn.append(int(row.argmax()))
            for tokens, token, (_, params) in zip(made, drawn, asked, strict=True):
                ended = set(tokens) & set(params.stop_token_ids) or self._at_stop(params, tokens)
                if len(tokens) < params.max_tokens and not ended:
                    tokens.append(token)
            step, places = torch.tensor(drawn)[:, None], places[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(asked), 1)], dim=1)
        return made

    def _at_stop(self, params: SamplingParams, tokens: list[int]) -> str | None:
        """The stop string in what was generated; to find one, vLLM needs a tokenizer and has to detokenize."""
        if not params.stop:
            return None
        assert params.detokenize and self.tokenizer is not None
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return next((string for string in params.stop if string in text), None)

    def _answer(self, ids: list[int], params: SamplingParams, made: list[int]) -> RequestOutput:
        stop = made[-1] if made[-1] in params.stop_token_ids else self._at_stop(params, made)
        reason = "length" if stop is None else "stop"
        output = CompletionOutput(0, "", made, None, finish_reason=reason, stop_reason=stop)
        return RequestOutput(str(len(self.asked)), None, ids, None, [output], True)
