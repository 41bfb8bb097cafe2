"""A residual attention block of an open_clip tower, computed as fast as a CPU can without gradients.

Two things differ from open_clip's own forward, not the result: matrix products go to oneDNN, which torch takes for
bfloat16 alone although it is faster in float32 too (docs/performance.md), and GELU is part of the product.
Everywhere else - with gradients, under autocast, on other devices - the block runs as open_clip built it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ONEDNN_DTYPES = (torch.float32, torch.bfloat16)


def run_block(block: nn.Module, tokens: Tensor) -> Tensor:
    """A block of the tower: tokens (B, N, width) -> (B, N, width).

    Args:
        block: open_clip ResidualAttentionBlock with torch's attention; no forward hooks are called.
        tokens: Of the dtype of the block's weights, except under autocast.
    """
    if not _has_fast_path(tokens, block.mlp.c_fc.weight):
        return block(tokens)
    query, key, value = project_qkv(block, block.ln_1(tokens))
    attended = _attend(query, key, value).transpose(1, 2).flatten(2)  # N, heads, L, head_dim -> NLD
    output = block.attn.out_proj
    tokens = tokens + block.ls_1(linear(attended, output.weight, output.bias))
    fc, activation, projection = block.mlp.c_fc, block.mlp.gelu, block.mlp.c_proj
    is_gelu = type(activation) is nn.GELU and activation.approximate == 'none'
    hidden = linear(block.ln_2(tokens), fc.weight, fc.bias, with_gelu=is_gelu)
    if not is_gelu:
        hidden = activation(hidden)
    return tokens + block.ls_2(linear(hidden, projection.weight, projection.bias))


def project_qkv(block: nn.Module, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a block: (B, N, width) -> three times (B, heads, N, head_dim)."""
    attention = block.attn
    projected = linear(normed, attention.in_proj_weight, attention.in_proj_bias)
    return tuple(
        part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)  # NLD -> N, heads, L, head_dim
        for part in projected.chunk(3, dim=-1)
    )


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None, with_gelu: bool = False) -> Tensor:
    """``inputs @ weight.T + bias``, then GELU if asked for: (..., I) by (O, I) -> (..., O)."""
    if not _has_fast_path(inputs, weight):
        output = F.linear(inputs, weight, bias)
        return F.gelu(output) if with_gelu else output
    return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, 'gelu' if with_gelu else 'none', [], 'none')


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    if query.dtype == torch.float32:
        return F.scaled_dot_product_attention(query, key, value)
    # torch's fused attention takes twice as long in bfloat16 on CPUs without AMX
    weights = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    return weights.softmax(dim=-1) @ value


def _has_fast_path(inputs: Tensor, weight: Tensor) -> bool:
    return (
        inputs.device.type == 'cpu'
        and inputs.dtype == weight.dtype
        and inputs.dtype in ONEDNN_DTYPES
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled('cpu')
        and torch.backends.mkldnn.enabled
        and _has_onednn()
    )


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, '_linear_pointwise')
