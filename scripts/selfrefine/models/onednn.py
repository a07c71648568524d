"""Linear layers multiplied by oneDNN, where that is faster than what torch calls by itself.

torch hands float32 products to MKL. On AMD's processors MKL leaves AVX-512 idle, so oneDNN is 2.3 times as fast there;
with AVX2 alone it is 1.15 times as fast. For few rows, weights in oneDNN's own order gain more. The sums are the same
but for rounding. We call the operators that torch's compiler emits (torch/_inductor/mkldnn_ir.py), because torch 2.13
gives them no public name. Where they are missing or slower, layers stay as they are.
"""

import functools

import torch

from selfrefine.models.compute import ONEDNN_GAIN, PRODUCT, best_seconds


def _product(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """rows [..., inner] times weight [outer, inner] transposed, by oneDNN; `weight` plain or in oneDNN's order."""
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")


class PackedLinear(torch.nn.Linear):
    """A linear layer for generation with its weights in oneDNN's own order only: it cannot be saved or trained."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As `torch.nn.Linear`."""
        return _product(input, self.packed, self.bias)


def multiply(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """rows [..., inner] times weight [outer, inner] transposed, for layers that compute their own gradients."""
    if (
        rows.device.type == "cpu"
        and rows.dtype == weight.dtype == torch.float32
        and _is_faster(rows.dtype, packed=False)
    ):
        return _product(rows, weight, bias)
    return torch.nn.functional.linear(rows, weight, bias)


def pack(model: torch.nn.Module, rows: int) -> None:
    """Puts a model's linear weights into oneDNN's order for generation, where faster; `rows` in a usual product.

    It goes layer by layer, so that memory never holds two copies of the model. An embedding that shares its weight
    keeps it.
    """
    tied = {weight.data_ptr() for weight in _embeddings(model)}
    for layer in _layers(model, torch.float32, torch.bfloat16):
        if _is_faster(layer.weight.dtype, packed=True):
            layer.packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows)
            layer.__class__ = PackedLinear
            if layer.weight.data_ptr() not in tied:
                layer.weight = torch.nn.Parameter(layer.weight.new_empty(0), requires_grad=False)


def _layers(model: torch.nn.Module, *dtypes: torch.dtype) -> list[torch.nn.Linear]:
    """The plain linear layers on the CPU with weights of these dtypes."""
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
    if _is_faster(dtype, packed=True):
        product = functools.partial(_product, left, torch.ops.mkldnn._reorder_linear_weight(right, rows))
    return best_seconds(product, threads=torch.get_num_threads())[0]


@functools.cache
def _is_faster(dtype: torch.dtype, packed: bool) -> bool:
    """Whether oneDNN multiplies weights of a dtype faster than torch does by itself; False where it cannot."""
    rows, inner, outer = PRODUCT
    left, right = torch.ones(rows, inner, dtype=dtype), torch.ones(outer, inner, dtype=dtype)
    try:
        with torch.inference_mode():
            weight = torch.ops.mkldnn._reorder_linear_weight(right, rows) if packed else right
            plain, other = best_seconds(lambda: torch.nn.functional.linear(left, right), lambda: _product(left, weight))
    except (AttributeError, NotImplementedError, RuntimeError):  # the operator, or its kernel here, is missing
        return False
    return other * ONEDNN_GAIN < plain
