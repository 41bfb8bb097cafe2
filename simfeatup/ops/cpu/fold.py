"""Folding of weights on CPUs (:func:`simfeatup.ops.folding.fold_weights`), and its transpose for the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from simfeatup.ops.cpu.parallel import compiled, share_rows


def fold(weights: Tensor, fold_y: Tensor, fold_x: Tensor) -> Tensor:
    """Weights (B, T, T, H, W), foldings (H, T, Ty) and (W, T, Tx) -> (B, H, Ty, Tx, W)."""
    batch, height, width = len(weights), *weights.shape[3:]
    out = weights.new_empty(batch, height, fold_y.shape[2], fold_x.shape[2], width)
    _share(_fold_rows, weights.contiguous(), fold_y, fold_x, out)
    return out


def fold_backward(grad: Tensor, weights: Tensor, fold_y: Tensor, fold_x: Tensor, needs: list[bool]) -> list[Tensor]:
    """Gradient of the weights from that of the result."""
    out = grad.new_empty(weights.shape)
    _share(_unfold_rows, grad.contiguous(), fold_y, fold_x, out)
    return [out]


def _share(loop: Callable, source: Tensor, fold_y: Tensor, fold_x: Tensor, out: Tensor) -> None:
    fold_x = fold_x.permute(1, 2, 0).contiguous()  # (T, Tx, W)
    used = (fold_x != 0).any(2).numpy()  # (T, Tx)
    sources, rows, cols, targets = (tensor.numpy() for tensor in (source, fold_y.contiguous(), fold_x, out))

    def run(image: int, top: int, bottom: int) -> None:
        loop(sources[image], rows, cols, used, targets[image], top, bottom)

    share_rows(run, len(targets), len(rows))


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
