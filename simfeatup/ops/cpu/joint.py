"""Joint kernels on CPUs, forward and backward (:func:`simfeatup.ops.joint_kernel.joint_kernel`)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simfeatup.ops.cpu.parallel import compiled, share_rows
from simfeatup.ops.cpu.rows import (
    MIN_KERNEL_SUM,
    PIXEL_MULTIPLE,
    ROW_BLOCK,
    joint_row,
    rounded,
    similarity,
    softmax,
)  # fmt: skip


def joint_kernel(keys: Tensor, temperature: Tensor, spatial: Tensor) -> Tensor:
    """Keys (B, K, H + 2r, W + 2r), scalar, (T, T) -> (B, T, T, H, W)."""
    border = len(spatial) - 1
    batch, height, width = len(keys), keys.shape[2] - border, keys.shape[3] - border
    out = keys.new_empty(batch, *spatial.shape, height, width)
    scale, weights, kernels = temperature.numpy()[()], spatial.flatten().numpy(), out.flatten(1, 2).numpy()
    rows = _rows_first(keys).numpy()

    def run(image: int, top: int, bottom: int) -> None:
        _joint_kernel_rows(rows[image], scale, weights, kernels[image], top, bottom)

    share_rows(run, batch, height)
    return out


def joint_kernel_backward(
    grad: Tensor, keys: Tensor, temperature: Tensor, spatial: Tensor, needs: list[bool]
) -> list[Tensor]:
    """Gradients of the keys, the temperature and the spatial kernel from that of the result."""
    slopes, keys_first = grad.contiguous().flatten(1, 2).numpy(), _rows_first(keys)
    batch, taps, height, _ = slopes.shape
    grad_similarity, grad_keys = np.empty_like(slopes), torch.zeros_like(keys_first)
    grad_rows = torch.zeros(batch, height, taps + 1, dtype=torch.float64, device='cpu')  # spatial, then temperature
    rows, scale, weights = keys_first.numpy(), temperature.numpy()[()], spatial.flatten().numpy()
    out_keys, out_rows = grad_keys.numpy(), grad_rows.numpy()

    def run(image: int, top: int, bottom: int) -> None:
        arguments = slopes[image], rows[image], scale, weights, grad_similarity[image], out_rows[image]
        _grad_similarity_rows(*arguments, top, bottom)

    def run_keys(image: int, top: int, bottom: int) -> None:
        _grad_key_rows(grad_similarity[image], rows[image], out_keys[image], top, bottom)

    share_rows(run, batch, height)
    share_rows(run_keys, batch, rows.shape[1])
    totals = grad_rows.sum((0, 1))
    grads = grad_keys[..., :-PIXEL_MULTIPLE].transpose(1, 2), totals[-1].clone(), totals[:-1].view_as(spatial)
    return [value if needed else grad.new_empty(0) for value, needed in zip(grads, needs, strict=True)]


def _rows_first(keys: Tensor) -> Tensor:
    """(B, K, H, W) -> (B, H, K, W + PIXEL_MULTIPLE), what the compiled loops read."""
    return F.pad(keys.transpose(1, 2), (0, PIXEL_MULTIPLE)).contiguous()


@compiled
def _joint_kernel_rows(keys, temperature, spatial, out, top, bottom):
    """Kernels (T*T, H, W) of rows top to bottom from padded keys (H + 2r, K, >= W + 2r + PIXEL_MULTIPLE)."""
    taps, _, width = out.shape
    side = int(math.sqrt(taps))
    sums = np.empty((3, ROW_BLOCK), keys.dtype)
    logits, joint = np.empty((taps, ROW_BLOCK), keys.dtype), np.empty((taps, ROW_BLOCK), keys.dtype)
    for y in range(top, bottom):
        for left in range(0, width, ROW_BLOCK):
            pixels = min(ROW_BLOCK, width - left)
            n = rounded(pixels)
            joint_row(keys, side, y, left, n, temperature, spatial, logits, joint, sums)
            for tap in range(taps):
                for x in range(pixels):
                    out[tap, y, left + x] = joint[tap, x]


@compiled
def _grad_similarity_rows(grad, keys, temperature, spatial, out, totals, top, bottom):
    """Gradients of the similarities, and of the spatial kernel and the temperature.

    From the kernels' gradient ``grad`` (T*T, H, W) and the keys: ``out`` (T*T, H, W) in rows top to bottom, and
    ``totals`` (H, T*T + 1), one row's share a row, the temperature's last.
    """
    taps, _, width = grad.shape
    n, least = rounded(width), spatial.dtype.type(MIN_KERNEL_SUM)
    logits, weights = np.empty((taps, n), grad.dtype), np.empty((taps, n), grad.dtype)
    sums, factor, mean = np.empty((3, n), grad.dtype), np.empty(width, grad.dtype), np.empty(width, grad.dtype)
    for y in range(top, bottom):
        similarity(keys, int(math.sqrt(taps)), y, 0, n, logits)
        softmax(logits, temperature, spatial, n, weights, sums)
        total, joint = sums[1], sums[2]
        mean[:] = 0
        for x in range(width):
            factor[x] = 1 / max(joint[x], least * total[x])
        for tap in range(taps):
            weight, slope_out = weights[tap], grad[tap, y]
            for x in range(width):
                mean[x] += slope_out[x] * weight[x] * spatial[tap] * factor[x]
        for tap in range(taps):
            weight, slope_out, logit, target = weights[tap], grad[tap, y], logits[tap], out[tap, y]
            spatial_total, temperature_total = spatial[0] * 0, spatial[0] * 0
            for x in range(width):
                is_clamped = joint[x] < least * total[x]
                share = weight[x] * factor[x]  # of the spatial weight in the kernel
                own = share * slope_out[x]
                others = weight[x] / total[x] if is_clamped else share * spatial[tap]
                slope = own * spatial[tap] - others * mean[x]
                target[x] = temperature * slope
                spatial_total += own if is_clamped else own - share * mean[x]
                temperature_total += slope * logit[x]
            totals[y, tap] = spatial_total
            totals[y, taps] += temperature_total


@compiled
def _grad_key_rows(grad_similarity, keys, out, top, bottom):
    """Gradient of the padded keys (H + 2r, K, W), rows top to bottom, each as centre and as neighbour."""
    taps, height, width = grad_similarity.shape
    side = int(math.sqrt(taps))
    radius = side // 2
    for row in range(top, bottom):
        for i in range(side):
            y = row - i
            if 0 <= y < height:  # as the neighbour of the pixels of row y
                for k in range(keys.shape[1]):
                    centre = keys[y + radius, k, radius : radius + width]
                    for j in range(side):
                        slope, target = grad_similarity[i * side + j, y], out[row, k, j : j + width]
                        for x in range(width):
                            target[x] += slope[x] * centre[x]
            y = row - radius
            if 0 <= y < height:  # as the centre
                for k in range(keys.shape[1]):
                    target = out[row, k, radius : radius + width]
                    for j in range(side):
                        slope, neighbour = grad_similarity[i * side + j, y], keys[y + i, k, j : j + width]
                        for x in range(width):
                            target[x] += slope[x] * neighbour[x]
