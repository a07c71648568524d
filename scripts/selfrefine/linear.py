"""Linear layers that oneDNN multiplies, where the processor is faster so.

torch hands float32 products to MKL, which on AMD's processors leaves AVX-512 idle: there oneDNN is 2.3 times as fast, and
with AVX2 alone 1.15 times; with weights in its own order more again for few rows. The sums are the same but for rounding.
torch reaches it by the operators that its own compiler emits (torch/_inductor/mkldnn_ir.py), which torch 2.13 gives no
public name: where they are missing or slower, layers stay as they are.
"""

import functools

import torch

from selfrefine.computing import GAIN_OF_ORDER, PRODUCT, best_seconds


def _product(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """rows [..., inner] times weight [outer, inner] transposed, by oneDNN; `weight` plain or in oneDNN's order."""
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")


class PackedLinear(torch.nn.Linear):
    """A linear layer for generation, its weights in oneDNN's own order alone: it cannot be saved or trained."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As `torch.nn.Linear`."""
        return _product(input, self.packed, self.bias)


def multiply(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """rows [..., inner] times weight [outer, inner] transposed, for layers that compute their own gradients."""
    if rows.device.type == "cpu" and rows.dtype == weight.dtype == torch.float32 and _serves(rows.dtype, packed=False):
        return _product(rows, weight, bias)
    return torch.nn.functional.linear(rows, weight, bias)


def pack(model: torch.nn.Module, rows: int) -> None:
    """Puts a model's linear weights into oneDNN's order for generation, where that is faster; `rows` in a usual product.

    Layer by layer, so that no second copy of the model is held; an embedding that shares its weight keeps its own.
    """
    tied = {weight.data_ptr() for weight in _embeddings(model)}
    for layer in _layers(model, torch.float32, torch.bfloat16):
        if _serves(layer.weight.dtype, packed=True):
            layer.packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows)
            layer.__class__ = PackedLinear
            if layer.weight.data_ptr() not in tied:
                layer.weight = torch.nn.Parameter(layer.weight.new_empty(0), requires_grad=False)


def _layers(model: torch.nn.Module, *dtypes: torch.dtype) -> list[torch.nn.Linear]:
    """The plain linear layers on the processor with weights of these dtypes."""
    return [
        layer
        for layer in model.modules()
        if type(layer) is torch.nn.Linear and layer.weight.dtype in dtypes and layer.weight.device.type == "cpu"
    ]


def _embeddings(model: torch.nn.Module) -> list[torch.Tensor]:
    return [layer.weight for layer in model.modules() if isinstance(layer, torch.nn.Embedding)]


def best_product(dtype: torch.dtype) -> float:
    """Seconds of a product of PRODUCT's size with packed weights, or with plain ones where those are faster."""
    rows, inner, outer = PRODUCT
    left, right = torch.ones(rows, inner, dtype=dtype), torch.ones(outer, inner, dtype=dtype)
    product = functools.partial(torch.nn.functional.linear, left, right)
    if _serves(dtype, packed=True):
        product = functools.partial(_product, left, torch.ops.mkldnn._reorder_linear_weight(right, rows))
    return best_seconds(product, threads=torch.get_num_threads())[0]


@functools.cache
def _serves(dtype: torch.dtype, packed: bool) -> bool:
    """Whether oneDNN multiplies weights of a dtype faster than torch does by itself; False where it cannot."""
    rows, inner, outer = PRODUCT
    left, right = torch.ones(rows, inner, dtype=dtype), torch.ones(outer, inner, dtype=dtype)
    try:
        with torch.inference_mode():
            weight = torch.ops.mkldnn._reorder_linear_weight(right, rows) if packed else right
            plain, other = best_seconds(lambda: torch.nn.functional.linear(left, right), lambda: _product(left, weight))
    except (
        AttributeError,
        NotImplementedError,
        RuntimeError,
    ):  # the operator, or its kernel for this processor, is missing
        return False
    return other * GAIN_OF_ORDER < plain
