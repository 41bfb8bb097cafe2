"""NAF: every pixel attends to the feature cells around it, by an encoding of the image alone.

One network for the features of every encoder. Its weights come from the image, so scoring with it is exact and fast;
each of its heads weighs a share of the channels with kernels of its own.

Source: NAF (valeoai, CVPR 2026), from a description of it in words and numbers; its code was not read, and its released
weights were never at hand. What the description leaves open was chosen here, so that results with these weights are
unchecked: blocks have no skip connection; the image is taken as it is normalised for CLIP; the order of the channels
in :func:`rotate`, whose angles are 2 pi times the coordinate by the period, from 1 to ``BASE``; windows at borders
have fewer cells.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from simfeatup.errors import UpsamplerError, WeightFileError
from simfeatup.ops.folding import Stage
from simfeatup.upsamplers.base import KernelReuse, LinearUpsampler
from simfeatup.upsamplers.neighbourhood import Neighbourhoods, cell_means

HEADS, HEAD_DIM = 4, 64
WIDTH = HEADS * HEAD_DIM // 2  # channels of a branch
KERNEL_SIZES = 1, 3  # of the branches
NUM_BLOCKS = 2
NORM_GROUPS = 8
RADIUS = 4  # cells on each side
BASE = 100.0  # longest period, where a side of the image is 2
NUM_PERIODS = 16  # an axis

logger = logging.getLogger(__name__)


class NAF(LinearUpsampler):
    """Softmax of <query, key> over 9 x 9 cells; the query encodes a pixel, the key is the mean query of a cell.

    Any encoder's features will do whose channels are a multiple of 4, the number of heads; a UpsamplerError refuses
    others.
    """

    num_groups = HEADS

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        if dim % HEADS:
            raise UpsamplerError(f'naf splits the channels over {HEADS} heads; {dim} channels are no multiple of that.')
        self.branches = nn.ModuleList(_branch(kernel_size) for kernel_size in KERNEL_SIZES)

    def queries(self, guidance: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> (B * 4, 64, H, W), one a head, rotated by their places."""
        encoded = torch.cat([branch(guidance) for branch in self.branches], 1)
        return rotate(encoded.unflatten(1, (HEADS, HEAD_DIM)).flatten(0, 1))

    def stages(self, guidance: Tensor, grid: Sequence[int], reuse: KernelReuse | None = None) -> list[Stage]:
        """One stage; nothing is taken over from other windows, as the norms see the window as a whole."""
        queries = self.queries(guidance)
        cells = Neighbourhoods(grid, guidance.shape[2:], RADIUS, guidance.device)
        keys = cell_means(queries, grid) * HEAD_DIM**-0.5
        return [cells.stage(cells.weigh(cells.pixels(queries), cells.windows(keys)))]

    def own_names(self, weights: Mapping[str, Tensor], path: Path) -> Mapping[str, Tensor]:
        """As in the base; names of another program by the order of the weights, where all shapes are as here."""
        own = self.state_dict()
        if weights.keys() == own.keys():
            return weights
        if [value.shape for value in weights.values()] != [value.shape for value in own.values()]:
            raise WeightFileError(
                f'{path} does not fit naf: it needs {len(own)} tensors with the names or the sequence of shapes of '
                f'simfeatup.upsamplers.naf.NAF; this file has {len(weights)}. The released file could not be looked at '
                'where this was written: if this is it, its layout is another one.'
            )
        logger.warning(
            '%s has other names than naf here; its weights were taken by their order, as all shapes agree. Whether the '
            'results are those of the release is unchecked.', path,
        )  # fmt: skip
        return dict(zip(own, weights.values(), strict=True))


def rotate(maps: Tensor) -> Tensor:
    """Axial rotary positions: turns pairs of channels of maps (B, 64, H, W) by angles that grow with the place.

    Channels i and i + 32 are a pair; the first 16 pairs turn with the row, the others with the column. Coordinates of
    the pixels' centres span -1 to 1. <rotated, rotated> depends on the difference of the places alone.
    """
    height, width = maps.shape[2:]
    steps = torch.arange(NUM_PERIODS, dtype=torch.float32, device=maps.device) / NUM_PERIODS
    frequencies = 2 * torch.pi * BASE**-steps
    rows, cols = (
        (2 * torch.arange(side, device=maps.device) + 1 - side)[None] / side * frequencies[:, None]
        for side in (height, width)
    )  # (16, H), (16, W)
    shape = NUM_PERIODS, height, width
    angles = torch.cat([rows[:, :, None].expand(shape), cols[:, None].expand(shape)])
    cos, sin = angles.cos().to(maps.dtype), angles.sin().to(maps.dtype)
    first, second = maps.chunk(2, 1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], 1)


def _branch(kernel_size: int) -> nn.Sequential:
    layers: list[nn.Module] = [_conv(3, kernel_size)]
    for _ in range(2 * NUM_BLOCKS):
        layers += [nn.GroupNorm(NORM_GROUPS, WIDTH), nn.SiLU(), _conv(WIDTH, kernel_size)]
    return nn.Sequential(*layers)


def _conv(channels: int, kernel_size: int) -> nn.Conv2d:
    return nn.Conv2d(channels, WIDTH, kernel_size, padding='same', padding_mode='reflect')
