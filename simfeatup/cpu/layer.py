"""A whole joint bilateral layer's kernels on CPUs, for inference: from the guidance to folded kernels in one go.

The kernels before folding never leave the cache: row by row, similarity, softmax, MLP and folding follow each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simfeatup.cpu.fold import column_foldings, row_foldings
from simfeatup.cpu.parallel import share_ranges
from simfeatup.cpu.rows import DENSE_MULTIPLE, PIXEL_MULTIPLE, folded_kernel_rows, key_rows, reflected
from simfeatup.folding import StageKernels, axis_folding
from simfeatup.overlap import take_over

if TYPE_CHECKING:
    from simfeatup.jbu import JBULayer


def stage_kernels(layer: JBULayer, guidance: Tensor, grid: Sequence[int]) -> StageKernels:
    """What :meth:`simfeatup.jbu.JBULayer.stage_kernels` returns, in float32 and without gradients.

    Args:
        layer: In eval mode.
        guidance: (B, 3, H, W) at the layer's output size.
        grid: (h, w) of the features.
    """
    weights = _layer_weights(layer)
    image = guidance.detach().float().contiguous().numpy()
    batch, _, height, width = image.shape
    rows, cols = (axis_folding(n, total, layer.radius) for n, total in zip(grid, (height, width), strict=True))
    fold_y, fold_x = row_foldings(grid[0], height, layer.radius), column_foldings(grid[1], width, layer.radius)
    shape = batch, height, fold_y.shape[2], fold_x.shape[1], width  # rows first, as they are applied
    out = torch.empty(shape, dtype=torch.float32, device='cpu')
    kernels = out.numpy()
    rows_left = take_over((layer, grid), image, kernels, grid[0], layer.radius)
    keys = _keys(layer, weights.keys, image, rows_left)

    def run(index: int, top: int, bottom: int) -> None:
        folded_kernel_rows(
            image[index],
            keys[index],
            weights.temperature,
            weights.spatial,
            *weights.fixup,
            fold_y,
            fold_x,
            kernels[index],
            top,
            bottom,
        )

    share_ranges(run, rows_left)
    return StageKernels(out.permute(0, 2, 3, 1, 4).to(guidance.dtype), rows.starts, cols.starts)


@dataclass(frozen=True)
class _LayerWeights:
    """A layer as the compiled loops read it: weight and bias of two convolutions for the keys, and for the MLP."""

    temperature: np.float32
    spatial: np.ndarray
    keys: tuple[np.ndarray, ...]
    fixup: tuple[np.ndarray, ...]


_known: WeakKeyDictionary[JBULayer, tuple[object, _LayerWeights]] = WeakKeyDictionary()


def _layer_weights(layer: JBULayer) -> _LayerWeights:
    """Those of a layer; kept where nothing of it needs a gradient, until something changes."""
    from simfeatup.jbu import KERNEL_FIXUP_WEIGHT

    parameters = list(layer.parameters())
    is_frozen = not any(parameter.requires_grad or parameter.is_inference() for parameter in parameters)
    state = [(parameter._version, parameter.data_ptr()) for parameter in parameters] if is_frozen else None
    known = _known.get(layer)
    if is_frozen and known is not None and known[0] == state:
        return known[1]
    weights = _LayerWeights(
        np.float32(layer.temperature.item()),
        _array(layer.spatial_kernel().flatten()),
        (*_conv_weights(layer.range_proj[0]), *_conv_weights(layer.range_proj[3])),
        (*_conv_weights(layer.fixup_proj[0]), *_conv_weights(layer.fixup_proj[3], KERNEL_FIXUP_WEIGHT)),
    )
    if is_frozen:
        _known[layer] = state, weights
    return weights


def _keys(
    layer: JBULayer, weights: tuple[np.ndarray, ...], guidance: np.ndarray, ranges: list[tuple[int, int, int]]
) -> np.ndarray:
    """Keys of the pixels whose kernels are wanted and of their neighbours, reflected at the borders.

    Args:
        layer: See :func:`stage_kernels`.
        weights: Of the two convolutions.
        guidance: (B, 3, H, W).
        ranges: (image, first row, row behind the last), of the kernels.

    Returns:
        (B, H + 2r, K, W + 2r + PIXEL_MULTIPLE); rows that nobody wants hold anything.
    """
    batch, _, height, width = guidance.shape
    radius, key_dim = layer.radius, len(layer.range_proj[3].get_parameter('bias'))
    keys = np.empty((batch, height + 2 * radius, key_dim, width + 2 * radius + PIXEL_MULTIPLE), np.float32)
    keys[..., -PIXEL_MULTIPLE:] = 0  # read, but of no effect

    def run(index: int, top: int, bottom: int) -> None:
        key_rows(guidance[index], *weights, radius, keys[index], top, bottom)

    share_ranges(run, [(index, max(top - radius, 0), min(bottom + radius, height)) for index, top, bottom in ranges])
    for row in (*range(-radius, 0), *range(height, height + radius)):
        keys[:, radius + row] = keys[:, radius + reflected(row, height)]
    return keys


def _conv_weights(conv: nn.Module, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Weight (O, I) and bias (O,) of a 1x1 convolution, filled up with zeros to the blocks of the compiled loop."""
    weight, bias = conv.get_parameter('weight'), conv.get_parameter('bias')
    missing = -len(bias) % DENSE_MULTIPLE
    return _array(F.pad(weight.flatten(1) * scale, (0, 0, 0, missing))), _array(F.pad(bias * scale, (0, missing)))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().contiguous().numpy()
