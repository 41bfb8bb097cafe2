"""What all upsamplers have in common, those that are linear maps of the features, and the plainest of them.

An upsampler gets from the grid of tokens to the pixels of the guidance in stages: by doublings, the last one exact.
For the linear ones ``f = A u + c`` at every pixel, u a weighted sum of the tokens. The weights know neither the tokens
nor their number of channels, so they are computed once for an image and applied to whatever is wanted at full size:
scores of texts, coordinates in a basis, or the features themselves.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simfeatup.errors import UpsamplerError
from simfeatup.ops.folding import Stage, axis_folding


class Upsampler(nn.Module):
    """Base: ``(features (B, C, h, w), guidance (B, 3, H, W)) -> (B, C, H, W)``, C being ``dim``."""

    DIM_KEY: str | None = None
    """Name of a weight that tells the number of channels: a bias (C,) or an input weight (out, C, 1, 1)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def own_names(self, weights: Mapping[str, Tensor], path: Path) -> Mapping[str, Tensor]:
        """The weights of a file under the names that they have here, for classes that know others, too."""
        return weights

    def check(self, features: Tensor, guidance: Tensor) -> None:
        """Raises UpsamplerError where the numbers of axes, channels, or images are wrong."""
        if features.ndim != 4 or guidance.ndim != 4 or features.shape[0] != guidance.shape[0] or guidance.shape[1] != 3:
            raise UpsamplerError(
                'An upsampler takes features (B, C, h, w) and guidance (B, 3, H, W) of one batch size; got '
                f'{tuple(features.shape)} and {tuple(guidance.shape)}.'
            )
        if features.shape[1] != self.dim:
            raise UpsamplerError(f'This upsampler is for features of {self.dim} channels; got {features.shape[1]}.')


@dataclass(eq=False)
class KernelReuse:
    """What the last window's stages were, for the next window to take over; made for one image and its windows.

    A kernel depends on the guidance around its pixel alone, and on the border only within a few pixels of it. Where
    windows follow each other down an image, most rows of their overlap therefore have one and the same kernels, which
    are computed once. Each next one lies by ``step``, a share of its height above 0, below the last. Nothing is taken
    over from windows that lie elsewhere: the guidance itself is compared.
    """

    step: Fraction
    _last: dict[Hashable, tuple[Tensor, Tensor]] = field(default_factory=dict)  # stage -> guidance, kernels

    def take_over(self, stage: Hashable, guidance: Tensor, length: int, radius: int) -> tuple[Tensor | None, int]:
        """Kernels (1, n, Ty, Tx, W) of n rows that are known of a window, or None, and the first of these rows.

        ``stage`` says what makes the kernels: equal for equal weights and sizes; ``length`` are rows of its input.
        """
        height = guidance.shape[2]
        shift = self.step * height
        if stage not in self._last or len(guidance) != 1 or shift.denominator != 1:
            return None, 0
        last_guidance, kernels = self._last[stage]
        first, last = shared_rows(length, height, radius, int(shift))
        above = last_guidance[:, :, int(shift) :]
        if first == last or not torch.equal(guidance[:, :, : above.shape[2]], above):
            return None, 0
        return kernels[:, first + int(shift) : last + int(shift)], first

    def keep(self, stage: Hashable, guidance: Tensor, kernels: Tensor) -> None:
        """Remembers a window: guidance and kernels (B, H, Ty, Tx, W), which nobody may change now."""
        self._last[stage] = guidance, kernels


@lru_cache(maxsize=256)
def shared_rows(length: int, outputs: int, radius: int, shift: int) -> tuple[int, int]:
    """First row, and row behind the last, whose kernels the window ``shift`` rows above has, too."""
    starts, weights = axis_folding(length, outputs, radius)
    distance = Fraction(shift * length, outputs)
    rows = [
        row
        for row in range(radius, outputs - shift - radius)
        if starts[row + shift] - starts[row] == distance and np.array_equal(weights[row], weights[row + shift])
    ]
    if not rows or rows[-1] - rows[0] + 1 != len(rows):
        return 0, 0
    return rows[0], rows[-1] + 1


class LinearUpsampler(Upsampler):
    """Base of upsamplers that weigh tokens with weights from the image alone: ``f = A u + c``."""

    num_groups = 1
    """G equal shares of the channels, each with kernels of its own; with more than one, A is the identity."""

    def stages(self, guidance: Tensor, grid: Sequence[int], reuse: KernelReuse | None = None) -> list[Stage]:
        """The kernels of every stage, for a normalised guidance (B, 3, H, W) and features on a grid (h, w).

        They are those of B * G images, the groups of an image after each other. With ``reuse`` what is the same in the
        windows before this one is taken over.
        """
        raise NotImplementedError

    def channel_map(self) -> tuple[Tensor, Tensor]:
        """A (C, C) and c (C,) of ``f = A u + c``."""
        return torch.eye(self.dim, device='cpu'), torch.zeros(self.dim, device='cpu')

    def forward(self, features: Tensor, guidance: Tensor) -> Tensor:
        """Features (B, C, h, w), not L2-normalised, and their image (B, 3, H, W), normalised, -> (B, C, H, W)."""
        self.check(features, guidance)
        features = features.unflatten(1, (self.num_groups, -1)).flatten(0, 1)
        for stage in self.stages(guidance, features.shape[2:]):
            features = stage.apply(features)
        return features.unflatten(0, (-1, self.num_groups)).flatten(1, 2)

    def define(self, features: Tensor, guidance: Tensor) -> Tensor:
        """What :meth:`forward` computes, as its paper says it: the definition that all else is tested against."""
        return self.forward(features, guidance)


class Bilinear(LinearUpsampler):
    """Bilinear interpolation (align_corners=False); the guidance gives the size only."""

    def forward(self, features: Tensor, guidance: Tensor) -> Tensor:
        """As in the base."""
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


def stage_sizes(grid: Sequence[int], size: Sequence[int], num_stages: int | None = None) -> list[tuple[int, int]]:
    """Output size (height, width) of every stage from a grid (h, w) to a size (H, W).

    Each stage doubles the size of the one before, never beyond the final size; the last stage goes to the final
    size whatever the ratio. Patch 16 gives 2, 4, 8, 16 times the grid, as in the original; patch 14 gives
    2, 4, 8, 14; patch 32 five stages, or with four given 2, 4, 8, 32. None given: as many as the larger ratio needs.
    """
    if num_stages is None:
        num_stages = 1
        while any(n << num_stages < total for n, total in zip(grid, size, strict=True)):
            num_stages += 1
    (h, w), (height, width) = grid, size
    doublings = [(min(h << stage, height), min(w << stage, width)) for stage in range(1, num_stages)]
    return [*doublings, (height, width)]


def guidance_at(guidance: Tensor, size: tuple[int, int]) -> Tensor:
    """The guidance of a stage: (B, 3, H, W) averaged to a size (height, width), itself where that is its own."""
    return guidance if tuple(guidance.shape[2:]) == size else F.adaptive_avg_pool2d(guidance, size)
