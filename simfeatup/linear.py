"""Upsamplers as linear maps of the tokens, with weights that come from the image alone.

For ``jbu_one``, ``jbu_stack`` and ``bilinear``, ``f = A u + c`` at every pixel, u a weighted sum of the tokens. The
weights know neither the tokens nor their number of channels, so they are computed once for an image and applied to
whatever is wanted at full size: scores of texts, coordinates in a basis, or the features themselves.

    upsampler = linear_map(jbu)
    kernels = upsampler.kernels(guidance, grid)
    A, c = upsampler.final()
    hr_scores, squares = apply_norm(kernels, lr_maps, num_scores)  # texts . u, and the length of the other channels
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from simfeatup.adaptive_conv import adaptive_conv_norm
from simfeatup.folding import StageKernels
from simfeatup.jbu import FEATURE_FIXUP_WEIGHT, JBU, Bilinear
from simfeatup.joint_bilateral import JointBilateral, LinearJointBilateral
from simfeatup.stages import stage_inputs


class LinearMap(Protocol):
    """What an upsampler is that weighs tokens with weights from the image."""

    def kernels(self, guidance: Tensor, grid: Sequence[int]) -> list[StageKernels]:
        """Weights of every stage for a guidance (B, 3, H, W) and features on a grid (h, w)."""

    def final(self) -> tuple[Tensor, Tensor]:
        """A (C, C) and c (C,) of ``f = A u + c``."""


def linear_map(upsampler: nn.Module) -> LinearMap | None:
    """The linear map behind an upsampler, or None where it has none (resize_conv, carafe, sapa, ifa)."""
    for kind, adapter in ADAPTERS.items():
        if isinstance(upsampler, kind):
            return adapter(upsampler)
    return None


def apply_norm(kernels: Sequence[StageKernels], maps: Tensor, num_maps: int) -> tuple[Tensor, Tensor]:
    """Upsamples maps through all stages, but keeps of those beyond the first ``num_maps`` only the squared length.

    Args:
        kernels: Of :meth:`LinearMap.kernels`.
        maps: (B, C, h, w).
        num_maps: Channels to return, at most C.

    Returns:
        (B, num_maps, H, W) and (B, H, W).
    """
    return adaptive_conv_norm(maps, [(stage.kernels, stage.rows, stage.cols) for stage in kernels], num_maps)


class LinearJBU:
    """:class:`simfeatup.jbu.JBUOne` and :class:`simfeatup.jbu.JBUStack` as linear maps: A = I + 0.1 W, c = 0.1 b."""

    def __init__(self, upsampler: JBU) -> None:
        self.upsampler = upsampler

    def kernels(self, guidance: Tensor, grid: Sequence[int]) -> list[StageKernels]:
        """See :class:`LinearMap`."""
        layers, sizes = zip(*self.upsampler.stages(grid, guidance.shape[2:]), strict=True)
        inputs = stage_inputs(guidance, grid, sizes)
        return [layer.stage_kernels(*arguments) for layer, arguments in zip(layers, inputs, strict=True)]

    def final(self) -> tuple[Tensor, Tensor]:
        """See :class:`LinearMap`."""
        weight, bias = self.upsampler.channel_mixer
        identity = torch.eye(self.upsampler.dim, device=weight.device, dtype=weight.dtype)
        return identity + FEATURE_FIXUP_WEIGHT * weight.flatten(1), FEATURE_FIXUP_WEIGHT * bias


class LinearBilinear:
    """:class:`simfeatup.jbu.Bilinear` as a linear map: two taps an axis, the same for every image; A = I, c = 0."""

    def __init__(self, upsampler: Bilinear) -> None:
        self.upsampler = upsampler

    def kernels(self, guidance: Tensor, grid: Sequence[int]) -> list[StageKernels]:
        """See :class:`LinearMap`."""
        (rows, weights_y), (cols, weights_x) = (
            _bilinear_taps(n, total, guidance) for n, total in zip(grid, guidance.shape[2:], strict=True)
        )
        kernels = torch.einsum('ay,cx->acyx', weights_y, weights_x)
        return [StageKernels(kernels.expand(len(guidance), -1, -1, -1, -1), rows, cols)]

    def final(self) -> tuple[Tensor, Tensor]:
        """See :class:`LinearMap`."""
        return torch.eye(self.upsampler.dim), torch.zeros(self.upsampler.dim)


ADAPTERS: dict[type[nn.Module], Callable[..., LinearMap]] = {
    JBU: LinearJBU,
    Bilinear: LinearBilinear,
    JointBilateral: LinearJointBilateral,
}


def _bilinear_taps(length: int, outputs: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Starts (outputs,) and weights (taps, outputs) of bilinear resizing with align_corners=False."""
    positions = (torch.arange(outputs, dtype=torch.float64) + 0.5) * length / outputs - 0.5
    positions = positions.clamp(0, length - 1)
    taps = min(length, 2)
    starts = positions.long().clamp_max(length - taps)
    weights = (1 - (positions - starts - torch.arange(taps)[:, None]).abs()).clamp_min(0)
    return starts.to(like.device), weights.to(like)
