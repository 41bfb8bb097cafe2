"""Attention variants of the read-out: which tokens of an image look at each other.

CLIP's own query-key attention of the last blocks mixes distant patches, which suits one vector an image and ruins
a map. The training-free methods of this field change nothing but this attention. Each is one entry of
:data:`ATTENTIONS`: a function of the projected queries, keys and values of one block. GEM alone carries tokens of its
own through the last six blocks, beside the ordinary ones, so it is a read-out of its own.

Source: the softmax sums of SCLIP (arXiv 2312.01597), ClearCLIP (arXiv 2407.12442), SegEarth-OV (arXiv 2410.01768)
and SegEarth-OV-2 (arXiv 2508.18067); MaskCLIP (arXiv 2112.01071); NACLIP and its ablations NOnly and GAV
(arXiv 2404.08181); GEM, "Grounding Everything" (arXiv 2312.00878), section 3: one iteration, temperature from the mean
token norm, as SegEarth-OV-2 runs it. Followed: the formulas, checked against arrays that the original's code computed.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor

from segearth.models.residual_block import OnBlock, project_attended, project_qkv, run_block

GAUSSIAN_SIGMA = 1.0  # patches; NACLIP, section 3.2
GEM_BLOCKS = 6  # the last blocks that get the self-self stream (GEM's depth of 7 counts the block before them)

Attention = Callable[[Tensor, Tensor, Tensor, tuple[int, int]], Tensor]
"""(query, key, value, grid_size) -> output; tensors (B, heads, 1 + h*w, head_dim), [CLS] first."""


def gaussian_neighbourhood(grid_size: tuple[int, int], reference: Tensor) -> Tensor:
    """Gaussian of the distance between two patches of a grid (h, w), with zeros for [CLS]: (1 + h*w, 1 + h*w).

    Values in [0, 1]: ``exp(-distance^2 / (2 sigma^2))``, not normalised, on the reference's device and in its dtype.
    """
    height, width = grid_size
    rows = torch.arange(height, device=reference.device, dtype=torch.float32)
    columns = torch.arange(width, device=reference.device, dtype=torch.float32)
    y, x = (axis.flatten() for axis in torch.meshgrid(rows, columns, indexing='ij'))
    squared_distance = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
    gaussian = torch.exp(-squared_distance / (2 * GAUSSIAN_SIGMA**2))
    return F.pad(gaussian, (1, 0, 1, 0)).to(reference.dtype)


def _summed_attention(query: Tensor, key: Tensor, value: Tensor, grid_size: tuple[int, int], pairs: tuple) -> Tensor:
    # A sum on purpose, not an average: the output projection that follows has a bias, so a factor is no rescaling.
    parts = {'q': query, 'k': key, 'v': value}
    outputs = [F.scaled_dot_product_attention(parts[left], parts[right], value) for left, right in pairs]
    return torch.stack(outputs).sum(dim=0) if len(outputs) > 1 else outputs[0]


def _neighbour_attention(query: Tensor, key: Tensor, value: Tensor, grid_size: tuple[int, int]) -> Tensor:
    return F.scaled_dot_product_attention(key, key, value, attn_mask=gaussian_neighbourhood(grid_size, query))


def _scaled_gaussian(query: Tensor, key: Tensor, grid_size: tuple[int, int]) -> Tensor:
    # G' = G * scale * |q_i| |k_j|: the Gaussian in the units of the query-key products. (B, heads, N, N)
    norms = query.norm(dim=-1)[..., :, None] * key.norm(dim=-1)[..., None, :]
    return gaussian_neighbourhood(grid_size, query) * norms * query.shape[-1] ** -0.5


def _gaussian_vanilla_attention(query: Tensor, key: Tensor, value: Tensor, grid_size: tuple[int, int]) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, attn_mask=_scaled_gaussian(query, key, grid_size))


ATTENTIONS: dict[str, Attention] = {
    'vanilla': partial(_summed_attention, pairs=('qk',)),
    'MaskCLIP': lambda query, key, value, grid_size: value,
    'ClearCLIP': partial(_summed_attention, pairs=('qq',)),
    'SCLIP': partial(_summed_attention, pairs=('qq', 'kk')),
    'SegEarth': partial(_summed_attention, pairs=('qq', 'kk', 'vv')),
    'NACLIP': _neighbour_attention,
    'NOnly': lambda query, key, value, grid_size: _scaled_gaussian(query, key, grid_size).softmax(dim=-1) @ value,
    'GAV': _gaussian_vanilla_attention,
}
"""Variants that replace the attention of a read-out block."""


def self_self_attention(query: Tensor, key: Tensor, value: Tensor, inverse_temperature: Tensor) -> Tensor:
    """Averages the self-self attentions of queries, keys and values, each applied to the values.

    Each projection (B, heads, N, D) first attends to itself on the unit sphere (one iteration), then its similarities,
    times the inverse temperature (B, 1, 1, 1), weigh V.
    """

    def weights(tokens: Tensor) -> Tensor:
        return (tokens @ tokens.transpose(-2, -1) * inverse_temperature).softmax(dim=-1)

    outputs = []
    for projection in (value, key, query):
        tokens = F.normalize(projection, dim=-1)
        tokens = F.normalize(weights(tokens) @ tokens, dim=-1)
        outputs.append(weights(tokens) @ value)
    return torch.stack(outputs).mean(dim=0)


def gem_readout(
    blocks: Sequence[ResidualAttentionBlock], tokens: Tensor, ignore_residual: bool, on_block: OnBlock | None = None
) -> Tensor:
    """Runs all blocks on tokens (B, 1 + N, width) and returns those of the self-self stream, before ``ln_post``.

    With ``ignore_residual`` the stream is the last block's attention output alone; otherwise the outputs of the blocks
    accumulate onto the tokens that it started from.
    """
    first = max(len(blocks) - GEM_BLOCKS, 0)
    stream = tokens
    for index, block in enumerate(blocks):
        if index >= first:
            normed = block.ln_1(tokens)
            query, key, value = project_qkv(block, normed)
            scale = query.shape[-1] ** -0.5
            inverse_temperature = normed.norm(dim=-1).mean(dim=-1)[:, None, None, None] * scale
            attended = self_self_attention(query, key, value, inverse_temperature)
            output = project_attended(block, attended)
            stream = output if ignore_residual else stream + output
        if index + 1 < len(blocks):
            tokens = run_block(block, tokens)
            stream = tokens if index + 1 <= first else stream
            if on_block is not None:
                on_block(index + 1, tokens)
    return stream
