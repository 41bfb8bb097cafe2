"""A whole joint bilateral layer's kernels on CPUs, for inference: from the guidance to folded kernels in one go.

The kernels before folding never leave the cache: row by row, similarity, softmax, MLP and folding follow each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simfeatup.cpu.parallel import share_ranges, share_rows
from simfeatup.cpu.rows import DENSE_MULTIPLE, PIXEL_MULTIPLE, folded_kernel_rows, key_rows, reflected
from simfeatup.folding import StageKernels, axis_folding
from simfeatup.overlap import take_over

if TYPE_CHECKING:
    from simfeatup.jbu import JBULayer


def stage_kernels(layer: JBULayer, guidance: Tensor, grid: tuple[int, int]) -> StageKernels:
    """What :meth:`simfeatup.jbu.JBULayer.stage_kernels` returns, in float32 and without gradients.

    Args:
        layer: In eval mode.
        guidance: (B, 3, H, W) at the layer's output size.
        grid: (h, w) of the features.
    """
    from simfeatup.jbu import KERNEL_FIXUP_WEIGHT

    image = guidance.detach().float().contiguous().numpy()
    batch, _, height, width = image.shape
    rows, cols = (axis_folding(n, total, layer.radius) for n, total in zip(grid, (height, width), strict=True))
    fold_y = rows.weights.float().numpy()  # (H, T, Ty)
    fold_x = F.pad(cols.weights.float().permute(1, 2, 0), (0, PIXEL_MULTIPLE)).numpy()  # (T, Tx, W + some)
    keys = _keys(layer, image)
    temperature = np.float32(layer.temperature.item())
    spatial = _array(layer.spatial_kernel().flatten())
    first, second = _weights(layer.fixup_proj[0]), _weights(layer.fixup_proj[3], KERNEL_FIXUP_WEIGHT)
    out = torch.empty(batch, height, fold_y.shape[2], fold_x.shape[1], width)  # rows first, as they are applied
    kernels = out.numpy()

    def run(index: int, top: int, bottom: int) -> None:
        folded_kernel_rows(
            image[index],
            keys[index],
            temperature,
            spatial,
            *first,
            *second,
            fold_y,
            fold_x,
            kernels[index],
            top,
            bottom,
        )

    share_ranges(run, take_over((layer, grid), image, kernels, grid[0], layer.radius))
    return StageKernels(out.permute(0, 2, 3, 1, 4).to(guidance.dtype), rows.starts, cols.starts)


def _keys(layer: JBULayer, guidance: np.ndarray) -> np.ndarray:
    """Keys of every pixel, reflected at the borders: (B, H + 2r, K, W + 2r + PIXEL_MULTIPLE)."""
    batch, _, height, width = guidance.shape
    radius, key_dim = layer.radius, layer.range_proj[3].out_channels
    first, second = _weights(layer.range_proj[0]), _weights(layer.range_proj[3])
    keys = np.zeros((batch, height + 2 * radius, key_dim, width + 2 * radius + PIXEL_MULTIPLE), np.float32)

    def run(index: int, top: int, bottom: int) -> None:
        key_rows(guidance[index], *first, *second, radius, keys[index], top, bottom)

    share_rows(run, batch, height)
    for row in (*range(-radius, 0), *range(height, height + radius)):
        keys[:, radius + row] = keys[:, radius + reflected(row, height)]
    return keys


def _weights(conv: nn.Conv2d, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Weight (O, I) and bias (O,) of a 1x1 convolution, filled up with zeros to the blocks of the compiled loop."""
    weight, bias = _array(conv.weight.flatten(1) * scale), _array(conv.bias * scale)
    missing = -len(weight) % DENSE_MULTIPLE
    return np.pad(weight, ((0, missing), (0, 0))), np.pad(bias, (0, missing))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().contiguous().numpy()
