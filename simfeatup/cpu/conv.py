"""The adaptive convolution on CPUs, channels last: the innermost loop runs over the channels of neighbours.

The kernels of a row of pixels lie together, (B, H, Ty, Tx, W). Neighbouring output pixels that start at the same
feature column (every pair, where the size doubles) share the loads of their features.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from simfeatup.cpu.parallel import compiled, share_rows

CHANNEL_BLOCK = 256  # channels at a time, so that the features under a kernel stay in the cache


def forward(features: Tensor, kernels: Tensor, rows: Tensor, cols: Tensor, out: Tensor) -> None:
    """The operator: features (B, h, w, C), kernels (B, H, Ty, Tx, W), starts (H,) and (W,) -> out (B, H, W, C)."""
    _share(_forward, (features, kernels), (rows, cols), (out,), kernels.shape[1])


def forward_norm(features: Tensor, kernels: Tensor, rows: Tensor, cols: Tensor, num_maps: int) -> tuple[Tensor, Tensor]:
    """The operator where only the first channels and the length of the others are wanted.

    Returns:
        (B, num_maps, H, W), the first channels, and (B, H, W), the sum of squares of the others.
    """
    batch, height, width = len(features), kernels.shape[1], kernels.shape[4]
    maps = features.new_empty(batch, num_maps, height, width)
    squares = features.new_empty(batch, height, width)
    _share(_forward_norm, (features, kernels), (rows, cols), (maps, squares), height)
    return maps, squares


def backward_kernels(grad: Tensor, features: Tensor, shape: torch.Size, rows: Tensor, cols: Tensor) -> Tensor:
    """Gradient of the kernels, ``shape`` (B, H, Ty, Tx, W), from that of the output (B, H, W, C)."""
    out = grad.new_empty(shape)
    _share(_backward_kernels, (grad, features), (rows, cols), (out,), shape[1])
    return out


def backward_features(grad: Tensor, kernels: Tensor, shape: torch.Size, rows: Tensor, cols: Tensor) -> Tensor:
    """Gradient of the features, ``shape`` (B, h, w, C), from that of the output (B, H, W, C)."""
    out = grad.new_zeros(shape)
    _share(_backward_features, (grad, kernels), (rows, cols), (out,), shape[1])
    return out


def _share(loop, inputs: tuple[Tensor, ...], starts: tuple[Tensor, ...], outputs: tuple[Tensor, ...], height: int):
    """Runs a compiled loop on the rows of every image: (inputs of an image, starts, outputs of an image, rows)."""
    inputs, starts, outputs = ([tensor.numpy() for tensor in group] for group in (inputs, starts, outputs))

    def run(image: int, first: int, last: int) -> None:
        loop(*(array[image] for array in inputs), *starts, *(array[image] for array in outputs), first, last)

    share_rows(run, len(outputs[0]), height)


@compiled
def _partner(starts, position):
    """The next position where it has the same start, else the same position."""
    is_pair = position + 1 < len(starts) and starts[position] == starts[position + 1]
    return position + 1 if is_pair else position


@compiled
def _one_pixel(features, kernels, row, col, y, x, first, last, out):
    """Adds the weighted channels first to last of all taps of one pixel to out (last - first,)."""
    taps_y, taps_x = kernels.shape[1:3]
    for i in range(taps_y):
        j = 0
        while j + 2 < taps_x:
            k0, k1, k2 = kernels[y, i, j, x], kernels[y, i, j + 1, x], kernels[y, i, j + 2, x]
            f0 = features[row + i, col + j, first:last]
            f1 = features[row + i, col + j + 1, first:last]
            f2 = features[row + i, col + j + 2, first:last]
            for c in range(last - first):
                out[c] += k0 * f0[c] + k1 * f1[c] + k2 * f2[c]
            j += 3
        while j < taps_x:
            k0 = kernels[y, i, j, x]
            f0 = features[row + i, col + j, first:last]
            for c in range(last - first):
                out[c] += k0 * f0[c]
            j += 1


@compiled
def _two_pixels(features, kernels, row, col, y, x, first, last, out0, out1):
    """The same for pixels x and x + 1, which start at the same column."""
    taps_y, taps_x = kernels.shape[1:3]
    for i in range(taps_y):
        j = 0
        while j + 2 < taps_x:
            k0, k1, k2 = kernels[y, i, j, x], kernels[y, i, j + 1, x], kernels[y, i, j + 2, x]
            m0, m1, m2 = kernels[y, i, j, x + 1], kernels[y, i, j + 1, x + 1], kernels[y, i, j + 2, x + 1]
            f0 = features[row + i, col + j, first:last]
            f1 = features[row + i, col + j + 1, first:last]
            f2 = features[row + i, col + j + 2, first:last]
            for c in range(last - first):
                out0[c] += k0 * f0[c] + k1 * f1[c] + k2 * f2[c]
                out1[c] += m0 * f0[c] + m1 * f1[c] + m2 * f2[c]
            j += 3
        while j < taps_x:
            k0, m0 = kernels[y, i, j, x], kernels[y, i, j, x + 1]
            f0 = features[row + i, col + j, first:last]
            for c in range(last - first):
                out0[c] += k0 * f0[c]
                out1[c] += m0 * f0[c]
            j += 1


@compiled
def _forward(features, kernels, rows, cols, out, first_row, last_row):
    width, channels = out.shape[1:]
    for y in range(first_row, last_row):
        for first in range(0, channels, CHANNEL_BLOCK):
            last = min(first + CHANNEL_BLOCK, channels)
            x = 0
            while x < width:
                out0 = out[y, x, first:last]
                out0[:] = 0
                if _partner(cols, x) > x:
                    out1 = out[y, x + 1, first:last]
                    out1[:] = 0
                    _two_pixels(features, kernels, rows[y], cols[x], y, x, first, last, out0, out1)
                    x += 2
                else:
                    _one_pixel(features, kernels, rows[y], cols[x], y, x, first, last, out0)
                    x += 1


@compiled
def _forward_norm(features, kernels, rows, cols, maps, squares, first_row, last_row):
    num_maps, width, channels = len(maps), maps.shape[2], features.shape[2]
    sums = np.empty((2, channels), features.dtype)
    for y in range(first_row, last_row):
        x = 0
        while x < width:
            sums[:] = 0
            pixels = _partner(cols, x) - x + 1
            for first in range(0, channels, CHANNEL_BLOCK):
                last = min(first + CHANNEL_BLOCK, channels)
                out0, out1 = sums[0, first:last], sums[1, first:last]
                if pixels == 2:
                    _two_pixels(features, kernels, rows[y], cols[x], y, x, first, last, out0, out1)
                else:
                    _one_pixel(features, kernels, rows[y], cols[x], y, x, first, last, out0)
            for pixel in range(pixels):
                for c in range(num_maps):
                    maps[c, y, x + pixel] = sums[pixel, c]
                square = sums[pixel, 0] * 0
                for c in range(num_maps, channels):
                    square += sums[pixel, c] * sums[pixel, c]
                squares[y, x + pixel] = square
            x += pixels


@compiled
def _backward_kernels(grad, features, rows, cols, out, first_row, last_row):
    taps_y, taps_x = out.shape[1:3]
    width, channels = grad.shape[1:]
    zero = grad.dtype.type(0)
    for y in range(first_row, last_row):
        x = 0
        while x < width:
            other = _partner(cols, x)
            g, h = grad[y, x], grad[y, other]
            for i in range(taps_y):
                row, col = features[rows[y] + i], cols[x]
                j = 0
                while j + 2 < taps_x:
                    f0, f1, f2 = row[col + j], row[col + j + 1], row[col + j + 2]
                    a0, a1, a2, b0, b1, b2 = zero, zero, zero, zero, zero, zero
                    for c in range(channels):
                        a0 += g[c] * f0[c]
                        a1 += g[c] * f1[c]
                        a2 += g[c] * f2[c]
                        b0 += h[c] * f0[c]
                        b1 += h[c] * f1[c]
                        b2 += h[c] * f2[c]
                    out[y, i, j, x], out[y, i, j + 1, x], out[y, i, j + 2, x] = a0, a1, a2
                    out[y, i, j, other], out[y, i, j + 1, other], out[y, i, j + 2, other] = b0, b1, b2
                    j += 3
                while j < taps_x:
                    f0 = row[col + j]
                    a0, b0 = zero, zero
                    for c in range(channels):
                        a0 += g[c] * f0[c]
                        b0 += h[c] * f0[c]
                    out[y, i, j, x], out[y, i, j, other] = a0, b0
                    j += 1
            x = other + 1


@compiled
def _backward_features(grad, kernels, rows, cols, out, first_row, last_row):
    """Gathers: a row of features is written by nobody else."""
    height, taps_y, taps_x, width = kernels.shape
    zero = grad.dtype.type(0)
    for row in range(first_row, last_row):
        y = 0
        while y < height:
            below = _partner(rows, y)
            i = row - rows[y]
            x = 0
            while 0 <= i < taps_y and x < width:
                right = _partner(cols, x)
                g00, g01, g10, g11 = grad[y, x], grad[y, right], grad[below, x], grad[below, right]
                for j in range(taps_x):
                    k00 = kernels[y, i, j, x]
                    k01 = kernels[y, i, j, right] if right > x else zero
                    k10 = kernels[below, i, j, x] if below > y else zero
                    k11 = kernels[below, i, j, right] if right > x and below > y else zero
                    target = out[row, cols[x] + j]
                    for c in range(len(target)):
                        target[c] += k00 * g00[c] + k01 * g01[c] + k10 * g10[c] + k11 * g11[c]
                x = right + 1
            y = below + 1
