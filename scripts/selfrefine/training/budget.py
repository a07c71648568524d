"""A budget of tokens for preference optimisation: sampled ones count, the rest is trained on."""

from collections.abc import Sequence
from pathlib import Path

from selfrefine.errors import UserError
from selfrefine.schema.optimisation import RefineTraining
from selfrefine.schema.rows import SampledPath
from selfrefine.training.batches import count_updates
from selfrefine.training.examples import Example


def within_budget(
    training: RefineTraining, examples: Sequence[Example], paths: Sequence[SampledPath], where: Path
) -> RefineTraining:
    """The hyper-parameters with as many epochs as pass the tokens that the sampled paths left of the budget.

    Training ends with the update that reaches it, at the mean number of tokens that an example has. `UserError` if
    sampling took all of it; `where` names the file of the paths.
    """
    if not training.tokens:
        return training
    sampled = sum(path["tokens"] for path in paths)
    if sampled >= training.tokens:
        raise UserError(
            f"{where}: holds {sampled:,} sampled tokens, and refine.tokens {training.tokens:,} leaves none to train on; "
            "raise it, or sample fewer or shorter paths"
        )
    of_epoch = count_updates(len(examples), training.batch_size, 1)
    updates = -(-(training.tokens - sampled) * of_epoch // sum(map(count_tokens, examples)))
    # Half an update less, which is rounded up: a float may be a little too large.
    return training.model_copy(update={"epochs": (updates - 0.5) / of_epoch})


def count_tokens(example: Example) -> int:
    """The tokens that pass in an update for an example: each response with its prompt, as TRL counts them."""
    lengths = {name: len(ids) for name, ids in example.items() if name.endswith("_ids") and isinstance(ids, list)}
    if "input_ids" in lengths:
        return lengths["input_ids"]
    prompt = lengths.pop("prompt_ids")
    return sum(prompt + length for length in lengths.values())
