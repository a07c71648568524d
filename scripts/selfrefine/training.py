"""What the training stages read, and what they share: tokenised examples, checks, resumption, saving.

The hyper-parameters' defaults are the source paper's where it gives them ([P]), the first author's public script's for
LoRA ([R]), and marked as inferred ([I]) where neither says.
"""

import json
import math
import shutil
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from selfrefine.errors import UserError
from selfrefine.files import read_json, write_json
from selfrefine.preferences import Objective
from selfrefine.prompts import Prompt
from selfrefine.provenance import Run


class Lora(BaseModel):
    """A low-rank adapter's shape."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    r: int = Field(8, gt=0, description="[R]")
    alpha: float = Field(16, gt=0, description="[R]")
    dropout: float = Field(0.1, ge=0, lt=1, description="[R]")
    targets: str | list[str] = Field("all-linear", description="Module names, or all linear layers but the head.")


class Optimisation(BaseModel):
    """Settings of both training stages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: float = Field(2e-5, gt=0)
    weight_decay: float = Field(1e-4, ge=0, description="[P]")
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    batch_size: int = Field(
        128, gt=0, description="Examples per update, whatever the hardware. [I] for instruct, [P] for refine."
    )
    micro_batch_size: int = Field(8, gt=0, description="Examples per forward pass on one device; divides batch_size.")
    max_length: int = Field(1024, gt=0, description="Longer examples are dropped and counted, never cut.")
    max_grad_norm: float = Field(1.0, gt=0)
    gradient_checkpointing: bool = Field(False, description="Recompute activations: less memory, slower.")
    save_every: int = Field(
        50, gt=0, description="Updates between checkpoints; an interrupted run goes on from the last."
    )
    lora: Lora = Lora()

    @model_validator(mode="after")
    def _divides(self):
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size}"
            )
        return self


class InstructSettings(Optimisation):
    """Phase 1: supervised fine-tuning on demonstrations."""

    epochs: float = Field(4, gt=0, description="[P]")
    learning_rate: float = Field(2e-5, gt=0, description="[P]")
    warmup: float = Field(0.03, ge=0, le=1, description="Share of all updates. [P]")


class RefineSettings(Optimisation):
    """Phase 2: preference optimisation against the frozen starting checkpoint."""

    learning_rate: float = Field(1e-6, gt=0, description="[P]")
    epochs: float = Field(3, gt=0, description="At most max_steps all the same.")
    max_steps: int = Field(1000, gt=0, description="[P]")
    warmup_steps: int = Field(100, ge=0, description="[P]")
    beta: float = Field(0.1, gt=0, description="[I]")
    evaluate_every: int = Field(50, gt=0, description="Updates between looks at the validation loss.")


class InstructRecipe(BaseModel):
    """What the instruct stage reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Prompt
    style: Literal["cot", "plain"] = Field("cot", description="The prompt that the student learns to answer.")
    system: str | None = None
    dtype: str = Field("bfloat16", pattern="^(bfloat16|float16|float32)$")
    share: int = Field(100, gt=0, le=100, description="Percent of the demonstrations.")
    seed: int = 0
    training: InstructSettings = InstructSettings()


class RefineRecipe(BaseModel):
    """What the refine stage reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Prompt
    system: str | None = None
    dtype: str = Field("bfloat16", pattern="^(bfloat16|float16|float32)$")
    seed: int = 0
    objective: Objective = Objective()
    training: RefineSettings = RefineSettings()


def encode_completion(tokenizer, chat: list[dict[str, str]], text: str, finished: bool = True) -> list[int]:
    """The token ids that a model which wrote `text` in answer to `chat` would have made, its stop token last.

    The text is framed by the model's own chat template; what the template puts after the stop token is left out, since
    generation ends there. A text that was cut at max_tokens (`finished` False) has no stop token to learn.
    """
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*chat, {"role": "assistant", "content": text}], tokenize=False)
    if not whole.startswith(prompt):
        raise UserError(
            "the model's chat template does not render the prompt alone as the beginning of prompt and answer; "
            "training and generation would see different prompts: use a model with another template"
        )
    completion = whole[len(prompt) :]
    stop = tokenizer.eos_token
    completion = completion[: completion.rindex(stop)] if stop in completion else completion.rstrip("\n")
    ids = tokenizer(completion, add_special_tokens=False)["input_ids"]
    return ids + [tokenizer.eos_token_id] if finished else ids


