"""Geometry of an axis: reflection at the borders, and bicubic resizing folded into the taps that come after it."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

CUBIC = -0.75  # torch's coefficient of bicubic interpolation


class AxisFolding(NamedTuple):
    """What the taps of each output row (or column) are in rows of the input.

    Attributes:
        starts: (H,) int64, first input row.
        weights: (H, T, Ty) float64, weight of input row ``starts[y] + a`` in tap i of output row y.
    """

    starts: np.ndarray
    weights: np.ndarray


@lru_cache(maxsize=256)
def axis_folding(length: int, outputs: int, radius: int) -> AxisFolding:
    """Bicubic resizing (align_corners=False) of one axis, then reflection by ``radius``, as weights of each tap.

    Args:
        length: Entries of the axis at the input.
        outputs: Entries at the output.
        radius: Neighbours on each side, so T = 2 radius + 1 taps.
    """
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
    """Pads the two last axes by reflection without repeating the edge, as often as a small map needs it.

    Args:
        maps: (B, C, H, W) of any size.
        radius: Pixels added on each side.

    Returns:
        (B, C, H + 2 radius, W + 2 radius). Where both sides exceed the radius it is ``F.pad(mode='reflect')``.
    """
    if radius < min(maps.shape[2:]):
        return F.pad(maps, [radius] * 4, mode='reflect')
    rows, cols = (torch.tensor(reflect_indices(side, radius), device=maps.device) for side in maps.shape[2:])
    return maps.index_select(2, rows).index_select(3, cols)


def _cubic(distances: np.ndarray) -> np.ndarray:
    near = ((CUBIC + 2) * distances - (CUBIC + 3)) * distances**2 + 1
    far = CUBIC * (((distances - 5) * distances + 8) * distances - 4)
    return np.where(distances <= 1, near, far)
