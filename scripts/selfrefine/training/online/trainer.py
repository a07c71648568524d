"""TRL's GRPOTrainer on this study's prompts, sampling and verdicts."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from selfrefine.engines import thoughts
from selfrefine.engines.interface import Completion, Request, seed_for
from selfrefine.engines.token_engine import TokenEngine
from selfrefine.models.processes import state
from selfrefine.schema.rows import Item
from selfrefine.schema.stages import RefineOnlineSettings
from selfrefine.store.files import naming_write_errors
from selfrefine.training.finite import check_number, check_trained
from selfrefine.training.online.log import spent
from selfrefine.training.online.prompts import Asked, PromptOrder
from selfrefine.training.online.sampling import LearningEngine
from selfrefine.training.resumption import ResumedAdapter

# Whether a completion's text answers an item correctly.
Verdict = Callable[[Item, str], bool]


class OnlineTrainer(ResumedAdapter, GRPOTrainer):
    """Samples groups of completions with the student's own weights, and rewards each by its verdict.

    A row of the training data is an item's id. Its prompt is tokenised here already: TRL's own encoding would add a
    second BOS token. Completions are sampled by seeds of their own, so that what is sampled follows from the weights,
    the item and the update alone.
    """

    def __init__(self, *, settings: RefineOnlineSettings, asked: Asked, verdict: Verdict, **options: Any):
        self._settings, self._asked, self._verdict = settings, asked, verdict
        self._names: list[str] = []
        self._completions: list[Completion] = []
        self._tokens = {"sampled_tokens": 0, "trained_tokens": 0}
        # TRL would load the reference from where the model's configuration came from: the base model, even where an
        # adapter was merged into the student.
        whole = settings.training.method == "full" and settings.online.kl > 0
        reference = copy.deepcopy(options["model"]).eval().requires_grad_(False) if whole else None
        super().__init__(reward_funcs=[self.reward], **options)
        if reference is not None:
            add_fused_lm_head(reference, temperature=self.temperature)
            self.beta, self.ref_model = (
                settings.online.kl,
                self.accelerator.prepare_model(reference, evaluation_mode=True),
            )
        model, tokenizer = self.accelerator.unwrap_model(self.model), self.processing_class
        self._reader: TokenEngine
        if self.use_vllm or settings.batch_size is None:
            self._reader = TokenEngine(tokenizer, model.config, model.generation_config, {}, "")
        else:
            self._reader = LearningEngine(model, tokenizer, settings.batch_size)

    # What is asked, and in what order.

    def _get_train_sampler(self, dataset: Any = None) -> PromptOrder:
        passes = self.num_iterations * self.args.steps_per_generation
        return PromptOrder(
            items=len(self.train_dataset),
            prompts=self.args.generation_batch_size // self.num_generations,
            group=self.num_generations,
            samplings=-(-self.args.max_steps // self.num_iterations),
            passes=passes,
            seed=self.args.seed,
        )

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        self._names = prompts
        return [self._asked.prompts[name] for name in prompts], None, {}

    # What is sampled.

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], images: Any, fields: Any, num_generations: int, *_: Any, **__: Any
    ) -> tuple[list[list[int]], Any]:
        update, first = self.state.global_step, self.accelerator.process_index * len(prompt_ids)
        if not isinstance(self._reader, LearningEngine):
            # No seed: TRL gives all requests the same one, and the completions of a group would be the same.
            self.vllm_generation.generation_kwargs["stop"] = self._settings.stop or None
            return super()._generate_single_turn(prompt_ids, images, fields, num_generations)
        seeds = [
            seed_for(name, self.args.seed, f"update{update}", number) for number, name in enumerate(self._names, first)
        ]
        generation = self._settings.online.generation
        return self._reader.sample(prompt_ids, seeds, generation, self._settings.stop), None

    def _generate(self, prompts: list[str]) -> tuple[Any, ...]:
        prompt_ids, completion_ids, _, *rest = super()._generate(prompts)
        self._completions = [
            self._completion(ids, prompt) for ids, prompt in zip(completion_ids, prompt_ids, strict=True)
        ]
        self._tokens["sampled_tokens"] += sum(map(len, completion_ids))
        learned = [self._settings.online.learn_cut or one.finish_reason == "stop" for one in self._completions]
        # TRL's own mask takes an answer that ended at a stop string for one that was cut.
        mask = [[int(learns)] * len(ids) for learns, ids in zip(learned, completion_ids, strict=True)]
        return prompt_ids, completion_ids, mask, *rest

    def _completion(self, ids: list[int], prompt: list[int]) -> Completion:
        """A completion as other stages read it."""
        settings = self._settings
        made = self._reader.finish(ids, prompt, settings.stop)
        asked = Request("", [], settings.online.generation, thinking=settings.thinking)
        return thoughts.finished(asked, made, None)

    # What is rewarded and learned.

    def reward(self, prompts: list[str], **_: Any) -> list[float]:
        """1 for each correct completion, 0 for the others."""
        pairs = zip(prompts, self._completions, strict=True)
        return [float(self._verdict(self._asked.items[name], one.text)) for name, one in pairs]

    def _calculate_rewards(self, *positional: Any) -> torch.Tensor:
        rewards = super()._calculate_rewards(*positional)
        groups = rewards[:, 0].view(-1, self.num_generations)
        metrics = self._metrics["train"]
        metrics["groups"].append(len(groups))
        metrics["groups_varied"].append((groups.amax(1) > groups.amin(1)).sum().item())
        cut = torch.tensor([one.finish_reason != "stop" for one in self._completions], device=rewards.device)
        metrics["cut"].append(self.accelerator.gather(cut).float().mean().item())
        return rewards

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        self._tokens["trained_tokens"] += int(inputs["prompt_mask"].sum() + inputs["completion_mask"].sum())
        return super()._compute_loss(model, inputs)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """One micro-batch's loss, its gradients left in the parameters."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        check_number(float(loss), "loss", self.state.global_step + 1)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        check_number(float(norm), "gradient norm", self.state.global_step + 1)
        return norm

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        check_trained(model, self.state.global_step)
        with naming_write_errors(Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")):
            super()._save_checkpoint(model, trial)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs an update, with the tokens that were sampled for it and that passed in it on all processes."""
        if "loss" in logs:
            own = torch.tensor([*self._tokens.values()], device=self.accelerator.device)
            for name, number in zip(self._tokens, self.accelerator.reduce(own).tolist(), strict=True):
                self._metrics["train"][name] = [number]
                self._tokens[name] = 0
        super().log(logs, start_time)


class Budget(TrainerCallback):
    """Ends training with the update by which sampled and trained tokens reach a budget."""

    def __init__(self, tokens: int):
        self._tokens = tokens

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        """Called after each update."""
        if sum(spent(state.log_history).values()) >= self._tokens:
            # The last update is not kept to go on from: there is nothing to go on with.
            control.should_training_stop, control.should_save = True, False
        return control


def online_config(arguments: dict[str, Any], settings: RefineOnlineSettings, updates: int, memory: float) -> GRPOConfig:
    """The trainer's arguments; `memory` is the share of a GPU that vLLM takes beside the training."""
    online, training = settings.online, settings.training
    arguments = {name: value for name, value in arguments.items() if name != "max_length"}
    every = -(-min(training.save_every, updates) // online.iterations) * online.iterations
    # A reference of whole weights is made by the trainer above.
    kl = online.kl if training.method == "lora" else 0.0
    vllm = {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": memory}
    return GRPOConfig(
        **arguments,
        **(vllm if settings.engine == "vllm" else {}),
        gradient_accumulation_steps=training.batch_size // (training.micro_batch_size * state().num_processes),
        warmup_steps=training.warmup_steps,
        # What is kept to go on from lies between two samplings.
        save_steps=every,
        num_generations=online.group,
        max_completion_length=online.generation.max_tokens,
        temperature=online.generation.temperature,
        top_p=online.generation.top_p,
        beta=kl,
        epsilon=online.clip,
        epsilon_high=online.clip_above,
        num_iterations=online.iterations,
        scale_rewards=online.scale,
        loss_type=online.loss,
        # The same weights must give the same log-probabilities in sampling, as reference and as student.
        disable_dropout=True,
        remove_unused_columns=False,
    )
