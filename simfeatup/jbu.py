"""Joint bilateral upsampling with a learned range kernel: the upsampler of SimFeatUp and of FeatUp.

A layer takes features of any smaller size to the size of its guidance image. Each output pixel is a weighted sum
of the bicubically resized features around it; the weights come from the image alone, so they are computed apart
from their application (:meth:`JBULayer.kernels`, :meth:`JBULayer.resample`) and hold for any number of channels.

Source: FeatUp (Fu et al., arXiv 2403.10516, section 3.1) and SegEarth-OV (Li et al., arXiv 2410.01768,
section 3.3). Followed: the equations, the constants below and the parameter names of the released checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from simfeatup.adaptive_conv import adaptive_conv
from simfeatup.backends import choose_backend, is_proved, use_backend
from simfeatup.errors import UpsamplerError
from simfeatup.folding import StageKernels, fold_kernels
from simfeatup.joint_kernel import joint_kernel
from simfeatup.padding import reflect_pad
from simfeatup.proof import pattern
from simfeatup.stages import check_inputs, guidance_at, stage_sizes

KERNEL_FIXUP_WEIGHT = 0.1  # share of the MLP in a layer's kernel, FeatUp's code
FEATURE_FIXUP_WEIGHT = 0.1  # share of the last 1x1 convolution in the features, FeatUp's code
TEMPERATURE_RANGE = (1e-4, 1e4)
KERNEL_DROPOUT = 0.1
FEATURE_DROPOUT = 0.2


class JBULayer(nn.Module):
    """One joint bilateral layer.

    The attribute names ``range_proj``, ``range_temp``, ``fixup_proj``, ``sigma_spatial`` and the places inside the
    sequences are those of the released checkpoints.

    Args:
        radius: Neighbours on each side, so T = 2 radius + 1 taps a side.
        key_dim: Channels of the keys the range kernel compares.
        guidance_dim: Channels of the guidance.
        dropout: Share of hidden channels left out in training.

    Raises:
        UpsamplerError: A radius or a number of channels below 1.
    """

    def __init__(
        self, radius: int = 3, key_dim: int = 32, guidance_dim: int = 3, dropout: float = KERNEL_DROPOUT
    ) -> None:
        super().__init__()
        if radius < 1:
            raise UpsamplerError(f'A layer needs a radius of at least 1; got {radius}.')
        self.radius = radius
        taps = (2 * radius + 1) ** 2
        self.range_temp = nn.Parameter(torch.tensor(0.0))
        self.sigma_spatial = nn.Parameter(torch.tensor(1.0))
        self.range_proj = _two_convs(guidance_dim, key_dim, dropout)
        self.fixup_proj = _two_convs(guidance_dim + taps, taps, dropout)

    @property
    def temperature(self) -> Tensor:
        """Of the range kernel's softmax."""
        return self.range_temp.exp().clamp(*TEMPERATURE_RANGE)

    def spatial_kernel(self) -> Tensor:
        """Gaussian of the distance to the centre, (T, T); the window spans -1 to 1 on both axes."""
        sigma = self.sigma_spatial
        offsets = torch.linspace(-1, 1, 2 * self.radius + 1, device=sigma.device, dtype=sigma.dtype)
        return torch.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * sigma**2))

    def kernels(self, guidance: Tensor) -> Tensor:
        """Weights of every pixel's neighbourhood.

        Args:
            guidance: (B, 3, H, W) at the layer's output size, normalised as the encoder's input.

        Returns:
            (B, T, T, H, W), ``k + 0.1 MLP(k, guidance)``, k of :func:`simfeatup.joint_kernel.joint_kernel`.
        """
        keys = reflect_pad(self.range_proj(guidance), self.radius)
        kernel = joint_kernel(keys, self.temperature, self.spatial_kernel())
        fixup = self.fixup_proj(torch.cat([kernel.flatten(1, 2), guidance], 1))
        return kernel + KERNEL_FIXUP_WEIGHT * fixup.unflatten(1, kernel.shape[1:3])

    def resample(self, features: Tensor, kernels: Tensor) -> Tensor:
        """Applies kernels as the paper says: bicubic resizing, reflection, weighted sums.

        Args:
            features: (B, C, h, w), any C.
            kernels: (B, T, T, H, W) of :meth:`kernels`.

        Returns:
            (B, C, H, W).
        """
        resized = F.interpolate(features, kernels.shape[3:], mode='bicubic', align_corners=False)
        return adaptive_conv(reflect_pad(resized, self.radius), kernels)

    def stage_kernels(self, guidance: Tensor, grid: Sequence[int]) -> StageKernels:
        """Kernels that do the resizing too, for features on a grid (h, w); the same result, much cheaper.

        Args:
            guidance: (B, 3, H, W) at the layer's output size.
            grid: (h, w).

        Returns:
            See :class:`simfeatup.folding.StageKernels`.
        """
        is_float64 = guidance.dtype == torch.float64  # asks for more than the fused loops compute
        is_fused = choose_backend(guidance) == 'cpu' and not is_float64 and not self._needs_gradients(guidance)
        if is_fused and is_proved('cpu', ('layer',), _prove_layer):
            from simfeatup.cpu.layer import stage_kernels  # numba is loaded where it is used

            return stage_kernels(self, guidance, grid)
        if not torch.is_grad_enabled():
            return self._fold(guidance, grid)
        # Image by image, and again in the backward pass: what lies between guidance and folded kernels is many
        # times larger than they are.
        stages = [checkpoint(self._fold, image, grid, use_reentrant=False) for image in guidance.split(1)]
        return replace(stages[0], kernels=torch.cat([stage.kernels for stage in stages]))

    def forward(self, features: Tensor, guidance: Tensor) -> Tensor:
        """(B, C, h, w) features and (B, 3, H, W) guidance at the output size -> (B, C, H, W)."""
        if choose_backend(features) == 'reference':
            return self.resample(features, self.kernels(guidance))
        return self.stage_kernels(guidance, features.shape[2:]).apply(features)

    def _fold(self, guidance: Tensor, grid: Sequence[int]) -> StageKernels:
        return fold_kernels(self.kernels(guidance), grid)

    def _needs_gradients(self, guidance: Tensor) -> bool:
        tensors = (guidance, *self.parameters())
        return self.training or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))


