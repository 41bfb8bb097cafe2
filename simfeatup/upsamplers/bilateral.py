"""Joint bilateral layers: each output pixel is a weighted sum of the bicubically resized features around it.

The weights come from the image alone. By its colours, as here, nothing is learned: for encoders without trained
upsamplers, and the honest control of any trained one, for most of what upsampling gains comes from the image's edges,
which this filter follows as well. :mod:`simfeatup.upsamplers.jbu` has learned keys.

Source: Kopf et al., Joint bilateral upsampling, SIGGRAPH 2007; FeatUp (Fu et al., arXiv 2403.10516, section 3.1).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from simfeatup.errors import UpsamplerError
from simfeatup.ops.adaptive_conv import adaptive_conv
from simfeatup.ops.folding import Stage, fold_weights, make_stage, reflect_pad
from simfeatup.ops.stages import colour_kernels, colour_weights, spatial_kernel
from simfeatup.upsamplers.base import KernelReuse, LinearUpsampler, guidance_at, stage_sizes

RADIUS = 5  # neighbours on each side, as jbu_one
SIGMA_SPATIAL = 0.8  # of half a window, as jbu's; found on generated scenes
SIGMA_RANGE = 0.15  # of the normalised image's standard deviation; likewise


class BilateralLayer(nn.Module):
    """Base of layers that take features of any smaller size to their guidance's; T = 2 radius + 1 taps a side."""

    def __init__(self, radius: int) -> None:
        super().__init__()
        if radius < 1:
            raise UpsamplerError(f'A layer needs a radius of at least 1; got {radius}.')
        self.radius = radius

    def neighbour_weights(self, guidance: Tensor) -> Tensor:
        """Weights (B, T, T, H, W) of every pixel's neighbours, from a guidance (B, 3, H, W) of the output's size."""
        raise NotImplementedError

    def fused_kernels(self, guidance: Tensor, grid: Sequence[int], known: Tensor | None, first: int) -> Tensor:
        """The weights folded, in one go and without gradients; see :mod:`simfeatup.ops.stages`."""
        raise NotImplementedError

    def resample(self, features: Tensor, weights: Tensor) -> Tensor:
        """Applies weights (B, T, T, H, W) as the papers say: bicubic resizing, reflection, weighted sums."""
        resized = F.interpolate(features, weights.shape[3:], mode='bicubic', align_corners=False)
        return adaptive_conv(reflect_pad(resized, self.radius), weights)

    def stage(self, guidance: Tensor, grid: Sequence[int], known: Tensor | None = None, first: int = 0) -> Stage:
        """The kernels that do the resizing too, for features on a grid (h, w); the same result, much cheaper.

        ``known`` (B, n, Ty, Tx, W) are kernels of n rows, from ``first`` on, that need not be computed again.
        """
        needs_gradients = torch.is_grad_enabled() and any(
            tensor.requires_grad for tensor in (guidance, *self.parameters())
        )
        has_dropout = self.training and next(self.parameters(), None) is not None
        is_float64 = guidance.dtype == torch.float64  # asks for more than the fused loops compute
        if not (has_dropout or needs_gradients or is_float64):
            kernels = self.fused_kernels(guidance, grid, known, first)
        elif not needs_gradients:
            kernels = self._fold(guidance, grid)
        else:  # Image by image, and again in the backward pass: the weights are many times larger than the kernels.
            parts = [checkpoint(self._fold, image, grid, use_reentrant=False) for image in guidance.split(1)]
            kernels = torch.cat(parts)
        return make_stage(kernels, grid, self.radius)

    def forward(self, features: Tensor, guidance: Tensor) -> Tensor:
        """(B, C, h, w) features and (B, 3, H, W) guidance at the output size -> (B, C, H, W)."""
        return self.stage(guidance, features.shape[2:]).apply(features)

    def _fold(self, guidance: Tensor, grid: Sequence[int]) -> Tensor:
        return fold_weights(self.neighbour_weights(guidance), grid)


class BilateralUpsampler(LinearUpsampler):
    """Base of upsamplers of several layers from the grid to the pixels."""

    def layers(self, grid: Sequence[int], size: Sequence[int]) -> list[tuple[BilateralLayer, tuple[int, int]]]:
        """The layer and the output size of every stage from (h, w) to (H, W)."""
        raise NotImplementedError

    def stages(self, guidance: Tensor, grid: Sequence[int], reuse: KernelReuse | None = None) -> list[Stage]:
        """As in the base."""
        layers, sizes = zip(*self.layers(grid, guidance.shape[2:]), strict=True)
        # All averages come first, for torch's threads are awake then; among compiled loops each would wake them.
        guidances = [guidance_at(guidance, size) for size in sizes]
        stages = []
        for index, (layer, image, size) in enumerate(zip(layers, guidances, [grid, *sizes[:-1]], strict=True)):
            key = self, index, tuple(grid)
            known = reuse.take_over(key, image, size[0], layer.radius) if reuse else (None, 0)
            stages.append(layer.stage(image, size, *known))
            if reuse:
                reuse.keep(key, image, stages[-1].kernels.permute(0, 3, 1, 2, 4))
        return stages

    def define(self, features: Tensor, guidance: Tensor) -> Tensor:
        """As in the base."""
        self.check(features, guidance)
        for layer, size in self.layers(features.shape[2:], guidance.shape[2:]):
            features = layer.resample(features, layer.neighbour_weights(guidance_at(guidance, size)))
        return features


class ColourLayer(BilateralLayer):
    """One doubling: normalised weights ``exp(-d_i^2 / 2 sigma_spatial^2 - |g_i - g|^2 / 2 sigma_range^2)``."""

    def __init__(self, radius: int, sigma_spatial: float, sigma_range: float) -> None:
        super().__init__(radius)
        self.sigma_spatial, self.sigma_range = sigma_spatial, sigma_range
        spatial = spatial_kernel(torch.tensor(sigma_spatial, dtype=torch.float32, device='cpu'), radius)
        self.spatial: Tensor
        self.register_buffer('spatial', spatial, persistent=False)

    def neighbour_weights(self, guidance: Tensor) -> Tensor:
        """As in the base; they sum to 1."""
        return colour_weights(guidance, self.spatial, self.sigma_range)

    def fused_kernels(self, guidance: Tensor, grid: Sequence[int], known: Tensor | None, first: int) -> Tensor:
        """As in the base."""
        return colour_kernels(guidance, list(grid), self.spatial, self.sigma_range, known, first)


class JointBilateral(BilateralUpsampler):
    """Doublings by :class:`ColourLayer`, the image averaged to each one's size.

    The window spans -1 to 1 for ``sigma_spatial``; ``sigma_range`` is of the colours of the normalised image.
    """

    def __init__(
        self, dim: int, radius: int = RADIUS, sigma_spatial: float = SIGMA_SPATIAL, sigma_range: float = SIGMA_RANGE
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
