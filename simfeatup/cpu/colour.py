"""Folded kernels of :class:`simfeatup.joint_bilateral.JointBilateral` on CPUs: likeness of colours, row by row."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simfeatup.cpu.fold import column_foldings, row_foldings
from simfeatup.cpu.parallel import compiled, share_ranges
from simfeatup.cpu.rows import PIXEL_MULTIPLE, ROW_BLOCK, fold_row, normalised_row, rounded
from simfeatup.cpu.simd import LANES, load, multiply_add, store, zeros
from simfeatup.folding import StageKernels, axis_folding
from simfeatup.overlap import take_over
from simfeatup.padding import reflect_pad


def stage_kernels(guidance: Tensor, grid: Sequence[int], spatial: Tensor, sigma_range: float) -> StageKernels:
    """Kernels of one doubling, in float32 and without gradients.

    Args:
        guidance: (B, 3, H, W) at the output's size.
        grid: (h, w) of the features.
        spatial: (T, T), weights by distance.
        sigma_range: Of the difference of colours.
    """
    radius = len(spatial) // 2
    batch, _, height, width = guidance.shape
    rows, cols = (axis_folding(n, total, radius) for n, total in zip(grid, (height, width), strict=True))
    fold_y, fold_x = row_foldings(grid[0], height, radius), column_foldings(grid[1], width, radius)
    padded = F.pad(reflect_pad(guidance.detach().float(), radius), (0, PIXEL_MULTIPLE))
    colours = padded.transpose(1, 2).contiguous().numpy()  # (B, H + 2r, 3, W + 2r + some)
    weights, scale = spatial.float().flatten().numpy(), np.float32(1 / (2 * sigma_range**2))
    shape = batch, height, fold_y.shape[2], fold_x.shape[1], width  # rows first, as they are applied
    out = torch.empty(shape, dtype=torch.float32, device='cpu')
    kernels = out.numpy()

    def run(index: int, top: int, bottom: int) -> None:
        _colour_kernel_rows(colours[index], scale, weights, fold_y, fold_x, kernels[index], top, bottom)

    stage = (grid, sigma_range, weights.tobytes())
    share_ranges(run, take_over(stage, guidance.detach().float().numpy(), kernels, grid[0], radius))
    return StageKernels(out.permute(0, 2, 3, 1, 4).to(guidance.dtype), rows.starts, cols.starts)


@compiled
def _likeness(colours, side, y, left, n, out):
    """Minus the squared differences of n pixels' colours from those of all their neighbours: out (T*T, >= n)."""
    channels, width = colours.shape[1:]
    radius, out_width = side // 2, out.shape[1]
    minus = colours.dtype.type(-1)
    for i in range(side):
        for j in range(side):
            for x in range(0, n, LANES):
                total = zeros(colours)
                for k in range(channels):
                    centre = load(colours, ((y + radius) * channels + k) * width + left + radius + x)
                    there = load(colours, ((y + i) * channels + k) * width + left + j + x)
                    difference = multiply_add(centre, minus, there)
                    total = multiply_add(total, difference, multiply_add(zeros(colours), minus, difference))
                store(out, (i * side + j) * out_width + x, total)


@compiled
def _colour_kernel_rows(colours, scale, spatial, fold_y, fold_x, out, top, bottom):
    """Kernels (H, Ty, Tx, W) of rows top to bottom; colours and fold_x reach PIXEL_MULTIPLE beyond the width."""
    taps, width = len(spatial), out.shape[3]
    side = int(math.sqrt(taps))
    blocks = (width + ROW_BLOCK - 1) // ROW_BLOCK
    block = rounded((width + blocks - 1) // blocks)
    logits, joint = np.empty((taps, block), np.float32), np.empty((taps, block), np.float32)
    partial, sums = np.empty((side, block), np.float32), np.empty((3, block), np.float32)
    for y in range(top, bottom):
        for left in range(0, width, block):
            pixels = min(block, width - left)
            n = rounded(pixels)  # what is computed beyond the last pixel is cut off in the end
            _likeness(colours, side, y, left, n, logits)
            normalised_row(logits, scale, spatial, n, joint, sums)
            fold_row(joint, fold_y[y], fold_x, left, pixels, n, partial, sums[0], out[y])
