"""Joint bilateral upsampling by the image's colours: nothing is learned, for encoders without trained upsamplers.

The honest control of any trained upsampler, too: most of what upsampling gains comes from the image's edges, which
this filter follows as well. Each doubling weighs the neighbours by their distance and by the likeness of colours.

Source: Kopf et al., Joint bilateral upsampling, SIGGRAPH 2007; geometry of the stages as in :mod:`simfeatup.jbu`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from simfeatup.backends import choose_backend, is_proved, use_backend
from simfeatup.errors import UpsamplerError
from simfeatup.folding import StageKernels, fold_kernels
from simfeatup.padding import reflect_pad
from simfeatup.proof import pattern
from simfeatup.stages import check_inputs, stage_inputs, stage_sizes

RADIUS = 5  # neighbours on each side, as jbu_one
SIGMA_SPATIAL = 0.8  # of half a window, as jbu's; found on generated scenes
SIGMA_RANGE = 0.15  # of the normalised image's standard deviation; likewise


class JointBilateral(nn.Module):
    """``f = sum_i k_i F_i``, k normalised ``exp(-d_i^2 / 2 sigma_spatial^2 - |g_i - g|^2 / 2 sigma_range^2)``.

    F are the bicubically doubled features of the stage before, g the image averaged to the stage's size.

    Args:
        dim: Channels C of the features.
        radius: Neighbours on each side.
        sigma_spatial: With the window spanning -1 to 1.
        sigma_range: Of the difference of colours in the normalised image.

    Raises:
        UpsamplerError: A radius or a width that is not positive.
    """

    DIM_KEY = None

    def __init__(
        self,
        dim: int,
        radius: int = RADIUS,
        sigma_spatial: float = SIGMA_SPATIAL,
        sigma_range: float = SIGMA_RANGE,
    ) -> None:
        super().__init__()
        if radius < 1 or sigma_spatial <= 0 or sigma_range <= 0:
            raise UpsamplerError(
                'joint_bilateral needs a radius of 1 or more and sigmas above 0; got '
                f'radius={radius}, sigma_spatial={sigma_spatial}, sigma_range={sigma_range}.'
            )
        self.dim, self.radius = dim, radius
        self.sigma_spatial, self.sigma_range = sigma_spatial, sigma_range

    def forward(self, features: Tensor, guidance: Tensor) -> Tensor:
        """(B, C, h, w) features, (B, 3, H, W) guidance -> (B, C, H, W).

        Raises:
            UpsamplerError: Shapes that do not fit.
        """
        check_inputs(features, guidance, self.dim)
        for stage in self.stage_kernels(guidance, features.shape[2:]):
            features = stage.apply(features)
        return features

    def stage_kernels(self, guidance: Tensor, grid: Sequence[int]) -> list[StageKernels]:
        """Kernels of every doubling from a grid (h, w) to the guidance's size, the resizing folded in."""
        sizes = stage_sizes(grid, guidance.shape[2:])
        return [self._stage(*inputs) for inputs in stage_inputs(guidance, grid, sizes)]

    def _stage(self, guidance: Tensor, grid: Sequence[int]) -> StageKernels:
        needs_gradients = torch.is_grad_enabled() and guidance.requires_grad
        is_float64 = guidance.dtype == torch.float64  # asks for more than the compiled loops compute
        is_fused = choose_backend(guidance) == 'cpu' and not is_float64 and not needs_gradients
        if is_fused and is_proved('cpu', ('colour',), _prove_colour):
            from simfeatup.cpu.colour import stage_kernels  # numba is loaded where it is used

            return stage_kernels(guidance, grid, self.spatial_kernel(), self.sigma_range)
        return fold_kernels(self.kernels(guidance), grid)

    def spatial_kernel(self) -> Tensor:
        """Gaussian of the distance to the centre, (T, T); the window spans -1 to 1 on both axes."""
        squares = torch.linspace(-1, 1, 2 * self.radius + 1, dtype=torch.float32, device='cpu').square()
        return torch.exp((squares[:, None] + squares) / (-2 * self.sigma_spatial**2))

    def kernels(self, guidance: Tensor) -> Tensor:
        """Weights (B, T, T, H, W) of every pixel's neighbourhood, T = 2 radius + 1, that sum to 1."""
        taps = 2 * self.radius + 1
        height, width = guidance.shape[2:]
        padded = reflect_pad(guidance, self.radius)
        distances = self.spatial_kernel().log().tolist()
        logits = guidance.new_empty(len(guidance), taps, taps, height, width)
        for i in range(taps):
            for j in range(taps):
                difference = padded[:, :, i : i + height, j : j + width] - guidance
                logits[:, i, j] = difference.square().sum(1) / (-2 * self.sigma_range**2) + distances[i][j]
        return logits.flatten(1, 2).softmax(1).view_as(logits)


@torch.no_grad()
def _prove_colour() -> Iterator[tuple[Tensor, Tensor]]:
    """Kernels of a small filter from the compiled loops, and from the reference."""
    from simfeatup.cpu.colour import stage_kernels

    bilateral, guidance = JointBilateral(dim=1, radius=2), pattern(2, 3, 6, 40, dtype=torch.float32)
    fast = stage_kernels(guidance, (3, 20), bilateral.spatial_kernel(), bilateral.sigma_range).kernels
    with use_backend('reference'):
        yield fast, fold_kernels(bilateral.kernels(guidance), (3, 20)).kernels


class LinearJointBilateral:
    """:class:`JointBilateral` as a linear map (:class:`simfeatup.linear.LinearMap`): A = I, c = 0."""

    def __init__(self, upsampler: JointBilateral) -> None:
        self.upsampler = upsampler

    def kernels(self, guidance: Tensor, grid: Sequence[int]) -> list[StageKernels]:
        """Weights of every stage for a guidance (B, 3, H, W) and features on a grid (h, w)."""
        return self.upsampler.stage_kernels(guidance, grid)

    def final(self) -> tuple[Tensor, Tensor]:
        """A (C, C) and c (C,) of ``f = A u + c``."""
        return torch.eye(self.upsampler.dim), torch.zeros(self.upsampler.dim)
