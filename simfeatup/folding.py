"""Resizing and padding, folded into the kernels that come after them.

A joint bilateral layer resizes its features bicubically, reflects them at the borders, and weighs the T x T
neighbours of each pixel. Resizing and reflection are linear and act on rows and columns apart, so the same result
comes from the small features directly, with kernels ``k'_ac = sum_ij Y_ia k_ij X_jc`` (Y, X: what tap i of an
output row is made of). Where the size doubles, 11 x 11 taps at the output become 9 x 9 at the input, four
neighbouring pixels share the features under them, and the resized, padded features never exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from simfeatup.adaptive_conv import adaptive_conv
from simfeatup.backends import choose_backend, is_proved
from simfeatup.padding import reflect_indices
from simfeatup.proof import BOTH, both_ways, pattern

CUBIC = -0.75  # torch's coefficient of bicubic interpolation


@dataclass(frozen=True)
class AxisFolding:
    """What the taps of each output row (or column) are in rows of the input.

    Attributes:
        starts: (H,) int64, first input row.
        weights: (H, T, Ty), weight of input row ``starts[y] + a`` in tap i of output row y.
    """

    starts: Tensor
    weights: Tensor

    def to(self, like: Tensor) -> AxisFolding:
        """The same on the device and in the dtype of another tensor."""
        return AxisFolding(self.starts.to(like.device), self.weights.to(like))


@dataclass(frozen=True)
class StageKernels:
    """Kernels of one stage, on the grid of its input; for any number of channels.

    Attributes:
        kernels: (B, Ty, Tx, H, W).
        rows: (H,), first input row under each output row.
        cols: (W,), first input column under each output column.
    """

    kernels: Tensor
    rows: Tensor
    cols: Tensor

    def apply(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, H, W)."""
        return adaptive_conv(maps, self.kernels, self.rows, self.cols)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # kept for later calls, which may be training
def axis_folding(length: int, outputs: int, radius: int) -> AxisFolding:
    """Bicubic resizing (align_corners=False) of one axis, then reflection by ``radius``, as weights of each tap.

    Args:
        length: Entries of the axis at the input.
        outputs: Entries at the output.
        radius: Neighbours on each side.

    Returns:
        In float64 on the CPU.
    """
    positions = (torch.arange(outputs, dtype=torch.float64) + 0.5) * length / outputs - 0.5
    base = positions.floor()
    fraction = positions - base
    distances = torch.stack([fraction + 1, fraction, 1 - fraction, 2 - fraction], 1)
    sources = (base.long()[:, None] + torch.arange(-1, 3)).clamp(0, length - 1)  # (H, 4)
    neighbours = reflect_indices(outputs, radius).unfold(0, 2 * radius + 1, 1)  # (H, T)
    sources, cubic = sources[neighbours], _cubic(distances)[neighbours]  # (H, T, 4)

    starts = sources.amin((1, 2))
    starts[1::2] = starts[: outputs // 2 * 2 : 2] = torch.minimum(starts[: outputs // 2 * 2 : 2], starts[1::2])
    taps = int((sources.amax((1, 2)) - starts).max()) + 1
    starts = starts.clamp_max(length - taps)
    weights = torch.zeros(outputs, 2 * radius + 1, taps, dtype=torch.float64)
    weights.scatter_add_(2, sources - starts[:, None, None], cubic)
    return AxisFolding(starts, weights)


def fold_kernels(kernels: Tensor, grid: Sequence[int]) -> StageKernels:
    """Kernels on the output's grid (B, T, T, H, W) -> on the input's grid (h, w)."""
    radius = kernels.shape[1] // 2
    rows, cols = (axis_folding(n, total, radius).to(kernels) for n, total in zip(grid, kernels.shape[3:], strict=True))
    operation = BOTH if torch.is_grad_enabled() and kernels.requires_grad else 'forward'
    dtype = _compute_dtype(kernels)
    is_compiled = choose_backend(kernels) == 'cpu' and is_proved(
        'cpu', (f'fold {operation}', dtype), partial(_prove, operation, dtype)
    )
    folded = (_Fold.apply if is_compiled else _reference)(kernels, rows.weights, cols.weights)
    return StageKernels(folded, rows.starts, cols.starts)


def _reference(kernels: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    folded_rows = torch.einsum('bijyx,yia->bajyx', kernels, rows)
    return torch.einsum('bajyx,xjc->bacyx', folded_rows, cols)


def _prove(operation: str, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    kernels = pattern(2, 5, 5, 6, 9, dtype=dtype).requires_grad_()
    arguments = kernels, *(axis_folding(*sizes, 2).to(kernels).weights for sizes in ((3, 6), (5, 9)))
    return both_ways(_Fold.apply(*arguments), _reference(*arguments), (kernels,) if operation == BOTH else ())


def _compute_dtype(kernels: Tensor) -> torch.dtype:
    return torch.float64 if kernels.dtype == torch.float64 else torch.float32


class _Fold(torch.autograd.Function):
    """The two sums by compiled loops; half precision is computed in float32."""

    @staticmethod
    def forward(ctx: Any, kernels: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        from simfeatup.cpu.fold import fold  # numba is loaded where it is used

        dtype = _compute_dtype(kernels)
        rows, cols = rows.to(dtype), cols.to(dtype)
        ctx.save_for_backward(rows, cols)
        return fold(kernels.detach().to(dtype), rows, cols).to(kernels.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from simfeatup.cpu.fold import unfold

        rows, cols = ctx.saved_tensors
        return unfold(grad.to(rows.dtype), rows, cols).to(grad.dtype), None, None


def _cubic(distances: Tensor) -> Tensor:
    near = ((CUBIC + 2) * distances - (CUBIC + 3)) * distances**2 + 1
    far = CUBIC * (((distances - 5) * distances + 8) * distances - 4)
    return torch.where(distances <= 1, near, far)
