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
from selfrefine.files import digest, read_json, write_json
from selfrefine.models import Quantisation, load_model
from selfrefine.preferences import Objective
from selfrefine.processes import agreed, state
from selfrefine.prompts import Prompt
from selfrefine.provenance import Run

# What marks a checkpoint whose weights several processes had shared out.
GATHERED = "pytorch_model_fsdp.bin"


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
    method: Literal["lora", "full"] = Field("lora", description="An adapter on frozen weights [R], or all weights.")
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
    quantisation: Quantisation = "none"
    share: int = Field(100, gt=0, le=100, description="Percent of the demonstrations.")
    seed: int = 0
    training: InstructSettings = InstructSettings()


class RefineRecipe(BaseModel):
    """What the refine stage reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Prompt
    system: str | None = None
    dtype: str = Field("bfloat16", pattern="^(bfloat16|float16|float32)$")
    quantisation: Quantisation = "none"
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


class EpochOrder:
    """The order of the examples in each epoch, from the seed and the epoch alone.

    So a resumed run and one on another number of GPUs learn from the same examples at each update. `lengths`, one per
    example, sets examples of similar length side by side, in groups that make up an update.
    """

    def __init__(self, examples: int, batch_size: int, seed: int, lengths: list[int] | None = None):
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.lengths = lengths
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.examples

    def __iter__(self):
        import torch
        from transformers.trainer_pt_utils import get_length_grouped_indices

        generator = torch.Generator().manual_seed(int(digest([self.seed, self.epoch]), 16))
        if self.lengths:
            return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=generator))
        return iter(torch.randperm(self.examples, generator=generator).tolist())


class ShardedAlike:
    """Has a TRL trainer learn from shared-out weights (FSDP) what it learns from whole ones.

    The reference's likelihoods are the policy's own before its first update, while its weights are whole on each GPU; TRL
    would load a model for them, from the folder that the weights' configuration names: the base model's, even where an
    adapter was merged into the policy. And the forward pass is autocast, as it is without FSDP: accelerate would round the
    weights that it gathers, and the log-probabilities that come out, to bfloat16.
    """

    _built = False

    def __init__(self, *positional, **options):
        super().__init__(*positional, **options)
        self._built = True
        if self._sharded:
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = None

    @property
    def is_fsdp_enabled(self) -> bool:
        """What the trainers ask before they decide on a reference, and again when they share out the weights."""
        return self._built and self._sharded

    @is_fsdp_enabled.setter
    def is_fsdp_enabled(self, sharded: bool) -> None:
        self._sharded = sharded

    def autocast_smart_context_manager(self, *positional, **options):
        """Around each forward pass; without FSDP, accelerate has wrapped the model's own."""
        return (
            self.accelerator.autocast()
            if self.is_fsdp_enabled
            else super().autocast_smart_context_manager(*positional, **options)
        )


def common_arguments(settings: Optimisation, scratch: Path, seed: int, steps: int, dtype: str) -> dict:
    """The trainer arguments that both stages share. `steps` is the number of updates of a full run.

    The examples of an update are shared out among the processes; `UserError` if they cannot be.
    """
    import torch

    processes = state().num_processes
    if settings.batch_size % (settings.micro_batch_size * processes):
        raise UserError(
            f"batch_size {settings.batch_size} cannot be shared out among {processes} processes in micro-batches of "
            f"{settings.micro_batch_size}; set a `micro_batch_size` that divides {settings.batch_size} / {processes}"
        )
    return {
        "output_dir": str(scratch),
        "per_device_train_batch_size": settings.micro_batch_size,
        "max_steps": steps,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "lr_scheduler_type": settings.schedule,
        "max_grad_norm": settings.max_grad_norm,
        "max_length": None,
        "gradient_checkpointing": settings.gradient_checkpointing,
        # An adapter's float32 weights lie on frozen ones of the student's dtype, which decides in what is computed. Where all
        # weights learn, they are kept in float32, which sees the small updates, and computed with in the dtype.
        "bf16": settings.method == "full" and dtype == "bfloat16",
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
        "ddp_find_unused_parameters": False,
        # Checkpoints are gathered first: with those that each process writes a part of, transformers 5.19 looks for the best
        # one before its folder is there, so that some processes miss it (Trainer._save_checkpoint).
        **({"fsdp": True, "fsdp_config": {"state_dict_type": "FULL_STATE_DICT"}} if sharded(settings) else {}),
    }


def sharded(settings: Optimisation) -> bool:
    """Whether weights, gradients and moments are shared out among the processes (FSDP): where all weights learn, and on several GPUs.

    An adapter's are small, and the frozen weights below it are packed or fit on each GPU.
    """
    return settings.method == "full" and state().num_processes > 1


def load_for_training(folder: Path, adapter: Path | None, recipe: InstructRecipe | RefineRecipe):
    """The model to train: a base model, one with the adapter it goes on from, or, in full, its weights in float32."""
    from peft import PeftModel

    if recipe.training.method == "full":
        model = load_model(folder, "float32", training=True)
        # An adapter freezes the weights below it.
        return PeftModel.from_pretrained(model, adapter).merge_and_unload().requires_grad_() if adapter else model
    model = load_model(folder, recipe.dtype, recipe.quantisation, training=True)
    # A PeftModel without a peft_config makes TRL's trainers keep a frozen copy of the adapter as the reference; with a
    # peft_config the reference would be the base model.
    return PeftModel.from_pretrained(model, adapter, is_trainable=True) if adapter else model


