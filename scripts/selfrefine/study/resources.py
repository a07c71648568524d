"""The GPUs, memory and time that a job takes of a cluster, estimated from its model's size.

The model is taken for a dense transformer of the usual proportions: 12 x layers x width^2 parameters, each layer's
heads 128 wide and as many of them as there are layers. For Llama-2 that gives layers x width within 4 % of the actual
value. Memory is in GB of 10^9 bytes.
"""

import math
from typing import NamedTuple

from selfrefine.errors import UserError

GB = 1e9
BYTES = {"bfloat16": 2.0, "float16": 2.0, "float32": 4.0}
# Of one layer, per token and unit of width, kept for the backward pass at two bytes a number; attention keeps no matrix
# (Korthikanti et al. 2022, arXiv 2205.05198, equation 2 without its second term).
LAYER_BYTES = 34
# What a LoRA adds to it: peft keeps the input of each of a layer's seven adapted matrices in float32, a copy for each, six
# of them as wide as the layer and that of `down_proj` 8/3 times (peft/tuners/lora/layer.py, `_cast_input_dtype`).
LORA_LAYER_BYTES = (6 + 8 / 3) * 4
# Of one layer while it reads a prompt, likewise: its input twice, and three numbers of an MLP that is 8/3 as wide.
READING_BYTES = 2 * 2 + 3 * 8 / 3 * 2
# Of the logits, per token and entry of the vocabulary: at two bytes, in float32, and their gradient.
LOGIT_BYTES = 2 + 4 + 4
# Of a weight of QLoRA's four bits, with its share of the doubly quantised constants (arXiv 2305.14314, section 3).
PACKED_BYTES = 0.5 + 0.127 / 8
# Of a parameter that is trained: in float32 itself, its gradient, and AdamW's two states.
TRAINED_BYTES = 16
# A LoRA of rank 1 on all linear layers of a layer, per unit of width: q, k, v, o (2 each), and three of the MLP,
# which is 8/3 as wide (11/3 each).
LORA_PARAMETERS = 4 * 2 + 3 * 11 / 3
# Of a parameter in the host while a checkpoint is gathered from several GPUs: itself in float32, and its optimizer
# state.
GATHERED_BYTES = 12
# Python, the libraries and CUDA's own memory in the host.
HOST_GB = 4.0


class Size(NamedTuple):
    """A model's size: parameters, and those that a token meets, in billions; entries of its vocabulary; key-value heads
    over attention heads."""

    parameters: float
    active: float
    vocabulary: int = 150_000
    kv_share: float = 1.0

    @property
    def layers(self) -> float:
        """The layers that a dense model of as many active parameters has."""
        return (self.active * 1e9 / (12 * 128**2)) ** (1 / 3)

    @property
    def width(self) -> float:
        """The width of its layers."""
        return 128 * self.layers

    def lora(self, rank: int) -> float:
        """The parameters, in billions, of a LoRA on all linear layers."""
        return LORA_PARAMETERS * self.layers * self.width * rank / 1e9


class Memory(NamedTuple):
    """GB on the GPUs: what they hold between them, and what each must hold for itself."""

    divided: float
    each: float

    @property
    def total(self) -> float:
        """GB where there is one GPU, or none."""
        return self.divided + self.each

    @property
    def whole(self) -> "Memory":
        """The same where nothing is divided: each GPU holds all of it."""
        return Memory(0.0, self.total)


def generating(size: Size, number_bytes: float, rows: int, prompt: int, written: int) -> Memory:
    """To decode `rows` sequences at once, of `written` tokens after `prompt` others: weights, KV cache, one layer's
    prefill.

    `number_bytes` is what a parameter, or a number of the KV cache, takes.
    """
    cache = rows * (prompt + written) * 2 * size.layers * size.width * size.kv_share * number_bytes
    reading = rows * prompt * READING_BYTES * size.width * number_bytes / 2
    return Memory(size.parameters * number_bytes + cache / GB, reading / GB)


def scoring(size: Size, number_bytes: float, tokens: int) -> Memory:
    """To read `tokens` at once and keep each layer's output and the logits."""
    kept = size.layers * size.width + READING_BYTES / 2 * size.width + size.vocabulary
    return Memory(size.parameters * number_bytes, tokens * kept * number_bytes / GB)


def training(
    size: Size,
    number_bytes: float,
    weight_bytes: float,
    trained: float,
    tokens: int,
    checkpointing: bool,
    lora: bool = False,
) -> Memory:
    """To train: weights at `weight_bytes` each, `trained` billions of parameters with optimizer state, activations.

    `tokens` are those of one forward pass, `number_bytes` what an activation takes; `checkpointing` keeps each layer's
    input alone and computes the rest again; `lora`: what is trained is an adapter on all of a layer's matrices.
    """
    width = size.width * number_bytes / 2
    layer = LAYER_BYTES * width + (LORA_LAYER_BYTES * size.width if lora else 0.0)
    kept = size.layers * 2 * width + layer if checkpointing else size.layers * layer
    activations = tokens * (kept + LOGIT_BYTES * size.vocabulary)
    return Memory(size.parameters * weight_bytes + trained * TRAINED_BYTES, activations / GB)


def gpus(
    memory: Memory, each: float, usable: float, most: int, evenly: bool = False, key: str = "cluster.gpus_per_node"
) -> int:
    """How many GPUs of `each` GB hold a job, if a share `usable` of their memory can be filled; `UserError` above
    `most`.

    `evenly`: a power of two, as a model's attention heads can be divided. `key`: what sets `most`.
    """
    room = each * usable - memory.each
    if room <= 0:
        raise UserError(
            f"each GPU must hold {memory.each:.1f} GB, and one of {each:g} GB has {each * usable:.1f} free; lower "
            "micro_batch_size, max_length or batch_size, set gradient_checkpointing, train with `quantisation: nf4`, "
            "or, with `method: full`, on more GPUs (cluster.gpus_to_train)"
        )
    needed = max(math.ceil(memory.divided / room), 1)
    if evenly:
        needed = 2 ** math.ceil(math.log2(needed))
    if needed > most:
        raise UserError(
            f"it takes {memory.divided:.1f} GB, and {memory.each:.1f} GB on each GPU: {needed} GPUs of {each:g} GB, "
            f"and there are {most} ({key}); use more or larger GPUs, or a smaller batch"
        )
    return needed


def host_mb(weights: float, attempt: int) -> int:
    """The host's memory for a job in MB; `weights` are the GB that pass through it on their way to the GPUs."""
    return math.ceil((HOST_GB + weights) * attempt * 10) * 100


def minutes(hours: float, factor: float, attempt: int, longest: float) -> int:
    """A job's time limit: `factor` times the estimated `hours`, in tens of minutes, at most `longest` hours."""
    return int(min(math.ceil(hours * 60 * factor * attempt / 10) * 10, longest * 60))
