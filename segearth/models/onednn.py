"""Matrix products by oneDNN, with the activation inside and the weights in its own layout.

torch takes oneDNN for bfloat16 alone, although it is faster in float32 too (docs/performance.md). The operators are
those that torch.compile emits; where they are missing or cannot serve, torch's own product is taken.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

DTYPES = (torch.float32, torch.bfloat16)
ACTIVATIONS = {'none': lambda values: values, 'gelu': F.gelu, 'swish': F.silu}
"""What may follow a product, by oneDNN's names."""

_packed: WeakIdKeyDictionary = WeakIdKeyDictionary()  # weight -> (its state, copy in oneDNN's layout)


def linear(
    inputs: Tensor, weight: Tensor, bias: Tensor | None, activation: str = 'none', weight_factor: float = 1.0
) -> Tensor:
    """``activation(inputs @ (weight_factor * weight).T + bias)``: (..., I) by (O, I) -> (..., O).

    A weight that needs no gradient is kept a second time in oneDNN's layout, until it changes or is gone.

    Args:
        inputs: Of the weight's dtype, except under autocast.
        weight: See above.
        bias: (O,) or None.
        activation: A name of :data:`ACTIVATIONS`.
        weight_factor: Finite.
    """
    if not serves(inputs, weight):
        return ACTIVATIONS[activation](F.linear(inputs, _scale(weight, weight_factor), bias))
    rows = inputs.numel() // max(inputs.shape[-1], 1)
    packed = _pack(weight, weight_factor, rows)
    return torch.ops.mkldnn._linear_pointwise(inputs, packed, bias, activation, [], 'none')


def serves(inputs: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN computes this product: on CPUs, without gradients and autocast, in one of :data:`DTYPES`."""
    return (
        inputs.device.type == 'cpu'
        and inputs.dtype == weight.dtype
        and inputs.dtype in DTYPES
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled('cpu')
        and torch.backends.mkldnn.enabled
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, '_linear_pointwise')
    )


def _pack(weight: Tensor, factor: float, rows: int) -> Tensor:
    if weight.requires_grad or weight.is_inference():  # a training may change it, or nobody counts its changes
        return _scale(weight, factor)
    state = weight._version, weight.data_ptr(), factor
    known, packed = _packed.get(weight, (None, None))
    if known != state:
        packed = torch.ops.mkldnn._reorder_linear_weight(_scale(weight, factor), rows)
        _packed[weight] = state, packed
    return packed


def _scale(weight: Tensor, factor: float) -> Tensor:
    return weight if factor == 1 else weight * factor