def encode_prompt(tokenizer, chat: list[dict[str, str]]) -> list[int]:
    """A chat's token ids as the engines see them."""
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def check_example(ids: list[int], labels: list[int], prompt_length: int, tokenizer) -> None:
    """Refuses an example of which the prompt is learned, the stop token is not, or which begins twice.

    `ids` and `labels` are one sequence as the trainer batches it, without padding; -100 marks what is not learned.
    """
    if any(label != -100 for label in labels[:prompt_length]):
        raise UserError("training check: the prompt carries loss; the completion mask is wrong")
    if labels[prompt_length:] != ids[prompt_length:]:
        raise UserError("training check: the answer's labels are not its tokens")
    if ids[-1] != tokenizer.eos_token_id:
        raise UserError(
            f"training check: the last label is {tokenizer.decode(ids[-1:])!r}, not the stop token {tokenizer.eos_token!r}"
        )
    if len(ids) > 1 and tokenizer.bos_token_id is not None and ids[:2] == [tokenizer.bos_token_id] * 2:
        raise UserError(
            f"training check: the sequence begins twice with {tokenizer.bos_token!r}; template and tokenizer both add it"
        )


def lora_config(lora: Lora):
    """PEFT's configuration of an adapter."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets if isinstance(lora.targets, str) else sorted(lora.targets),
        task_type="CAUSAL_LM",
    )


def updates(examples: int, batch_size: int, epochs: float) -> int:
    """The number of optimiser updates of a full run: whole batches, a last partial batch included, in each epoch."""
    return math.ceil(epochs * math.ceil(examples / batch_size))


def common_arguments(settings: Optimisation, scratch: Path, seed: int, steps: int) -> dict:
    """The trainer arguments that both stages share. `steps` is the number of updates of a full run."""
    import torch

    return {
        "output_dir": str(scratch),
        "per_device_train_batch_size": settings.micro_batch_size,
        "gradient_accumulation_steps": settings.batch_size // settings.micro_batch_size,
        "max_steps": steps,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "lr_scheduler_type": settings.schedule,
        "max_grad_norm": settings.max_grad_norm,
        "max_length": None,
        "gradient_checkpointing": settings.gradient_checkpointing,
        # The weights' own dtype decides: under autocast the policy would be computed in another precision than the
        # reference log-probabilities, which TRL computes before training, outside of it.
        "bf16": False,
        "fp16": False,
        "logging_steps": 1,
        "logging_first_step": True,
        "save_strategy": "steps",
        "save_total_limit": 1,
        "seed": seed,
        "data_seed": seed,
        "report_to": "none",
        "disable_tqdm": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
    }


def open_scratch(scratch: Path, run: Run) -> None:
    """Makes the trainer's folder ready; what another recipe, other code or other inputs left there is removed."""
    mark = scratch / "identity.json"
    inputs = {path: state.sha256 for path, state in run.inputs.items()}
    identity = {"recipe": run.recipe, "code": run.code, "inputs": inputs}
    if not mark.exists() or read_json(mark) != json.loads(json.dumps(identity)):
        shutil.rmtree(scratch, ignore_errors=True)
        write_json(mark, identity)


def last_checkpoint(scratch: Path) -> Path | None:
    """The newest whole trainer checkpoint; half-written ones are removed.

    The trainer writes `trainer_state.json` last, so a checkpoint without a readable one was torn by a kill.
    """
    whole = []
    for folder in scratch.glob("checkpoint-*"):
        try:
            step = json.loads((folder / "trainer_state.json").read_text())["global_step"]
        except (OSError, ValueError, KeyError):
            shutil.rmtree(folder)
            continue
        whole.append((step, folder))
    return max(whole)[1] if whole else None


def run_to_the_end(trainer, scratch: Path, steps: int) -> list[dict]:
    """Trains, going on from the last whole checkpoint; the log, one entry per update.

    `UserError` if training stopped before its last update: a half-trained model must not pass for a finished one.
    """
    checkpoint = last_checkpoint(scratch)
    if checkpoint:
        print(f"going on from {checkpoint.name}", flush=True)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.state.global_step != steps:
        raise UserError(
            f"training stopped at update {trainer.state.global_step} of {steps}; run again to go on from its last checkpoint"
        )
    return trainer.state.log_history


def tokens_seen(history: list[dict]) -> int:
    """The tokens that passed through the model, from the trainer's log; its count starts anew where a run was resumed."""
    total = last = 0
    for count in (entry["num_tokens"] for entry in history if "num_tokens" in entry):
        total += count - last if count >= last else count
        last = count
    return int(total)


def save_adapter(model, folder: Path) -> list[str]:
    """Writes the trained adapter into a checkpoint's folder, each file whole; the names of the files."""
    scratch = folder / ".adapter"
    shutil.rmtree(scratch, ignore_errors=True)
    model.save_pretrained(scratch, selected_adapters=["default"], safe_serialization=True)
    # PEFT writes the set of target modules in an order that changes from run to run; sorted, equal adapters are equal bytes.
    config = read_json(scratch / "adapter_config.json")
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    write_json(folder / "adapter_config.json", config)
    (scratch / "adapter_model.safetensors").replace(folder / "adapter_model.safetensors")
    shutil.rmtree(scratch)
    return ["adapter_config.json", "adapter_model.safetensors"]
