"""Joint bilateral layers: each output pixel is a weighted sum of the bicubically resized features around it.

The weights come from the image alone; a layer says how (:mod:`simfeatup.upsamplers.jbu` by learned keys,
:mod:`simfeatup.upsamplers.joint_bilateral` by colours), and this module does all else.

Source: Kopf et al., Joint bilateral upsampling, SIGGRAPH 2007; FeatUp (Fu et al., arXiv 2403.10516, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from simfeatup.errors import UpsamplerError
from simfeatup.ops.adaptive_conv import adaptive_conv
from simfeatup.ops.axes import reflect_pad
from simfeatup.ops.folding import Stage, fold_weights, make_stage
from simfeatup.upsamplers.base import LinearUpsampler, guidance_at
from simfeatup.upsamplers.reuse import KernelReuse


class BilateralLayer(nn.Module):
    """Base of layers that take features of any smaller size to the size of their guidance image.

    Args:
        radius: Neighbours on each side, so T = 2 radius + 1 taps a side.

    Raises:
        UpsamplerError: A radius below 1.
    """

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
        """Applies weights as the papers say: bicubic resizing, reflection, weighted sums.

        Args:
            features: (B, C, h, w), any C.
            weights: (B, T, T, H, W) of :meth:`neighbour_weights`.

        Returns:
            (B, C, H, W).
        """
        resized = F.interpolate(features, weights.shape[3:], mode='bicubic', align_corners=False)
        return adaptive_conv(reflect_pad(resized, self.radius), weights)

    def stage(
        self, guidance: Tensor, grid: Sequence[int], known: Tensor | None = None, first: int = 0
    ) -> Stage:
        """The kernels that do the resizing too, for features on a grid (h, w); the same result, much cheaper.

        Args:
            guidance: (B, 3, H, W) at the layer's output size.
            grid: (h, w).
            known: (B, n, Ty, Tx, W), kernels of n rows that need not be computed again; None for none.
            first: The first of these rows.
        """
        needs_gradients = torch.is_grad_enabled() and any(
            tensor.requires_grad for tensor in (guidance, *self.parameters())
        )
        is_float64 = guidance.dtype == torch.float64  # asks for more than the fused loops compute
        if not (self.training or needs_gradients or is_float64):
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
    """Base of upsamplers of several layers from the grid to the pixels.

    Args:
        dim: Channels C of the features.
    """

    def layers(self, grid: Sequence[int], size: Sequence[int]) -> list[tuple[BilateralLayer, tuple[int, int]]]:
        """The layer and the output size of every stage from (h, w) to (H, W)."""
        raise NotImplementedError

    def stages(self, guidance: Tensor, grid: Sequence[int], reuse: KernelReuse | None = None) -> list[Stage]:
        """See :class:`simfeatup.upsamplers.base.LinearUpsampler`."""
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
        """See :class:`simfeatup.upsamplers.base.LinearUpsampler`."""
        self.check(features, guidance)
        for layer, size in self.layers(features.shape[2:], guidance.shape[2:]):
            features = layer.resample(features, layer.neighbour_weights(guidance_at(guidance, size)))
        return features
