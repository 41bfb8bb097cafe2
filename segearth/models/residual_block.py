"""A residual attention block of an open_clip tower, computed as fast as a CPU can without gradients.

The result is open_clip's; matrix products go to oneDNN (onednn.py), with the activation of the MLP inside. Everywhere
else - with gradients, under autocast, on other devices - the block runs as open_clip built it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

from segearth.models.onednn import linear, serves

QUICK_GELU_SLOPE = 1.702  # of QuickGELU: x sigmoid(1.702 x)

OnBlock = Callable[[int, Tensor], object]
"""(number of a block, from 1; what it gives, (B, 1 + N, width))."""


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
