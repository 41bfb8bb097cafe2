"""Joint bilateral upsampling by the image's colours: nothing is learned, for encoders without trained upsamplers.

The honest control of any trained upsampler, too: most of what upsampling gains comes from the image's edges, which
this filter follows as well. Each doubling weighs the neighbours by their distance and by the likeness of colours.

Source: Kopf et al., Joint bilateral upsampling, SIGGRAPH 2007.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from simfeatup.errors import UpsamplerError
from simfeatup.ops.stages import colour_kernels, colour_weights, spatial_kernel
from simfeatup.upsamplers.base import stage_sizes
from simfeatup.upsamplers.bilateral import BilateralLayer, BilateralUpsampler

RADIUS = 5  # neighbours on each side, as jbu_one
SIGMA_SPATIAL = 0.8  # of half a window, as jbu's; found on generated scenes
SIGMA_RANGE = 0.15  # of the normalised image's standard deviation; likewise


class ColourLayer(BilateralLayer):
    """One doubling: normalised weights ``exp(-d_i^2 / 2 sigma_spatial^2 - |g_i - g|^2 / 2 sigma_range^2)``.

    Args:
        radius: Neighbours on each side.
        sigma_spatial: Width of the weights by distance, the window spanning -1 to 1.
        sigma_range: Width of the weights by the difference of colours in the normalised image.
    """

    def __init__(self, radius: int, sigma_spatial: float, sigma_range: float) -> None:
        super().__init__(radius)
        self.sigma_spatial, self.sigma_range = sigma_spatial, sigma_range
        spatial = spatial_kernel(torch.tensor(sigma_spatial, dtype=torch.float32, device='cpu'), radius)
        self.spatial: Tensor
        self.register_buffer('spatial', spatial, persistent=False)

    def neighbour_weights(self, guidance: Tensor) -> Tensor:
        """See :class:`simfeatup.upsamplers.bilateral.BilateralLayer`; they sum to 1."""
        return colour_weights(guidance, self.spatial, self.sigma_range)

    def fused_kernels(self, guidance: Tensor, grid: Sequence[int], known: Tensor | None, first: int) -> Tensor:
        """See :class:`simfeatup.upsamplers.bilateral.BilateralLayer`."""
        return colour_kernels(guidance, list(grid), self.spatial, self.sigma_range, known, first)


class JointBilateral(BilateralUpsampler):
    """Doublings by :class:`ColourLayer`, the image averaged to each one's size.

    Args:
        dim: Channels C of the features.
        radius: Neighbours on each side.
        sigma_spatial: Width of the weights by distance, the window spanning -1 to 1.
        sigma_range: Width of the weights by the difference of colours in the normalised image.

    Raises:
        UpsamplerError: A radius or a width that is not positive.
    """

    def __init__(
        self,
        dim: int,
        radius: int = RADIUS,
        sigma_spatial: float = SIGMA_SPATIAL,
        sigma_range: float = SIGMA_RANGE,
    ) -> None:
        super().__init__(dim)
        if radius < 1 or sigma_spatial <= 0 or sigma_range <= 0:
            raise UpsamplerError(
                'joint_bilateral needs a radius of 1 or more and sigmas above 0; got '
                f'radius={radius}, sigma_spatial={sigma_spatial}, sigma_range={sigma_range}.'
            )
        self.layer = ColourLayer(radius, sigma_spatial, sigma_range)

    def layers(self, grid: Sequence[int], size: Sequence[int]) -> list[tuple[BilateralLayer, tuple[int, int]]]:
        """As many doublings as the ratio needs."""
        return [(self.layer, stage) for stage in stage_sizes(grid, size)]
