"""Checks that an adapter, merged as evaluation merges it, is the model that was trained."""

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase

from selfrefine.errors import UserError
from selfrefine.schema.generation import Dtype
from selfrefine.training.packing import NAME

# The largest mean difference between log-probabilities, relative to their mean or, if that is larger, to 1. Merged
# weights are rounded to the student's dtype, and the sums of an adapter beside them are not.
TOLERANCE = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.1}
BATCH = ("The answer is 5.", "Question: Ann has 3 apples and buys 4. How many apples has she now?\nAnswer: 7")


def check_agreement(model: PeftModel, tokenizer: PreTrainedTokenizerBase, dtype: Dtype) -> None:
    """Merges an adapter into the weights below it, which nobody may use any more; `UserError` if that changes it.

    Packed weights are left out: merging would round them to four bits again, which evaluation does not.
    """
    if getattr(model.get_base_model(), "is_loaded_in_4bit", False):
        return
    _without_our_kernels(model)
    was_training = model.training
    model.eval()
    trained = _log_probs(model, tokenizer)
    model.merge_adapter()
    for module in model.modules():
        if hasattr(module, "get_base_layer"):
            weight = module.get_base_layer().weight
            weight.data = weight.data.to(getattr(torch, dtype)).to(weight.dtype)
    evaluated = _log_probs(model, tokenizer)
    model.train(was_training)
    apart = (trained - evaluated).abs().mean().item()
    allowed = TOLERANCE[dtype] * max(trained.abs().mean().item(), 1.0)
    if not apart <= allowed:
        raise UserError(
            f"the adapter, merged into the weights as evaluation merges it, is another model: log-probabilities differ "
            f"by {apart:.3g} on average, {allowed:.3g} is allowed with dtype {dtype}; leave modules that share weights "
            "out of `lora.targets`, or lower `learning_rate` if training diverged"
        )


def _without_our_kernels(model: PeftModel) -> None:
    """Gives modules back the forward passes of their classes; those that training put in know no merged adapters."""
    for module in model.modules():
        vars(module).pop("forward", None)
    base = model.get_base_model()
    if base.config._attn_implementation == NAME:
        base.set_attn_implementation("eager")


@torch.no_grad()
def _log_probs(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Log-probabilities [tokens, vocabulary] after each token of the batch, one text after the other."""
    device = next(model.parameters()).device
    found = []
    for text in BATCH:
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]], device=device)
        found.append(model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1))
    return torch.cat(found)
