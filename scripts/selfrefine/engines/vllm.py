"""The `vllm` engine: generates with vLLM on all GPUs that the job sees, else on the CPU.

Each sample is a request of its own, with its own seed: of several samples in one request, vLLM would seed the k-th with
seed + k. Samples of one prompt are neighbours and share its KV cache.
"""

import functools
import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from selfrefine.engines.interface import Completion, Request
from selfrefine.engines.token_engine import TokenEngine
from selfrefine.errors import UserError
from selfrefine.store.fingerprint import fingerprint

# Requests that are journalled together, so a kill loses them together. While the longest completions of a batch end,
# most of the GPU idles; vLLM decodes 256 to 1024 sequences at once, so with batches several times as large this costs
# little.
BATCH = 4096
SETTINGS = {
    # The engine runs in this process: which requests share a step then does not depend on timing, and nothing outlives
    # a kill.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # Processes for further GPUs are spawned: a fork of a process with threads may hang.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_NO_USAGE_STATS": "1",
}
# Read by vLLM's modules as they are imported.
BATCH_INVARIANT = "VLLM_BATCH_INVARIANT"
# The lowest compute capability for which vLLM has kernels for that mode.
CAPABILITY = (8, 0)


class VllmEngine(TokenEngine):
    """Generates with the weights in a folder, loaded when the first completion is wanted.

    `weights` is called with an empty scratch folder and returns the folder to load from; the scratch folder is removed
    once vLLM has loaded the weights. `settings` and `generation` are the model's, `dtype` as in torch, `memory` the
    share of each GPU's memory (without one, of the machine's) that vLLM takes. With `batch_invariant` a completion does
    not depend on the other requests in the batch. `UserError` if vLLM is not installed, or if the GPUs cannot share the
    model or lack that mode.
    """

    def __init__(
        self,
        weights: Callable[[Path], Path],
        tokenizer: Any,
        settings: Any,
        generation: Any,
        identity: dict[str, Any],
        dtype: str,
        memory: float,
        batch_invariant: bool = False,
    ):
        if importlib.util.find_spec("vllm") is None:
            raise UserError(
                f"engine vllm: vLLM is not installed for {sys.executable}; install envs/vllm.txt there with pip, let "
                "Snakemake "
                "do it (--sdm conda or --sdm apptainer), or set `engine: transformers`"
            )
        identity = {"engine": "vllm", "code": fingerprint(Path(__file__)), **identity}
        super().__init__(tokenizer, settings, generation, identity, dtype)
        self.weights = weights
        self.dtype = dtype
        self.memory = memory
        self.gpus = _gpus()
        heads = getattr(settings, "num_attention_heads", None)
        if self.gpus and heads and heads % self.gpus:
            raise UserError(
                f"engine vllm: {self.gpus} GPUs cannot share the model's {heads} attention heads evenly; give the "
                "job a number "
                f"of GPUs that divides {heads}"
            )
        if batch_invariant and (least := _least_capability()) < CAPABILITY:
            found = f"compute capability {least[0]}.{least[1]}" if self.gpus else "no GPU"
            raise UserError(
                "engine vllm: its batch-invariant mode needs GPUs from compute capability "
                f"{CAPABILITY[0]}.{CAPABILITY[1]}, and "
                f"this machine has {found}; set `vllm.batch_invariant: false`"
            )
        self.batch_invariant = batch_invariant
        self._longest = 0
        self._stops = False
        self._llm: Any = None

    def read(self, requests: list[Request]) -> None:
        """Encodes the requests' prompts; notes the longest, for whose length vLLM is started, and stop strings."""
        super().read(requests)
        longest = max(map(self.needed, requests), default=0)
        stops = any(request.stop for request in requests)
        if self._llm is not None and stops and not self._stops:
            raise ValueError("a request with stop strings after vLLM was started without a tokenizer")
        self._stops |= stops
        if self._llm is not None and longest > self._longest:
            raise ValueError(f"a request of {longest} tokens after vLLM was started for {self._longest}")
        self._longest = max(self._longest, longest)

    def batches(self, requests: list[Request]) -> list[list[Request]]:
        """Large batches, within which vLLM schedules; equal prompts are neighbours, in one batch wherever they fit."""
        self.read(requests)
        groups: dict[tuple[int, ...], list[Request]] = {}
        for request in sorted(requests, key=lambda r: (self._prompts[r.id], r.key)):
            groups.setdefault(tuple(self._prompts[request.id]), []).append(request)
        batches: list[list[Request]] = []
        for group in groups.values():
            for start in range(0, len(group), BATCH):
                piece = group[start : start + BATCH]
                if not batches or len(batches[-1]) + len(piece) > BATCH:
                    batches.append([])
                batches[-1].extend(piece)
        return batches

    def generate(self, batch: list[Request]) -> list[Completion]:
        """The completions of one batch."""
        if self._llm is None:
            self._llm = self._start()
        # A cached prefix is not equal to the last bit to a computed one: with what earlier batches left, the
        # completions would depend on where an interrupted run resumed.
        self._llm.reset_prefix_cache()
        outputs = self._llm.generate(
            [{"prompt_token_ids": self._prompts[request.id]} for request in batch],
            [self._sampling(request) for request in batch],
            use_tqdm=functools.partial(tqdm, leave=False, mininterval=5),
        )
        return [self._completion(request, output) for request, output in zip(batch, outputs, strict=True)]

    def _sampling(self, request: Request) -> Any:
        from vllm import SamplingParams

        settings = request.generation
        return SamplingParams(
            temperature=settings.temperature or 0.0,
            top_p=settings.top_p,
            seed=request.seed if settings.temperature else None,
            max_tokens=settings.max_tokens,
            # Our stop tokens alone, whatever vLLM knows about the model.
            stop_token_ids=sorted(self.stop_ids),
            ignore_eos=True,
            detokenize=bool(request.stop),
            **({"stop": list(request.stop)} if request.stop else {}),
        )

    def _completion(self, request: Request, output: Any) -> Completion:
        (made,) = output.outputs
        prompt = self._prompts[request.id]
        completion = self.finish(list(made.token_ids), prompt, request.stop, request.raw)
        if list(output.prompt_token_ids) != prompt or made.finish_reason != completion.finish_reason:
            raise UserError(
                f"{request.id}: vLLM did not answer what was asked (it ended with {made.finish_reason!r}); run "
                "again, finished "
                "batches are kept"
            )
        return completion

    def _start(self) -> Any:
        os.environ.update(SETTINGS | {BATCH_INVARIANT: str(int(self.batch_invariant))})
        from vllm import LLM

        # It tries a chat template, has none without a tokenizer, and would log that with a traceback.
        logging.getLogger("vllm.renderers.base").setLevel(logging.ERROR)
        options: dict[str, Any] = {}
        if not self.gpus:
            # vLLM prefills in chunks a prompt that does not fit a step, and resets the request's generator after each
            # chunk; generators on a CPU cannot be reset ("CPU Generator does not use offset"), and the run fails. Whole
            # prompts need no reset. This can go once vLLM skips it on a CPU:
            # https://github.com/vllm-project/vllm/pull/10097
            options["enable_chunked_prefill"] = False
        with tempfile.TemporaryDirectory(prefix="selfrefine-weights-") as scratch:
            weights = self.weights(Path(scratch))
            if self._stops:
                # To find strings in what it generates, vLLM needs the tokenizer, which merged weights lie without.
                options["tokenizer"] = str(Path(scratch) / "tokenizer")
                self.tokenizer.save_pretrained(options["tokenizer"])
            return LLM(
                str(weights),
                skip_tokenizer_init=not self._stops,
                generation_config="vllm",
                load_format="safetensors",
                dtype=self.dtype,
                max_model_len=self._longest,
                enable_prefix_caching=True,
                tensor_parallel_size=max(1, self.gpus),
                gpu_memory_utilization=self.memory,
                **options,
            )


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _least_capability() -> tuple[int, int]:
    """The lowest compute capability of the job's GPUs; (0, 0) where there is none."""
    import torch

    return min((torch.cuda.get_device_capability(gpu) for gpu in range(_gpus())), default=(0, 0))