@torch.no_grad()
def _prove_layer() -> Iterator[tuple[Tensor, Tensor]]:
    """Kernels of a small layer from the fused loops, and from the reference."""
    from simfeatup.cpu.layer import stage_kernels

    with torch.device('meta'):  # where no random numbers are drawn
        layer = JBULayer(radius=2, key_dim=5)
    layer = layer.to_empty(device='cpu').float().eval()
    for parameter in layer.parameters():
        parameter.copy_(pattern(*parameter.shape, dtype=torch.float32))
    guidance = pattern(2, 3, 6, 40, dtype=torch.float32)
    fast = stage_kernels(layer, guidance, (3, 20)).kernels
    with use_backend('reference'):
        yield fast, layer._fold(guidance, (3, 20)).kernels


class JBU(nn.Module):
    """Several layers from the grid to the pixels, then a 1x1 convolution; base of :class:`JBUOne`, :class:`JBUStack`.

    ``f = u + 0.1 (W u + b)``, u the features after the last layer.

    Args:
        dim: Channels C of the features.
        with_dropout: In training, leave out channels in the layers and before the convolution, as released.
    """

    DIM_KEY = 'fixup_proj.1.bias'  # its length in a checkpoint is the number of channels it was trained for

    def __init__(self, dim: int, with_dropout: bool = True) -> None:
        super().__init__()
        self.dim = dim
        self.fixup_proj = nn.Sequential(nn.Dropout2d(with_dropout * FEATURE_DROPOUT), nn.Conv2d(dim, dim, 1))

    def stages(self, grid: Sequence[int], size: Sequence[int]) -> list[tuple[JBULayer, tuple[int, int]]]:
        """The layer and the output size of every stage from (h, w) to (H, W)."""
        raise NotImplementedError

    def forward(self, features: Tensor, guidance: Tensor) -> Tensor:
        """Upsamples features to the guidance's size.

        Args:
            features: (B, C, h, w), not L2-normalised.
            guidance: (B, 3, H, W), the image the features were computed from, normalised.

        Returns:
            (B, C, H, W).

        Raises:
            UpsamplerError: Shapes that do not fit.
        """
        check_inputs(features, guidance, self.dim)
        if choose_backend(features) == 'reference':
            features = self._mix_channels(self._resample(features, guidance))
        else:  # a layer weighs pixels, the convolution channels: they commute
            features = self._resample(self._mix_channels(features), guidance)
        return features.add_(FEATURE_FIXUP_WEIGHT * self.channel_mixer[1][:, None, None])

    @property
    def channel_mixer(self) -> tuple[Tensor, Tensor]:
        """Weight (C, C, 1, 1) and bias (C,) of the last convolution."""
        conv = self.fixup_proj[1]
        return conv.get_parameter('weight'), conv.get_parameter('bias')

    def _resample(self, features: Tensor, guidance: Tensor) -> Tensor:
        for layer, size in self.stages(features.shape[2:], guidance.shape[2:]):
            features = layer(features, guidance_at(guidance, size))
        return features

    def _mix_channels(self, features: Tensor) -> Tensor:
        """``(I + 0.1 W) x``, with whole channels dropped in training."""
        mixed = F.conv2d(self.fixup_proj[0](features), self.channel_mixer[0])
        return torch.add(features, mixed, alpha=FEATURE_FIXUP_WEIGHT)


