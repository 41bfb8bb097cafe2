"""Resizing and padding, folded into the kernels that come after them.

A joint bilateral layer resizes its features bicubically, reflects them at the borders, and weighs the T x T
neighbours of each pixel. Resizing and reflection are linear and act on rows and columns apart, so the same result
comes from the small features directly, with kernels ``k'_ac = sum_ij Y_ia k_ij X_jc`` (Y, X: what tap i of an
output row is made of). Where the size doubles, 11 x 11 taps at the output become 9 x 9 at the input, four
neighbouring pixels share the features under them, and the resized, padded features never exist.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simfeatup.ops.adaptive_conv import adaptive_conv
from simfeatup.ops.operator import Operator
from simfeatup.proof import pattern

CUBIC = -0.75  # torch's coefficient of bicubic interpolation


class AxisFolding(NamedTuple):
    """What the taps of each output row (or column) are in rows of the input."""

    starts: np.ndarray  # (H,) int64, first input row
    weights: np.ndarray  # (H, T, Ty) float64, weight of input row ``starts[y] + a`` in tap i of output row y


@lru_cache(maxsize=256)
def axis_folding(length: int, outputs: int, radius: int) -> AxisFolding:
    """Bicubic resizing of one axis from length to outputs, then reflection, as weights of T = 2 radius + 1 taps."""
    positions = (np.arange(outputs) + 0.5) * length / outputs - 0.5
    base = np.floor(positions)
    fraction = positions - base
    distances = np.stack([fraction + 1, fraction, 1 - fraction, 2 - fraction], 1)
    sources = (base.astype(np.int64)[:, None] + np.arange(-1, 3)).clip(0, length - 1)  # (H, 4)
    neighbours = np.arange(outputs)[:, None] + np.arange(2 * radius + 1)
    neighbours = reflect_indices(outputs, radius)[neighbours]  # (H, T)
    sources, cubic = sources[neighbours], _cubic(distances)[neighbours]  # (H, T, 4)

    starts = sources.min((1, 2))
    pairs = outputs // 2 * 2
    starts[1::2] = starts[:pairs:2] = np.minimum(starts[:pairs:2], starts[1::2])
    taps = int((sources.max((1, 2)) - starts).max()) + 1
    starts = starts.clip(max=length - taps)
    weights = np.zeros((outputs, 2 * radius + 1, taps))
    rows, cells = np.ogrid[:outputs, : 2 * radius + 1]
    np.add.at(weights, (rows[..., None], cells[..., None], sources - starts[:, None, None]), cubic)
    return AxisFolding(starts, weights)


def reflect_indices(length: int, radius: int) -> np.ndarray:
    """Indices (length + 2 radius,) into an axis of ``length`` entries that is mirrored at its first and last entry."""
    positions = np.arange(-radius, length + radius)
    period = max(2 * (length - 1), 1)
    positions = positions % period
    return np.minimum(positions, period - positions) if length > 1 else np.zeros_like(positions)


def reflect_pad(maps: Tensor, radius: int) -> Tensor:
    """``F.pad(mode='reflect')`` by ``radius`` on each side, repeated as often as maps (B, C, H, W) below it need."""
    if radius < min(maps.shape[2:]):
        return F.pad(maps, [radius] * 4, mode='reflect')
    rows, cols = (torch.tensor(reflect_indices(side, radius), device=maps.device) for side in maps.shape[2:])
    return maps.index_select(2, rows).index_select(3, cols)


def _cubic(distances: np.ndarray) -> np.ndarray:
    near = ((CUBIC + 2) * distances - (CUBIC + 3)) * distances**2 + 1
    far = CUBIC * (((distances - 5) * distances + 8) * distances - 4)
    return np.where(distances <= 1, near, far)


class Stage(NamedTuple):
    """One step of an upsampler from a grid to a larger one, for any number of channels."""

    kernels: Tensor  # (B, Ty, Tx, H, W)
    rows: Tensor  # (H,), first input row under each output row
    cols: Tensor  # (W,), likewise of the columns

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
    rows, cols = (torch.as_tensor(folding.starts, device=kernels.device) for folding in foldings)
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
    _plain, {'cpu': 'simfeatup.ops.cpu.joint:fold'}, _example, (6, 9),
)  # fmt: skip
_FOLD.differentiate(1, {'cpu': 'simfeatup.ops.cpu.joint:fold_backward'})
