"""Bilinear interpolation, the upsampler without weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simfeatup.ops.folding import Stage
from simfeatup.upsamplers.base import LinearUpsampler
from simfeatup.upsamplers.reuse import KernelReuse


class Bilinear(LinearUpsampler):
    """Bilinear interpolation (align_corners=False); the guidance gives the size only.

    Args:
        dim: Channels C of the features.
    """

    def forward(self, features: Tensor, guidance: Tensor) -> Tensor:
        """See :class:`simfeatup.upsamplers.base.LinearUpsampler`."""
        self.check(features, guidance)
        return F.interpolate(features, guidance.shape[2:], mode='bilinear', align_corners=False)

    def stages(self, guidance: Tensor, grid: Sequence[int], reuse: KernelReuse | None = None) -> list[Stage]:
        """One stage of two taps an axis, the same for every image."""
        (rows, weights_y), (cols, weights_x) = (
            _taps(length, outputs, guidance) for length, outputs in zip(grid, guidance.shape[2:], strict=True)
        )
        kernels = torch.einsum('ay,cx->acyx', weights_y, weights_x)
        return [Stage(kernels.expand(len(guidance), -1, -1, -1, -1), rows, cols)]


def _taps(length: int, outputs: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Starts (outputs,) and weights (taps, outputs) of one axis."""
    positions = ((np.arange(outputs) + 0.5) * length / outputs - 0.5).clip(0, length - 1)
    taps = min(length, 2)
    starts = positions.astype(np.int64).clip(max=length - taps)
    weights = (1 - np.abs(positions - starts - np.arange(taps)[:, None])).clip(0)
    return torch.tensor(starts, device=like.device), torch.tensor(weights, dtype=like.dtype, device=like.device)
