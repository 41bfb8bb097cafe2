"""Kernels of whole stages on CPUs, for inference: what :mod:`simfeatup.ops.stages` defines, in float32.

The weights before folding never leave the cache: row by row, similarity, softmax, MLP and folding follow each other.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simfeatup.ops.cpu import rows as loops
from simfeatup.ops.cpu.parallel import Ranges, compiled, run_rows
from simfeatup.ops.cpu.simd import LANES, load, multiply_add, store, zeros
from simfeatup.ops.folding import axis_folding, reflect_pad


def colour_kernels(
    guidance: Tensor, grid: list[int], spatial: Tensor, sigma_range: float, known: Tensor | None, first: int
) -> Tensor:
    """See :func:`simfeatup.ops.stages.colour_kernels`."""
    out, fold_y, fold_x, left = _prepare(guidance, grid, len(spatial) // 2, known, first)
    padded = F.pad(reflect_pad(guidance.float(), len(spatial) // 2), (0, loops.PIXEL_MULTIPLE))
    colours = padded.transpose(1, 2).contiguous()  # (B, H + 2r, 3, W + 2r + some)
    constants = np.float32(1 / (2 * sigma_range**2)), _array(spatial.flatten()), fold_y, fold_x
    run_rows(_colour_rows, [colours], constants, [out], left)
    return out


def learned_kernels(
    guidance: Tensor, grid: list[int], temperature: Tensor, spatial: Tensor, keys: list[Tensor],
    correction: list[Tensor], known: Tensor | None, first: int,
) -> Tensor:  # fmt: skip
    """See :func:`simfeatup.ops.stages.learned_kernels`."""
    radius = len(spatial) // 2
    out, fold_y, fold_x, left = _prepare(guidance, grid, radius, known, first)
    image = _array(guidance)
    own_keys = _keys(_filled_up(keys), len(keys[3]), image, radius, left)
    scale, weights = np.float32(temperature.item()), _array(spatial.flatten())
    run_rows(_learned_rows, [image, own_keys], (scale, weights, *_filled_up(correction), fold_y, fold_x), [out], left)
    return out


def _prepare(
    guidance: Tensor, grid: Sequence[int], radius: int, known: Tensor | None, first: int
) -> tuple[Tensor, np.ndarray, np.ndarray, Ranges]:
    """Kernels (B, H, Ty, Tx, W) with the known rows in them, the foldings, and the rows that are left to compute."""
    batch, _, height, width = guidance.shape
    fold_y, fold_x = _foldings(grid[0], height, radius)[0], _foldings(grid[1], width, radius)[1]
    shape = batch, height, fold_y.shape[2], fold_x.shape[1], width
    out = torch.empty(shape, dtype=torch.float32, device='cpu')
    bounds = [(0, height)]
    if known is not None:
        bounds = [(0, first), (first + known.shape[1], height)]
        out[:, first : bounds[1][0]] = known
    return out, fold_y, fold_x, [(image, *rows) for image in range(batch) for rows in bounds]


@lru_cache(maxsize=256)
def _foldings(length: int, outputs: int, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """:func:`simfeatup.ops.folding.axis_folding` for rows, (H, T, Ty), and for columns, (T, Tx, W + PIXEL_MULTIPLE)."""
    weights = axis_folding(length, outputs, radius).weights.astype(np.float32)
    columns = np.pad(weights.transpose(1, 2, 0), ((0, 0), (0, 0), (0, loops.PIXEL_MULTIPLE)))
    return weights, np.ascontiguousarray(columns)


def _keys(weights: list[np.ndarray], key_dim: int, guidance: np.ndarray, radius: int, ranges: Ranges) -> np.ndarray:
    """Keys (B, H + 2r, K, W + 2r + PIXEL_MULTIPLE), reflected at the borders; rows that nobody wants hold anything."""
    batch, _, height, width = guidance.shape
    keys = np.empty((batch, height + 2 * radius, key_dim, width + 2 * radius + loops.PIXEL_MULTIPLE), np.float32)
    keys[..., -loops.PIXEL_MULTIPLE:] = 0  # read, but of no effect
    wanted = [(index, max(top - radius, 0), min(bottom + radius, height)) for index, top, bottom in ranges]
    run_rows(loops.key_rows, [guidance], (*weights, radius), [keys], wanted)
    for row in (*range(-radius, 0), *range(height, height + radius)):
        keys[:, radius + row] = keys[:, radius + loops.reflected(row, height)]
    return keys


def _filled_up(convolutions: list[Tensor]) -> list[np.ndarray]:
    """Weights (O, I) and biases (O,) of 1x1 convolutions, with zeros up to the blocks of the compiled loop."""
    arrays = []
    for tensor in convolutions:
        rows = _array(tensor.flatten(1) if tensor.ndim > 1 else tensor)
        filled = np.zeros((len(rows) + -len(rows) % loops.DENSE_MULTIPLE, *rows.shape[1:]), np.float32)
        filled[: len(rows)] = rows
        arrays.append(filled)
    return arrays


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.float().contiguous().numpy()


@compiled
def _learned_rows(
    guidance, keys, temperature, spatial, weight1, bias1, weight2, bias2, fold_y, fold_x, out, top, bottom
):
    """Kernels (H, Ty, Tx, W) of rows top to bottom; keys and fold_x reach PIXEL_MULTIPLE beyond the width."""
    taps, side, width = len(spatial), fold_y.shape[1], guidance.shape[2]
    block = loops.block_side(width)
    joint = np.zeros((weight1.shape[1], block), np.float32)
    hidden = np.zeros((max(len(weight1), weight2.shape[1]), block), np.float32)
    full = np.empty((max(len(weight2), taps), block), np.float32)
    partial = np.empty((side, block), np.float32)
    sums = np.empty((3, block), np.float32)
    for y in range(top, bottom):
        for left in range(0, width, block):
            pixels = min(block, width - left)
            n = loops.rounded(pixels)  # what is computed beyond the last pixel is cut off in the end
            loops.joint_row(keys, side, y, left, n, temperature, spatial, full, joint, sums)
            for channel in range(len(guidance)):
                for x in range(pixels):
                    joint[taps + channel, x] = guidance[channel, y, left + x]
            loops.dense(weight1, bias1, joint, hidden, n)
            loops.gelu(hidden, len(weight1), n, sums[0])
            loops.dense(weight2, bias2, hidden, full, n)
            for tap in range(taps):
                for x in range(n):
                    full[tap, x] += joint[tap, x]
            loops.fold_row(full, fold_y[y], fold_x, left, pixels, n, partial, sums[0], out[y])


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
def _colour_rows(colours, scale, spatial, fold_y, fold_x, out, top, bottom):
    """Kernels (H, Ty, Tx, W) of rows top to bottom; colours and fold_x reach PIXEL_MULTIPLE beyond the width."""
    taps, width = len(spatial), out.shape[3]
    side = int(math.sqrt(taps))
    block = loops.block_side(width)
    logits, joint = np.empty((taps, block), np.float32), np.empty((taps, block), np.float32)
    partial, sums = np.empty((side, block), np.float32), np.empty((3, block), np.float32)
    for y in range(top, bottom):
        for left in range(0, width, block):
            pixels = min(block, width - left)
            n = loops.rounded(pixels)  # what is computed beyond the last pixel is cut off in the end
            _likeness(colours, side, y, left, n, logits)
            loops.normalised_row(logits, scale, spatial, n, joint, sums)
            loops.fold_row(joint, fold_y[y], fold_x, left, pixels, n, partial, sums[0], out[y])