def training_seconds(history: list[dict]) -> float:
    """The seconds of the last run's updates and looks at the validation loss, loading and saving left out."""
    return sum(entry.get("train_runtime", 0.0) for entry in history)


def trainable(model) -> dict:
    """Copies of an adapter's weights, by name."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if ".lora_" in name}


def restore_precision(model, adapter: dict) -> None:
    """Undoes TRL's rounding of an adapter to bfloat16 where the weights below are packed.

    At the learning rates of preference optimisation an update of bfloat16 weights rounds to nothing, and the student would
    not start at its reference. TRL rounds since PEFT offers no choice there: https://github.com/huggingface/peft/issues/2889
    """
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            weight.data = adapter.get(name, weight.data).float()


def on_one_gpu(arguments):
    """A trainer's arguments, its process kept to one GPU where it sees several.

    The trainer would divide each batch among them, which TRL refuses (it names `CUDA_VISIBLE_DEVICES`, which would have to be
    set anew for each job).
    """
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def shared_dataset(rows: list[dict], folder: Path):
    """Examples as a dataset in files, so that what a trainer caches beside them is seen by all processes."""
    from datasets import Dataset, load_from_disk

    if state().is_main_process:
        shutil.rmtree(folder, ignore_errors=True)
        Dataset.from_list(rows).save_to_disk(folder)
    state().wait_for_everyone()
    return load_from_disk(folder)


def open_scratch(scratch: Path, run: Run) -> None:
    """Makes the trainer's folder ready; what another recipe, other code or other inputs left there is removed."""
    if run.leads:
        _clear_foreign(scratch, run)
    state().wait_for_everyone()


def _clear_foreign(scratch: Path, run: Run) -> None:
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
    checkpoint = agreed(last_checkpoint(scratch) if state().is_main_process else None)
    if checkpoint and (checkpoint / GATHERED).exists() != trainer.is_fsdp_enabled:
        raise UserError(
            f"{checkpoint}: was kept by a training that {'did not share' if trainer.is_fsdp_enabled else 'shared'} out its "
            "weights among several cards; set `cluster.gpus_to_train` as it was, or delete the folder to begin anew"
        )
    if checkpoint:
        print(f"going on from {checkpoint.name}", flush=True)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.state.global_step != steps:
        raise UserError(
            f"training stopped at update {trainer.state.global_step} of {steps}; run again to go on from its last checkpoint"
        )
    return trainer.state.log_history


def tokens_passed(history: list[dict]) -> dict[str, int]:
    """Tokens from the trainer's log, where the counts start anew when a run is resumed.

    `tokens_seen` are those of the examples, as plain TRL counts them: of a pair, the prompt twice. `tokens_computed` are those
    that passed through the model: padding counts, what texts begin with in common counts once.
    """
    totals = {}
    for name, logged in (("tokens_seen", "num_tokens"), ("tokens_computed", "computed_tokens")):
        totals[name] = last = 0
        for count in (entry[logged] for entry in history if logged in entry):
            totals[name] += int(count - last if count >= last else count)
            last = count
    return totals


def gathered(trainer) -> dict | None:
    """Whole weights that the processes have shared out among them, in the leading process; None where each has its own.

    All processes must come here.
    """
    return trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None


def save_trained(model, tokenizer, folder: Path, dtype: str, weights: dict | None = None) -> list[str]:
    """Writes an adapter, or whole weights with their tokenizer, into a checkpoint's folder; the names of the files.

    `weights`: those of the model where it holds a part of them only.
    """
    import torch
    from peft import PeftModel

    scratch = folder / ".trained"
    shutil.rmtree(scratch, ignore_errors=True)
    if isinstance(model, PeftModel):
        model.save_pretrained(scratch, selected_adapters=["default"], safe_serialization=True)
        (scratch / "README.md").unlink(missing_ok=True)
        # PEFT writes the set of target modules in an order that changes from run to run; sorted, equal adapters are equal bytes.
        config = read_json(scratch / "adapter_config.json")
        if isinstance(config["target_modules"], list):
            config["target_modules"].sort()
        write_json(scratch / "adapter_config.json", config)
    else:
        wanted = getattr(torch, dtype)
        whole = {name: weight.to(wanted) for name, weight in weights.items()} if weights else None
        model.to(wanted).save_pretrained(scratch, state_dict=whole)
        tokenizer.save_pretrained(scratch)
    names = sorted(path.name for path in scratch.iterdir())
    # Left here by another method, an adapter would be taken for this model's own, and weights lie there for nothing.
    for stale in (*folder.glob("adapter_*"), *folder.glob("model*.safetensors*")):
        stale.unlink()
    for name in names:
        (scratch / name).replace(folder / name)
    scratch.rmdir()
    return names
