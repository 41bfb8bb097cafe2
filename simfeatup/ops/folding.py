"""Resizing and padding, folded into the kernels that come after them.

A joint bilateral layer resizes its features bicubically, reflects them at the borders, and weighs the T x T
neighbours of each pixel. Resizing and reflection are linear and act on rows and columns apart, so the same result
comes from the small features directly, with kernels ``k'_ac = sum_ij Y_ia k_ij X_jc`` (Y, X: what tap i of an
output row is made of). Where the size doubles, 11 x 11 taps at the output become 9 x 9 at the input, four
neighbouring pixels share the features under them, and the resized, padded features never exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from simfeatup.ops.adaptive_conv import adaptive_conv
from simfeatup.ops.axes import AxisFolding, axis_folding
from simfeatup.ops.operator import Operator
from simfeatup.proof import pattern


class Stage(NamedTuple):
    """One step of an upsampler from a grid to a larger one, for any number of channels.

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


def fold_weights(weights: Tensor, grid: Sequence[int]) -> Tensor:
    """Weights of every pixel's neighbours (B, T, T, H, W) -> kernels on the input's grid (h, w), (B, H, Ty, Tx, W)."""
    return _FOLD(weights, *_foldings(weights, grid))


def fold_plainly(weights: Tensor, grid: Sequence[int]) -> Tensor:
    """As :func:`fold_weights`, by its definition: for definitions of operators that fold, too."""
    return _plain(weights, *_foldings(weights, grid))


def make_stage(kernels: Tensor, grid: Sequence[int], radius: int) -> Stage:
    """The stage of kernels (B, H, Ty, Tx, W), of weights of so many neighbours a side, on a grid (h, w)."""
    foldings = _axes(grid, (kernels.shape[1], kernels.shape[4]), radius)
    rows, cols = (torch.tensor(folding.starts, device=kernels.device) for folding in foldings)
    return Stage(kernels.permute(0, 2, 3, 1, 4), rows, cols)


def _foldings(weights: Tensor, grid: Sequence[int]) -> list[Tensor]:
    axes = _axes(grid, weights.shape[3:], weights.shape[1] // 2)
    return [torch.tensor(folding.weights, dtype=weights.dtype, device=weights.device) for folding in axes]


def _axes(grid: Sequence[int], size: Sequence[int], radius: int) -> list[AxisFolding]:
    """The foldings of rows and columns; sizes are symbols where torch traces."""
    return [axis_folding(int(length), int(total), int(radius)) for length, total in zip(grid, size, strict=True)]


def _plain(weights: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    folded_rows = torch.einsum('bijyx,yia->bajyx', weights, rows)
    return torch.einsum('bajyx,xjc->byacx', folded_rows, cols).contiguous()


def _example(sizes: tuple, dtype: torch.dtype, device: torch.device) -> tuple:
    weights = pattern(2, 5, 5, *sizes, dtype=dtype, device=device)
    return weights, *_foldings(weights, [(side + 1) // 2 for side in sizes])


_FOLD = Operator(
    'fold(Tensor weights, Tensor rows, Tensor cols) -> Tensor',
    _plain, {'cpu': 'simfeatup.ops.cpu.fold:fold'}, _example, (6, 9),
)  # fmt: skip
_FOLD.differentiate(1, {'cpu': 'simfeatup.ops.cpu.fold:fold_backward'})
