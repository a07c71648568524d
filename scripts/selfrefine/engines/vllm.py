"""The `vllm` engine: generates with vLLM on the GPUs that the job sees, or on the CPU where it sees none.

Each sample is a request of its own, with its own seed: asked for several samples at once, vLLM would seed the k-th with
seed + k. Samples of one prompt lie side by side and share what is computed for it.
"""

import functools
import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from selfrefine.engines import Completion, Request
from selfrefine.engines.tokens import TokenEngine
from selfrefine.errors import UserError
from selfrefine.fingerprint import fingerprint

# Requests that are journalled together, so lost together by a kill. While the longest answers of a batch end, most of the
# GPU idles; vLLM has 256 to 1024 answers in flight, so that this is a small part of a batch that fills it several times.
BATCH = 4096
SETTINGS = {
    # The engine runs in this process: which requests share a step is then no matter of timing, and nothing outlives a kill.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # Processes for further GPUs start afresh: a copy of one that has threads may hang.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_NO_USAGE_STATS": "1",
}

# Read by vLLM's modules as they are imported.
BATCH_INVARIANT = "VLLM_BATCH_INVARIANT"
# Of GPUs on which vLLM has kernels for that mode.
CAPABILITY = (8, 0)


class VllmEngine(TokenEngine):
    """Generates with the weights in a folder, loaded when the first completion is wanted.

    `weights` is handed an empty scratch folder and returns the folder to load from; the scratch folder is removed once
    vLLM holds the weights. `settings` and `generation` are the model's, `dtype` as in torch, `memory` the share of each
    GPU's memory (without one, of the machine's) that vLLM takes. With `batch_invariant` a request is rounded alike whatever
    stands beside it. `UserError` if vLLM is not installed, if the GPUs cannot share the model, or cannot do that.
    """

    def __init__(
        self,
        weights: Callable[[Path], Path],
        tokenizer,
        settings,
        generation,
        identity: dict,
        dtype: str,
        memory: float,
        batch_invariant: bool = False,
    ):
        if importlib.util.find_spec("vllm") is None:
            raise UserError(
                f"engine vllm: vLLM is not installed for {sys.executable}; install envs/vllm.txt there with pip, let Snakemake "
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
                f"engine vllm: {self.gpus} GPUs cannot share the model's {heads} attention heads evenly; give the job a number "
                f"of GPUs that divides {heads}"
            )
        if batch_invariant and (least := _least_capability()) < CAPABILITY:
            found = f"compute capability {least[0]}.{least[1]}" if self.gpus else "no GPU"
            raise UserError(
                f"engine vllm: its batch-invariant mode needs GPUs from compute capability {CAPABILITY[0]}.{CAPABILITY[1]}, and "
                f"this machine has {found}; set `vllm.batch_invariant: false`"
            )
        self.batch_invariant = batch_invariant
        self._longest = 0
        self._llm = None

    def read(self, requests: list[Request]) -> None:
        """Notes the requests' prompts, and the longest of all: vLLM keeps room for so much, and takes no longer one later."""
        super().read(requests)
        longest = max(map(self.needed, requests), default=0)
        if self._llm is not None and longest > self._longest:
            raise ValueError(f"a request of {longest} tokens after vLLM was started for {self._longest}")
        self._longest = max(self._longest, longest)

    def batches(self, requests: list[Request]) -> list[list[Request]]:
        """Large batches, within which vLLM schedules; requests with one prompt side by side, and apart only if they must."""
        self.read(requests)
        groups: dict[tuple, list[Request]] = {}
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
        # Reading a kept prefix is not to the last bit computing it: what earlier batches left would make the outcome depend
        # on where an interrupted run went on.
        self._llm.reset_prefix_cache()
        outputs = self._llm.generate(
            [{"prompt_token_ids": self._prompts[request.id]} for request in batch],
            [self._sampling(request) for request in batch],
            use_tqdm=functools.partial(tqdm, leave=False, mininterval=5),
        )
        return [self._completion(request, output) for request, output in zip(batch, outputs, strict=True)]

    def _sampling(self, request: Request):
        from vllm import SamplingParams

        settings = request.generation
        return SamplingParams(
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=request.seed if settings.temperature else None,
            max_tokens=settings.max_tokens,
            # No stop token but ours, whatever vLLM knows of the model.
            stop_token_ids=sorted(self.stop_ids),
            ignore_eos=True,
            detokenize=False,
        )

    def _completion(self, request: Request, output) -> Completion:
        (made,) = output.outputs
        prompt = self._prompts[request.id]
        completion = self.finish(list(made.token_ids), prompt)
        if list(output.prompt_token_ids) != prompt or made.finish_reason != completion.finish_reason:
            raise UserError(
                f"{request.id}: vLLM did not answer what was asked (it ended with {made.finish_reason!r}); run again, finished "
                "batches are kept"
            )
        return completion

    def _start(self):
        os.environ.update(SETTINGS | {BATCH_INVARIANT: str(int(self.batch_invariant))})
        from vllm import LLM

        # It tries out a chat template, has none without a tokenizer, and would tell so with a traceback.
        logging.getLogger("vllm.renderers.base").setLevel(logging.ERROR)
        options = {}
        if not self.gpus:
            # vLLM reads a prompt in parts where it does not fit a step, and sets the request's generator back after each;
            # on a CPU there is no such thing ("CPU Generator does not use offset"), and the run dies. With prompts read
            # whole there is nothing to set back. This can go when vLLM leaves generators on a CPU alone there:
            # https://github.com/vllm-project/vllm/pull/10097
            options["enable_chunked_prefill"] = False
        with tempfile.TemporaryDirectory(prefix="selfrefine-weights-") as scratch:
            return LLM(
                str(self.weights(Path(scratch))),
                skip_tokenizer_init=True,
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
