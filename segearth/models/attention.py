"""Attention variants of the read-out: which tokens of an image look at each other.

CLIP's own query-key attention of the last blocks mixes distant patches, which suits one vector an image and ruins
a map. The training-free methods of this field change nothing but this attention. Each is one entry of
:data:`ATTENTIONS`: a function of the projected queries, keys and values of one block. What looks at other blocks too
is a read-out of its own (readouts.py).

Source: the softmax sums of SCLIP (arXiv 2312.01597), ClearCLIP (arXiv 2407.12442), SegEarth-OV (arXiv 2410.01768)
and SegEarth-OV-2 (arXiv 2508.18067); MaskCLIP (arXiv 2112.01071); NACLIP and its ablations NOnly and GAV
(arXiv 2404.08181). Followed: the formulas, checked against arrays that the original's code computed. PEARL: the formula
as public notes state it; no code of its authors was read.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

GAUSSIAN_SIGMA = 1.0  # patches; NACLIP, section 3.2
ALIGNED_SHARE = 0.08  # alpha of PEARL, weight of the centred key-key products

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


def _aligned_attention(query: Tensor, key: Tensor, value: Tensor, grid_size: tuple[int, int]) -> Tensor:
    """PEARL: keys turned towards the queries, a head at a time, plus some key-key attention.

    Queries and keys are centred by the mean that patches of long queries dominate (weights |q_i| / sum |q|, [CLS] 0);
    R is the orthogonal factor of k_c^T q_c (Procrustes), and the logits are
    ``(q (k R)^T + alpha k_c k_c^T) / sqrt(d)``.
    """
    lengths = F.pad(query[..., 1:, :].norm(dim=-1, keepdim=True), (0, 0, 1, 0))
    weights = lengths / lengths.sum(dim=-2, keepdim=True).clamp_min(1e-12)
    centred_query, centred_key = (part - (weights * part).sum(dim=-2, keepdim=True) for part in (query, key))
    turn = nearest_rotation(centred_key.transpose(-2, -1) @ centred_query)
    logits = query @ (key @ turn).transpose(-2, -1) + ALIGNED_SHARE * centred_key @ centred_key.transpose(-2, -1)
    return (logits * query.shape[-1] ** -0.5).softmax(dim=-1) @ value


def nearest_rotation(matrices: Tensor) -> Tensor:
    """The orthogonal factor U V^T of matrices (..., D, D) = U S V^T: the orthogonal matrix nearest to them."""
    left, _, right = torch.linalg.svd(matrices.float())
    return (left @ right).to(matrices.dtype)


ATTENTIONS: dict[str, Attention] = {
    'vanilla': partial(_summed_attention, pairs=('qk',)),
    'MaskCLIP': lambda query, key, value, grid_size: value,
    'ClearCLIP': partial(_summed_attention, pairs=('qq',)),
    'SCLIP': partial(_summed_attention, pairs=('qq', 'kk')),
    'SegEarth': partial(_summed_attention, pairs=('qq', 'kk', 'vv')),
    'NACLIP': _neighbour_attention,
    'NOnly': lambda query, key, value, grid_size: _scaled_gaussian(query, key, grid_size).softmax(dim=-1) @ value,
    'GAV': _gaussian_vanilla_attention,
    'PEARL': _aligned_attention,
}
"""Variants that replace the attention of a read-out block."""
