"""Joint bilateral upsampling with a learned range kernel: the upsampler of SimFeatUp and of FeatUp.

Source: FeatUp (Fu et al., arXiv 2403.10516, section 3.1) and SegEarth-OV (Li et al., arXiv 2410.01768,
section 3.3). Followed: the equations, the constants below and the parameter names of the released checkpoints.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simfeatup.errors import UpsamplerError
from simfeatup.ops.stages import learned_kernels, learned_weights, spatial_kernel
from simfeatup.upsamplers.base import stage_sizes
from simfeatup.upsamplers.bilateral import BilateralLayer, BilateralUpsampler

KERNEL_FIXUP_WEIGHT = 0.1  # share of the MLP in a layer's weights, FeatUp's code
FEATURE_FIXUP_WEIGHT = 0.1  # share of the last 1x1 convolution in the features, FeatUp's code
TEMPERATURE_RANGE = (1e-4, 1e4)
KERNEL_DROPOUT = 0.1
FEATURE_DROPOUT = 0.2


class JBULayer(BilateralLayer):
    """One joint bilateral layer: weights ``k + 0.1 MLP(k, guidance)``, k by distance and likeness of learned keys.

    The attribute names ``range_proj``, ``range_temp``, ``fixup_proj``, ``sigma_spatial`` and the places inside the
    sequences are those of the released checkpoints.
    """

    def __init__(self, radius: int = 3, key_dim: int = 32, dropout: float = KERNEL_DROPOUT) -> None:
        super().__init__(radius)
        taps = (2 * radius + 1) ** 2
        self.range_temp = nn.Parameter(torch.tensor(0.0))
        self.sigma_spatial = nn.Parameter(torch.tensor(1.0))
        self.range_proj = _two_convs(3, key_dim, dropout)
        self.fixup_proj = _two_convs(3 + taps, taps, dropout)

    @property
    def temperature(self) -> Tensor:
        """Temperature of the range kernel's softmax, a scalar."""
        return self.range_temp.exp().clamp(*TEMPERATURE_RANGE)

    def spatial_kernel(self) -> Tensor:
        """Weights by distance, (T, T)."""
        return spatial_kernel(self.sigma_spatial, self.radius)

    def neighbour_weights(self, guidance: Tensor) -> Tensor:
        """As in the base."""
        return learned_weights(
            guidance, self.temperature, self.spatial_kernel(), self.range_proj,
            lambda inputs: KERNEL_FIXUP_WEIGHT * self.fixup_proj(inputs),
        )  # fmt: skip

    def fused_kernels(self, guidance: Tensor, grid: Sequence[int], known: Tensor | None, first: int) -> Tensor:
        """As in the base."""
        convs = [module for module in (*self.range_proj, *self.fixup_proj) if isinstance(module, nn.Conv2d)]
        *keys, weight1, bias1, weight2, bias2 = (
            tensor for conv in convs for tensor in (conv.weight, conv.bias) if tensor is not None
        )
        correction = [weight1, bias1, KERNEL_FIXUP_WEIGHT * weight2, KERNEL_FIXUP_WEIGHT * bias2]
        spatial = self.spatial_kernel()
        return learned_kernels(guidance, list(grid), self.temperature, spatial, keys, correction, known, first)


class JBU(BilateralUpsampler):
    """Several layers, then a 1x1 convolution: ``f = u + 0.1 (W u + b)``; base of :class:`JBUOne`, :class:`JBUStack`.

    Options of both are the radius (neighbours on each side), ``key_dim`` (channels of the keys) and ``with_dropout``
    (leave out channels in training, in the layers and before the convolution, as released).
    """

    DIM_KEY = 'fixup_proj.1.bias'

    def __init__(self, dim: int, with_dropout: bool = True) -> None:
        super().__init__(dim)
        self.fixup_proj = nn.Sequential(nn.Dropout2d(with_dropout * FEATURE_DROPOUT), nn.Conv2d(dim, dim, 1))

    def channel_map(self) -> tuple[Tensor, Tensor]:
        """As in the base: A = I + 0.1 W, c = 0.1 b."""
        weight, bias = self._convolution()
        identity = torch.eye(self.dim, device=weight.device, dtype=weight.dtype)
        return identity + FEATURE_FIXUP_WEIGHT * weight.flatten(1), FEATURE_FIXUP_WEIGHT * bias

    def forward(self, features: Tensor, guidance: Tensor) -> Tensor:
        """As in the base."""
        self.check(features, guidance)  # a layer weighs pixels, the convolution channels: they commute
        return self._add_bias(super().forward(self._mix_channels(features), guidance))

    def define(self, features: Tensor, guidance: Tensor) -> Tensor:
        """As in the base."""
        return self._add_bias(self._mix_channels(super().define(features, guidance)))

    def _mix_channels(self, features: Tensor) -> Tensor:
        """``(I + 0.1 W) x``, with whole channels dropped in training."""
        mixed = F.conv2d(self.fixup_proj[0](features), self._convolution()[0])
        return torch.add(features, mixed, alpha=FEATURE_FIXUP_WEIGHT)

    def _add_bias(self, features: Tensor) -> Tensor:
        bias = FEATURE_FIXUP_WEIGHT * self._convolution()[1][:, None, None]
        return features + bias if features.requires_grad else features.add_(bias)  # in place autograd would copy views

    def _convolution(self) -> tuple[Tensor, Tensor]:
        """Weight (C, C, 1, 1) and bias (C,)."""
        conv = self.fixup_proj[1]
        return conv.get_parameter('weight'), conv.get_parameter('bias')


class JBUOne(JBU):
    """SimFeatUp: one layer of radius 5, used for every doubling (four times for patch 16, five for patch 32)."""

    def __init__(self, dim: int, radius: int = 5, key_dim: int = 32, with_dropout: bool = True) -> None:
        super().__init__(dim, with_dropout)
        self.up = JBULayer(radius, key_dim, dropout=with_dropout * KERNEL_DROPOUT)

    def layers(self, grid: Sequence[int], size: Sequence[int]) -> list[tuple[BilateralLayer, tuple[int, int]]]:
        """As many doublings as the ratio needs, all by the same layer."""
        return [(self.up, stage) for stage in stage_sizes(grid, size)]


class JBUStack(JBU):
    """FeatUp: four layers of radius 3, each with its own weights; the fourth goes to the guidance's size."""

    def __init__(self, dim: int, radius: int = 3, key_dim: int = 32, with_dropout: bool = True) -> None:
        super().__init__(dim, with_dropout)
        layers = (JBULayer(radius, key_dim, dropout=with_dropout * KERNEL_DROPOUT) for _ in range(4))
        self.up1, self.up2, self.up3, self.up4 = layers

    def layers(self, grid: Sequence[int], size: Sequence[int]) -> list[tuple[BilateralLayer, tuple[int, int]]]:
        """Three doublings and the exact last step."""
        layers = (self.up1, self.up2, self.up3, self.up4)
        return list(zip(layers, stage_sizes(grid, size, len(layers)), strict=True))


def _two_convs(in_channels: int, out_channels: int, dropout: float) -> nn.Sequential:
    if min(in_channels, out_channels) < 1:
        raise UpsamplerError(f'A layer needs at least one channel; got {in_channels} in, {out_channels} out.')
    first, last = nn.Conv2d(in_channels, out_channels, 1), nn.Conv2d(out_channels, out_channels, 1)
    return nn.Sequential(first, nn.GELU(), nn.Dropout2d(dropout), last)
