"""Folding of kernels on CPUs (:func:`simfeatup.folding.fold_kernels`), and its transpose for the backward pass."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from simfeatup.cpu.parallel import compiled, share_rows
from simfeatup.cpu.rows import PIXEL_MULTIPLE
from simfeatup.folding import axis_folding


@lru_cache(maxsize=256)
def row_foldings(length: int, outputs: int, radius: int) -> np.ndarray:
    """:func:`simfeatup.folding.axis_folding` as the compiled loops read it for rows: (H, T, Ty), float32."""
    return axis_folding(length, outputs, radius).weights.float().numpy()


@lru_cache(maxsize=256)
def column_foldings(length: int, outputs: int, radius: int) -> np.ndarray:
    """As :func:`row_foldings` for columns: (T, Tx, W + PIXEL_MULTIPLE), zeros behind the last."""
    weights = axis_folding(length, outputs, radius).weights.float().permute(1, 2, 0)
    return F.pad(weights, (0, PIXEL_MULTIPLE)).numpy()


def fold(kernels: Tensor, fold_y: Tensor, fold_x: Tensor) -> Tensor:
    """Kernels (B, T, T, H, W), foldings (H, T, Ty) and (W, T, Tx) -> (B, Ty, Tx, H, W), all of one dtype."""
    batch, height, width = len(kernels), *kernels.shape[3:]
    # rows first, as they are applied
    out = kernels.new_empty(batch, height, fold_y.shape[2], fold_x.shape[2], width)
    _share(_fold_rows, kernels.contiguous(), fold_y, fold_x, out)
    return out.permute(0, 2, 3, 1, 4)


def unfold(grad: Tensor, fold_y: Tensor, fold_x: Tensor) -> Tensor:
    """Gradient of :func:`fold`'s kernels (B, T, T, H, W) from that of its result (B, Ty, Tx, H, W)."""
    taps = fold_y.shape[1]
    out = grad.new_empty(len(grad), taps, taps, *grad.shape[3:])
    _share(_unfold_rows, grad.permute(0, 3, 1, 2, 4).contiguous(), fold_y, fold_x, out)
    return out


def _share(loop, source: Tensor, fold_y: Tensor, fold_x: Tensor, out: Tensor) -> None:
    fold_x = fold_x.permute(1, 2, 0).contiguous()  # (T, Tx, W)
    used = (fold_x != 0).any(2).numpy()  # (T, Tx)
    arrays = [tensor.detach().numpy() for tensor in (source, fold_y.contiguous(), fold_x, out)]
    source_all, rows, cols, out_all = arrays

    def run(image: int, top: int, bottom: int) -> None:
        loop(source_all[image], rows, cols, used, out_all[image], top, bottom)

    share_rows(run, len(out_all), len(rows))


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
