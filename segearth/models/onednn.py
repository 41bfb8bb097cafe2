"""Matrix products by oneDNN, with the activation inside and the weights in its own layout.

torch takes oneDNN for bfloat16 alone, although it is faster in float32 too (docs/performance.md). The operators are
those that torch.compile emits, and private: they prove themselves once for each dtype (:mod:`simfeatup.proof`). Where
they are missing, fail or cannot serve, torch's own product is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from simfeatup.proof import FastPath, pattern

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
"""Dtype -> largest difference from torch's product, as a share of the largest number."""
ONEDNN = FastPath("oneDNN's own operators", 'SEGEARTH_ONEDNN', "torch's products, slower")
ACTIVATIONS = {'none': lambda values: values, 'gelu': F.gelu, 'swish': F.silu}
"""What may follow a product, by oneDNN's names."""

_packed: WeakIdKeyDictionary = WeakIdKeyDictionary()  # weight -> (its state, copy in oneDNN's layout)


def linear(
    inputs: Tensor, weight: Tensor, bias: Tensor | None, activation: str = 'none', weight_factor: float = 1.0
) -> Tensor:
    """``activation(inputs @ (weight_factor * weight).T + bias)``: (..., I) by (O, I) -> (..., O).

    A weight that needs no gradient is kept a second time in oneDNN's layout, until it changes or is gone. The inputs
    have its dtype, except under autocast; ``activation`` is a name of :data:`ACTIVATIONS`.
    """
    arguments = inputs, weight, bias, activation, weight_factor
    if not _may_serve(inputs, weight):
        return _plain(*arguments)
    dtype = inputs.dtype
    fast, plain = partial(_fast, *arguments), partial(_plain, *arguments)
    return ONEDNN.run((dtype,), partial(_prove, dtype), fast, plain, TOLERANCES[dtype])


def serves(inputs: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN computes this product: on CPUs, without gradients and autocast, in a dtype that it has proved."""
    dtype = inputs.dtype
    return _may_serve(inputs, weight) and ONEDNN.works((dtype,), partial(_prove, dtype), TOLERANCES[dtype])


def _may_serve(inputs: Tensor, weight: Tensor) -> bool:
    return bool(
        inputs.device.type == 'cpu'
        and inputs.dtype == weight.dtype
        and inputs.dtype in TOLERANCES
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled('cpu')
        and torch.backends.mkldnn.enabled
        and torch.backends.mkldnn.is_available()
    )


def _fast(inputs: Tensor, weight: Tensor, bias: Tensor | None, activation: str, factor: float) -> Tensor:
    packed = _pack(weight, factor, rows=inputs.numel() // max(inputs.shape[-1], 1))
    return torch.ops.mkldnn._linear_pointwise(inputs, packed, bias, activation, [], 'none')


def _plain(inputs: Tensor, weight: Tensor, bias: Tensor | None, activation: str, factor: float) -> Tensor:
    return ACTIVATIONS[activation](F.linear(inputs, _scale(weight, factor), bias))


@torch.no_grad()
def _prove(dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    """Products with every activation, with weights in either layout."""
    inputs, bias = pattern(3, 17, 48, dtype=dtype), pattern(96, dtype=dtype)
    for activation in ACTIVATIONS:
        for in_training in (False, True):
            weight = pattern(96, 48, dtype=dtype).requires_grad_(in_training)
            arguments = inputs, weight, None if in_training else bias, activation, 0.5
            yield _fast(*arguments), _plain(*arguments)


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