class JBUOne(JBU):
    """SimFeatUp: one layer of radius 5, used for every doubling (four times for patch 16, five for patch 32).

    Args:
        dim: Channels C of the features.
        radius: Neighbours on each side.
        key_dim: Channels of the keys.
        with_dropout: See :class:`JBU`.
    """

    def __init__(self, dim: int, radius: int = 5, key_dim: int = 32, with_dropout: bool = True) -> None:
        super().__init__(dim, with_dropout)
        self.up = JBULayer(radius, key_dim, dropout=with_dropout * KERNEL_DROPOUT)

    def stages(self, grid: Sequence[int], size: Sequence[int]) -> list[tuple[JBULayer, tuple[int, int]]]:
        """As many doublings as the ratio needs, all by the same layer."""
        return [(self.up, stage) for stage in stage_sizes(grid, size)]


class JBUStack(JBU):
    """FeatUp: four layers of radius 3, each with its own weights; the fourth goes to the guidance's size.

    Args:
        dim: Channels C of the features.
        radius: Neighbours on each side.
        key_dim: Channels of the keys.
        with_dropout: See :class:`JBU`.
    """

    def __init__(self, dim: int, radius: int = 3, key_dim: int = 32, with_dropout: bool = True) -> None:
        super().__init__(dim, with_dropout)
        layers = (JBULayer(radius, key_dim, dropout=with_dropout * KERNEL_DROPOUT) for _ in range(4))
        self.up1, self.up2, self.up3, self.up4 = layers

    def stages(self, grid: Sequence[int], size: Sequence[int]) -> list[tuple[JBULayer, tuple[int, int]]]:
        """Three doublings and the exact last step."""
        layers = (self.up1, self.up2, self.up3, self.up4)
        return list(zip(layers, stage_sizes(grid, size, len(layers)), strict=True))


class Bilinear(nn.Module):
    """Bilinear interpolation (align_corners=False): the upsampler without weights; the guidance gives the size only.

    Args:
        dim: Channels C of the features.
    """

    DIM_KEY = None

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, features: Tensor, guidance: Tensor) -> Tensor:
        """(B, C, h, w) features, (B, 3, H, W) guidance -> (B, C, H, W)."""
        check_inputs(features, guidance, self.dim)
        return F.interpolate(features, guidance.shape[2:], mode='bilinear', align_corners=False)


def _two_convs(in_channels: int, out_channels: int, dropout: float) -> nn.Sequential:
    if min(in_channels, out_channels) < 1:
        raise UpsamplerError(f'A layer needs at least one channel; got {in_channels} in, {out_channels} out.')
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1),
        nn.GELU(),
        nn.Dropout2d(dropout),
        nn.Conv2d(out_channels, out_channels, 1),
    )
