"""The adaptive convolution on CPUs.

Features are cut into blocks of BLOCK channels, (B, C / BLOCK, h, w, BLOCK), so that the neighbours under a kernel
lie together; the kernels of a row of pixels lie together too, (B, H, Ty, Tx, W). The sums of four pixels and one
block stay in registers while the loop runs over all taps. The four share the loads of their features: two by two they
start at the same feature row and column, as they do where the size doubles.
"""

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from simfeatup.ops.cpu.parallel import compiled, run_rows
from simfeatup.ops.cpu.simd import LANES, load, multiply_add, number, store, sum_lanes, zeros

BLOCK = LANES


def adaptive_conv(features: Tensor, kernels: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """See :mod:`simfeatup.ops.adaptive_conv`; (B, H, W, C)."""
    blocks, kernels = _blocks(features), _rows_first(kernels)
    height, width, channels = kernels.shape[1], kernels.shape[4], blocks.shape[1] * BLOCK
    out = features.new_empty(len(features), height, width, channels)
    run_rows(_forward, (blocks, kernels), (rows, cols, channels, BLOCK), (out.flatten(1),), height)
    return out[..., : features.shape[1]].contiguous()


def adaptive_conv_norm(
    features: Tensor, kernels: list[Tensor], rows: list[Tensor], cols: list[Tensor], num_maps: int
) -> tuple[Tensor, Tensor]:
    """See :func:`simfeatup.ops.adaptive_conv.adaptive_conv_norm`."""
    blocks = _blocks(features)
    *before, (last, last_rows, last_cols) = zip(map(_rows_first, kernels), rows, cols, strict=True)
    for stage_kernels, *starts in before:
        batch, num_blocks = blocks.shape[:2]
        height, width = stage_kernels.shape[1], stage_kernels.shape[4]
        out = features.new_empty(batch, num_blocks, height, width, BLOCK)
        steps = BLOCK, height * width * BLOCK
        run_rows(_forward, (blocks, stage_kernels), (*starts, *steps), (out.flatten(1),), height)
        blocks = out
    batch, height, width = len(features), last.shape[1], last.shape[4]
    maps = features.new_empty(batch, num_maps, height, width)
    squares = features.new_empty(batch, height, width)
    run_rows(_forward_norm, (blocks, last), (last_rows, last_cols), (maps, squares), height)
    return maps, squares


def adaptive_conv_backward(
    grad: Tensor, features: Tensor, kernels: Tensor, rows: Tensor, cols: Tensor, needs: list[bool]
) -> list[Tensor]:
    """Gradients of the features and of the kernels from that of the result, (B, H, W, C)."""
    grad, kernels, starts = grad.contiguous(), _rows_first(kernels), (rows, cols)
    features = features.permute(0, 2, 3, 1).contiguous()  # NCHW -> NHWC
    grads = [grad.new_empty(0), grad.new_empty(0)]
    if needs[0]:
        out = grad.new_zeros(features.shape)
        run_rows(_backward_features, (grad, kernels), starts, (out,), out.shape[1])
        grads[0] = out.permute(0, 3, 1, 2)
    if needs[1]:
        out = grad.new_empty(kernels.shape)
        run_rows(_backward_kernels, (grad, features), starts, (out,), out.shape[1])
        grads[1] = out.permute(0, 2, 3, 1, 4)
    return grads


def _blocks(features: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C / BLOCK, h, w, BLOCK), the last block filled up with zeros."""
    features = features.permute(0, 2, 3, 1)
    missing = -features.shape[3] % BLOCK
    padded = F.pad(features, (0, missing)) if missing else features  # by nothing would copy, too
    return padded.unflatten(3, (-1, BLOCK)).permute(0, 3, 1, 2, 4).contiguous()


def _rows_first(kernels: Tensor) -> Tensor:
    """(B, Ty, Tx, H, W) -> (B, H, Ty, Tx, W): what a row of pixels needs lies together."""
    return kernels.permute(0, 3, 1, 2, 4).contiguous()


@compiled
def _partner(starts, position, end):
    """The next position, before ``end``, where it has the same start, else the same position."""
    is_pair = position + 1 < end and starts[position] == starts[position + 1]
    return position + 1 if is_pair else position


@compiled
def _four(features, at, row_step, kernels, tap, right, below, taps_y, taps_x, tap_step):
    """Sums of one block of channels for a pixel, its right and lower neighbours, and the one between these.

    ``at`` and ``tap`` are where the first feature and the first kernel lie, the steps and neighbours distances there.
    """
    a, b, c, d = zeros(features), zeros(features), zeros(features), zeros(features)
    for _ in range(taps_y):
        here = at
        for _ in range(taps_x):
            values = load(features, here)
            a = multiply_add(a, number(kernels, tap), values)
            b = multiply_add(b, number(kernels, tap + right), values)
            c = multiply_add(c, number(kernels, tap + below), values)
            d = multiply_add(d, number(kernels, tap + below + right), values)
            here += BLOCK
            tap += tap_step
        at += row_step
    return a, b, c, d


@compiled
def _forward(features, kernels, rows, cols, pixel_step, block_step, out, first_row, last_row):
    """Block b of pixel p goes to ``out[p * pixel_step + b * block_step]`` and behind."""
    taps_y, taps_x, width = kernels.shape[1:]
    row_size = taps_y * taps_x * width
    y = first_row
    while y < last_row:
        below = _partner(rows, y, last_row)
        for block in range(len(features)):
            x = 0
            while x < width:
                right = _partner(cols, x, width)
                at = ((block * features.shape[1] + rows[y]) * features.shape[2] + cols[x]) * BLOCK
                step, tap = features.shape[2] * BLOCK, y * row_size + x
                a, b, c, d = _four(
                    features, at, step, kernels, tap, right - x, (below - y) * row_size, taps_y, taps_x, width
                )
                to = block * block_step + (y * width + x) * pixel_step
                beside, lower = (right - x) * pixel_step, (below - y) * width * pixel_step
                store(out, to, a)
                store(out, to + beside, b)
                store(out, to + lower, c)
                store(out, to + lower + beside, d)
                x = right + 1
        y = below + 1


@compiled
def _forward_norm(features, kernels, rows, cols, maps, squares, first_row, last_row):
    taps_y, taps_x, width = kernels.shape[1:]
    row_size, num_maps = taps_y * taps_x * width, len(maps)
    sums = np.empty((4, BLOCK), features.dtype)
    y = first_row
    while y < last_row:
        below = _partner(rows, y, last_row)
        squares[y : below + 1] = 0
        for block in range(len(features)):
            first = min(max(num_maps - block * BLOCK, 0), BLOCK)  # channel of the block that counts for the length
            x = 0
            while x < width:
                right = _partner(cols, x, width)
                at = ((block * features.shape[1] + rows[y]) * features.shape[2] + cols[x]) * BLOCK
                step, tap = features.shape[2] * BLOCK, y * row_size + x
                a, b, c, d = _four(
                    features, at, step, kernels, tap, right - x, (below - y) * row_size, taps_y, taps_x, width
                )
                if first == 0:
                    squares[y, x] += _sum_of_squares(a, sums)
                    if right > x:
                        squares[y, right] += _sum_of_squares(b, sums)
                    if below > y:
                        squares[below, x] += _sum_of_squares(c, sums)
                        if right > x:
                            squares[below, right] += _sum_of_squares(d, sums)
                else:
                    store(sums, 0, a)
                    store(sums, BLOCK, b)
                    store(sums, 2 * BLOCK, c)
                    store(sums, 3 * BLOCK, d)
                    for row in range(y, below + 1):
                        for pixel in range(x, right + 1):
                            own = sums[2 * (row - y) + pixel - x]
                            for channel in range(first):
                                maps[block * BLOCK + channel, row, pixel] = own[channel]
                            for channel in range(first, BLOCK):
                                squares[row, pixel] += own[channel] * own[channel]
                x = right + 1
        y = below + 1


@compiled
def _sum_of_squares(vector, like):
    return sum_lanes(multiply_add(zeros(like), vector, vector))


@compiled
def _backward_kernels(grad, features, rows, cols, out, first_row, last_row):
    taps_y, taps_x = out.shape[1:3]
    width, channels = grad.shape[1:]
    zero = grad.dtype.type(0)
    for y in range(first_row, last_row):
        x = 0
        while x < width:
            other = _partner(cols, x, width)
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
            below = _partner(rows, y, height)
            i = row - rows[y]
            x = 0
            while 0 <= i < taps_y and x < width:
                right = _partner(cols, x, width)
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
