"""vLLM as built for CPUs, compiled where there is a compiler; the same requests, seeds and batch."""

import os
import shutil

# In this process, so that the parent's turns hold for it.
os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")


class Program:
    """It detects the CPU's instructions itself; where torch's are lowered, they are hidden from it as well."""

    def __init__(self, task: dict):
        if os.environ.get("ATEN_CPU_CAPABILITY") == "avx2":
            import torch._inductor.config

            torch._inductor.config.cpp.simdlen = 256
            for name in ("_is_avx512_supported", "_is_avx512_bf16_supported", "_is_amx_tile_supported"):
                setattr(torch.cpu, name, lambda: False)
        import vllm

        self.model = vllm.LLM(
            task["folder"],
            dtype=task["compute"],
            skip_tokenizer_init=True,
            generation_config="vllm",
            max_model_len=1024,
            max_num_seqs=task["batch"],
            # With chunked prefill, requests with seeds fail on a CPU.
            enable_chunked_prefill=False,
            enforce_eager=shutil.which("g++") is None,
        )
        self.compute = task["compute"]
        self.version = f"vllm {vllm.__version__}"

    def generate(self, wanted: dict) -> list[int]:
        from vllm import SamplingParams

        count = wanted["max_tokens"]
        settings = [
            SamplingParams(
                temperature=wanted["temperature"],
                seed=seed if wanted["temperature"] else None,
                max_tokens=count,
                ignore_eos=True,
                stop_token_ids=[] if wanted["exact"] else [wanted["stop"]],
                detokenize=False,
            )
            for seed in wanted["seeds"]
        ]
        prompts = [{"prompt_token_ids": prompt} for prompt in wanted["prompts"]]
        outputs = self.model.generate(prompts, settings, use_tqdm=False)
        return [len(output.outputs[0].token_ids) for output in outputs]
