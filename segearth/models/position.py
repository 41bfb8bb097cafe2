"""Position tables for images of any size.

A CLIP tower has one learned position vector a patch of its training size; other grids get an interpolated table.
The two rules differ slightly, and figures depend on it, so each read-out states its own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE_OFFSET = 0.1  # patches; the DINO code adds it so that rounding cannot lose a row, and the original keeps it


def resize_positions(table: Tensor, trained_grid: tuple[int, int], grid_size: tuple[int, int]) -> Tensor:
    """Interpolates a position table by the scale factor ``(side + 0.1) / trained_side``, bicubically.

    Args:
        table: (1 + h0*w0, C), [CLS] first.
        trained_grid: (h0, w0) in patches.
        grid_size: (h, w) wanted.

    Returns:
        (1 + h*w, C). The table itself where the grids are equal.

    Source: DINO's interpolation of position encodings, as the original SegEarth-OV-2 uses it.
    """
    scale = tuple((side + SCALE_OFFSET) / trained for side, trained in zip(grid_size, trained_grid, strict=True))
    return _resize(table, trained_grid, grid_size, scale_factor=scale)


def resize_positions_antialiased(table: Tensor, trained_grid: tuple[int, int], grid_size: tuple[int, int]) -> Tensor:
    """Interpolates a position table to the target size, bicubically with antialiasing; shapes as above.

    Source: the rule of timm and open_clip, which GEM uses.
    """
    return _resize(table, trained_grid, grid_size, size=grid_size, antialias=True)


def _resize(table: Tensor, trained_grid: tuple[int, int], grid_size: tuple[int, int], **how: Any) -> Tensor:
    if grid_size == trained_grid:
        return table
    cls_position, patch_positions = table[:1], table[1:]
    grid = patch_positions.float().reshape(1, *trained_grid, -1).permute(0, 3, 1, 2)  # NLD -> NCHW
    grid = F.interpolate(grid, mode='bicubic', align_corners=False, **how)
    if grid.shape[-2:] != grid_size:
        raise RuntimeError(f'position table resized to {tuple(grid.shape[-2:])} instead of {grid_size}')
    return torch.cat([cls_position, grid.permute(0, 2, 3, 1).flatten(0, 2).to(table.dtype)])
