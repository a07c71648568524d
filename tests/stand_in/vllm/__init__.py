"""A stand-in for vLLM 0.32: what the engine uses of it, with its names and return types, answered by transformers.

It has what an engine could get wrong: only ids are taken, nothing stops but what is told, a sample is drawn from its request's
generator, a stop token is among the ids and not in a text, and what it was started with is kept in `STARTED`.
"""

import dataclasses
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

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
        self.model = AutoModelForCausalLM.from_pretrained(
            model, dtype=getattr(torch, options["dtype"]), use_safetensors=True
        ).eval()
        STARTED.append(self)

    def reset_prefix_cache(self) -> bool:
        self.resets += 1
        return True

    def generate(self, prompts, sampling_params, *, use_tqdm=True) -> list[RequestOutput]:
        outputs = []
        for _ in use_tqdm(range(1), desc="Processed prompts", dynamic_ncols=True):
            for prompt, params in zip(prompts, sampling_params, strict=True):
                (ids,) = prompt.values()
                self.asked.append((ids, params))
                assert len(ids) + params.max_tokens <= self.options["max_model_len"]
                outputs.append(self._answer(str(len(self.asked)), ids, params))
        return outputs

    @torch.inference_mode()
    def _answer(self, request_id: str, ids: list[int], params: SamplingParams) -> RequestOutput:
        generator = torch.Generator().manual_seed(params.seed or 0)
        made, stop = [], None
        while len(made) < params.max_tokens and stop is None:
            logits = self.model(torch.tensor([ids + made])).logits[0, -1].float()
            if params.temperature:
                chances = torch.softmax(logits / params.temperature, dim=-1)
                made.append(int(torch.multinomial(chances, 1, generator=generator)))
            else:
                made.append(int(logits.argmax()))
            stop = made[-1] if made[-1] in params.stop_token_ids else None
        reason = "length" if stop is None else "stop"
        output = CompletionOutput(0, "", made, None, finish_reason=reason, stop_reason=stop)
        return RequestOutput(request_id, None, ids, None, [output], True)
