"""How an upsampler gets from the grid of tokens to the pixels of the guidance: by doublings, the last one exact."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from simfeatup.errors import UpsamplerError


def stage_sizes(grid: Sequence[int], size: Sequence[int], num_stages: int | None = None) -> list[tuple[int, int]]:
    """Output size of every stage.

    Each stage doubles the size of the one before, never beyond the final size; the last stage goes to the final
    size whatever the ratio. Patch 16 gives 2, 4, 8, 16 times the grid, as in the original; patch 14 gives
    2, 4, 8, 14; patch 32 five stages, or with four given 2, 4, 8, 32.

    Args:
        grid: (h, w) of the features.
        size: (H, W) of the guidance.
        num_stages: Fixed number of stages; None takes as many doublings as the larger ratio needs, at least one.

    Returns:
        One (height, width) per stage, the last equal to ``size``.
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


def stage_inputs(
    guidance: Tensor, grid: Sequence[int], sizes: Sequence[tuple[int, int]]
) -> list[tuple[Tensor, tuple[int, int]]]:
    """What the kernels of every stage are made from: the guidance at its output size, and the size of its input.

    All averages come first, for torch's threads are awake then; among the loops of simfeatup/cpu each would wake them.

    Args:
        guidance: (B, 3, H, W).
        grid: (h, w) of the features.
        sizes: Of :func:`stage_sizes`.
    """
    guidances = [guidance_at(guidance, size) for size in sizes]
    h, w = grid
    return list(zip(guidances, [(h, w), *sizes[:-1]], strict=True))


def check_inputs(features: Tensor, guidance: Tensor, dim: int) -> None:
    """Refuses inputs an upsampler for ``dim`` channels cannot take.

    Raises:
        UpsamplerError: A wrong number of axes, channels, or images.
    """
    if features.ndim != 4 or guidance.ndim != 4 or features.shape[0] != guidance.shape[0] or guidance.shape[1] != 3:
        raise UpsamplerError(
            'An upsampler takes features (B, C, h, w) and guidance (B, 3, H, W) of one batch size; got '
            f'{tuple(features.shape)} and {tuple(guidance.shape)}.'
        )
    if features.shape[1] != dim:
        raise UpsamplerError(f'This upsampler is for features of {dim} channels; got {features.shape[1]}.')
