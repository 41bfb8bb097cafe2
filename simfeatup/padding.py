"""Reflection at the borders, for maps of any size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


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
    height, width = (reflect_indices(n, radius, maps.device) for n in maps.shape[2:])
    return maps.index_select(2, height).index_select(3, width)


def reflect_indices(length: int, radius: int, device: torch.device | None = None) -> Tensor:
    """Indices (length + 2 radius,) into an axis of ``length`` entries that is mirrored at its first and last entry."""
    positions = torch.arange(-radius, length + radius, device=device)
    period = max(2 * (length - 1), 1)
    positions = positions.remainder(period)
    return torch.minimum(positions, period - positions) if length > 1 else torch.zeros_like(positions)
