"""Weights of a layer on CPUs, with gradients: joint kernels (:mod:`simfeatup.ops.stages`) and their folding."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simfeatup.ops.cpu import rows as loops
from simfeatup.ops.cpu.parallel import compiled, run_rows


def joint_kernel(keys: Tensor, temperature: Tensor, spatial: Tensor) -> Tensor:
    """Keys (B, K, H + 2r, W + 2r), scalar, (T, T) -> (B, T, T, H, W)."""
    border = len(spatial) - 1
    height, width = keys.shape[2] - border, keys.shape[3] - border
    out = keys.new_empty(len(keys), *spatial.shape, height, width)
    constants = temperature.numpy()[()], spatial.flatten()
    run_rows(_joint_kernel_rows, [_rows_first(keys)], constants, [out.flatten(1, 2)], height)
    return out


def joint_kernel_backward(
    grad: Tensor, keys: Tensor, temperature: Tensor, spatial: Tensor, needs: list[bool]
) -> list[Tensor]:
    """Gradients of the keys, the temperature and the spatial kernel from that of the result."""
    slopes, rows = grad.contiguous().flatten(1, 2), _rows_first(keys)
    batch, taps, height, _ = slopes.shape
    grad_similarity, grad_keys = torch.empty_like(slopes), torch.zeros_like(rows)
    grad_rows = torch.zeros(batch, height, taps + 1, dtype=torch.float64, device='cpu')  # spatial, then temperature
    constants = temperature.numpy()[()], spatial.flatten()
    run_rows(_grad_similarity_rows, [slopes, rows], constants, [grad_similarity, grad_rows], height)
    run_rows(_grad_key_rows, [grad_similarity, rows], (), [grad_keys], rows.shape[1])
    totals = grad_rows.sum((0, 1))
    grads = grad_keys[..., :-loops.PIXEL_MULTIPLE].transpose(1, 2), totals[-1].clone(), totals[:-1].view_as(spatial)
    return [value if needed else grad.new_empty(0) for value, needed in zip(grads, needs, strict=True)]


def fold(weights: Tensor, fold_y: Tensor, fold_x: Tensor) -> Tensor:
    """Weights (B, T, T, H, W), foldings (H, T, Ty) and (W, T, Tx) -> (B, H, Ty, Tx, W)."""
    batch, height, width = len(weights), *weights.shape[3:]
    out = weights.new_empty(batch, height, fold_y.shape[2], fold_x.shape[2], width)
    run_rows(_fold_rows, [weights.contiguous()], _constants(fold_y, fold_x), [out], height)
    return out


def fold_backward(grad: Tensor, weights: Tensor, fold_y: Tensor, fold_x: Tensor, needs: list[bool]) -> list[Tensor]:
    """Gradient of the weights from that of the result."""
    out = grad.new_empty(weights.shape)
    run_rows(_unfold_rows, [grad.contiguous()], _constants(fold_y, fold_x), [out], grad.shape[1])
    return [out]


def _constants(fold_y: Tensor, fold_x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What both loops need: (H, T, Ty), (T, Tx, W), and which pairs (T, Tx) of a column have any share."""
    fold_x = fold_x.permute(1, 2, 0).contiguous()
    return fold_y.contiguous(), fold_x, (fold_x != 0).any(2)


def _rows_first(keys: Tensor) -> Tensor:
    """(B, K, H, W) -> (B, H, K, W + PIXEL_MULTIPLE), what the compiled loops read."""
    return F.pad(keys.transpose(1, 2), (0, loops.PIXEL_MULTIPLE)).contiguous()


@compiled
def _joint_kernel_rows(keys, temperature, spatial, out, top, bottom):
    """Kernels (T*T, H, W) of rows top to bottom from padded keys (H + 2r, K, >= W + 2r + PIXEL_MULTIPLE)."""
    taps, _, width = out.shape
    side = int(math.sqrt(taps))
    sums = np.empty((3, loops.ROW_BLOCK), keys.dtype)
    logits, joint = np.empty((taps, loops.ROW_BLOCK), keys.dtype), np.empty((taps, loops.ROW_BLOCK), keys.dtype)
    for y in range(top, bottom):
        for left in range(0, width, loops.ROW_BLOCK):
            pixels = min(loops.ROW_BLOCK, width - left)
            n = loops.rounded(pixels)
            loops.joint_row(keys, side, y, left, n, temperature, spatial, logits, joint, sums)
            for tap in range(taps):
                for x in range(pixels):
                    out[tap, y, left + x] = joint[tap, x]


@compiled
def _grad_similarity_rows(grad, keys, temperature, spatial, out, totals, top, bottom):
    """Gradient of the kernels (T*T, H, W) -> that of the similarities; totals (H, T*T + 1), the temperature's last."""
    taps, _, width = grad.shape
    n, least = loops.rounded(width), spatial.dtype.type(loops.MIN_KERNEL_SUM)
    logits, weights = np.empty((taps, n), grad.dtype), np.empty((taps, n), grad.dtype)
    sums, factor, mean = np.empty((3, n), grad.dtype), np.empty(width, grad.dtype), np.empty(width, grad.dtype)
    for y in range(top, bottom):
        loops.similarity(keys, int(math.sqrt(taps)), y, 0, n, logits)
        loops.softmax(logits, temperature, spatial, n, weights, sums)
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


@compiled
def _fold_rows(kernels, fold_y, fold_x, used, out, top, bottom):
    """Kernels (T, T, H, W) -> out (H, Ty, Tx, W), rows top to bottom."""
    side, width = fold_y.shape[1], kernels.shape[3]
    partial = np.empty((side, width), kernels.dtype)
    for y in range(top, bottom):
        for a in range(out.shape[1]):
            partial[:] = 0
            for i in range(side):
                weight = fold_y[y, i, a]
                if weight != 0:
                    for j in range(side):
                        row, source = partial[j], kernels[i, j, y]
                        for x in range(width):
                            row[x] += weight * source[x]
            for c in range(out.shape[2]):
                target = out[y, a, c]
                target[:] = 0
                for j in range(side):
                    if used[j, c]:
                        row, weights = partial[j], fold_x[j, c]
                        for x in range(width):
                            target[x] += weights[x] * row[x]


@compiled
def _unfold_rows(grad, fold_y, fold_x, used, out, top, bottom):
    """Gradient (H, Ty, Tx, W) -> out (T, T, H, W), rows top to bottom."""
    side, width = fold_y.shape[1], out.shape[3]
    partial = np.empty((side, width), out.dtype)
    for y in range(top, bottom):
        out[:, :, y] = 0
        for a in range(grad.shape[1]):
            partial[:] = 0
            for c in range(grad.shape[2]):
                source = grad[y, a, c]
                for j in range(side):
                    if used[j, c]:
                        row, weights = partial[j], fold_x[j, c]
                        for x in range(width):
                            row[x] += weights[x] * source[x]
            for i in range(side):
                weight = fold_y[y, i, a]
                if weight != 0:
                    for j in range(side):
                        row, target = partial[j], out[i, j, y]
                        for x in range(width):
                            target[x] += weight * row[x]
