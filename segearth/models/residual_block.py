"""A residual attention block of an open_clip tower, computed as fast as a CPU can without gradients.

The result is open_clip's. Matrix products go to oneDNN, with the activation of the MLP inside and the weights in a
layout of its own: torch takes oneDNN for bfloat16 alone, although it is faster in float32 too (docs/performance.md).
The operators are those that torch.compile emits, and private: they prove themselves once for each dtype
(:mod:`simfeatup.proof`). Where they are missing or fail, torch's own product is taken; with gradients, under autocast
and on other devices the block runs as open_clip built it.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from simfeatup.proof import FastPath, pattern

QUICK_GELU_SLOPE = 1.702  # of QuickGELU: x sigmoid(1.702 x)

OnBlock = Callable[[int, Tensor], object]
"""(number of a block, from 1; what it gives, (B, 1 + N, width))."""

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
"""Dtype -> largest difference from torch's product, as a share of the largest number."""
ONEDNN = FastPath("oneDNN's own operators", 'SEGEARTH_ONEDNN', "torch's products, slower")
ACTIVATIONS = {'none': lambda values: values, 'gelu': F.gelu, 'swish': F.silu}
"""What may follow a product, by oneDNN's names."""

_packed: WeakIdKeyDictionary = WeakIdKeyDictionary()  # weight -> (its state, copy in oneDNN's layout)


def run_block(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """A block of the tower with torch's attention, whose forward hooks are not called: (B, N, width) -> the same."""
    if not serves(tokens, block.mlp.c_fc.weight):
        return block(tokens)
    query, key, value = project_qkv(block, block.ln_1(tokens))
    return add_mlp(block, tokens + project_attended(block, _attend(query, key, value)))


def project_qkv(block: ResidualAttentionBlock, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a block: (B, N, width) -> three times (B, heads, N, head_dim)."""
    attention = block.attn
    projected = linear(normed, attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = projected.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return query, key, value  # NLD -> N, heads, L, head_dim


def project_attended(block: ResidualAttentionBlock, attended: Tensor) -> Tensor:
    """What the attention of a block adds to its tokens: (B, heads, N, head_dim) -> (B, N, width)."""
    projection = block.attn.out_proj
    attended = attended.transpose(1, 2).flatten(2)  # N, heads, L, head_dim -> NLD
    return block.ls_1(linear(attended, projection.weight, projection.bias))


def add_mlp(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """The second half of a block: tokens plus the MLP of their norm, (B, N, width) -> (B, N, width)."""
    fc, activation, projection = block.mlp.c_fc, block.mlp.gelu, block.mlp.c_proj
    if not serves(tokens, fc.weight):
        return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    normed, output_factor = block.ln_2(tokens), 1.0
    if isinstance(activation, QuickGELU):  # x sigmoid(a x) = swish(a x) / a
        hidden = linear(normed, fc.weight, fc.bias * QUICK_GELU_SLOPE, 'swish', weight_factor=QUICK_GELU_SLOPE)
        output_factor = 1 / QUICK_GELU_SLOPE
    elif type(activation) is nn.GELU and activation.approximate == 'none':
        hidden = linear(normed, fc.weight, fc.bias, 'gelu')
    else:
        hidden = activation(linear(normed, fc.weight, fc.bias))
    return tokens + block.ls_2(linear(hidden, projection.weight, projection.bias, weight_factor=output_factor))


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    if query.dtype == torch.float32:
        return F.scaled_dot_product_attention(query, key, value)
    # torch's fused attention takes twice as long in bfloat16 on CPUs without AMX
    weights = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    return weights.softmax(dim=-1) @ value


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
