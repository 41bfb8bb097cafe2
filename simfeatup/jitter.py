"""Jitter: the small displacements, zooms and flips under which a coarse view must be explained by the fine one.

Applied alike to the image, before the encoder, and to the upsampled features. Only the part that is cropped is ever
computed: each axis is a matrix of two entries a row that pads, zooms, crops and flips in one product, so that memory
stays that of the input whatever the zoom.

Source: FeatUp (Fu et al., arXiv 2403.10516, section 3) and SimFeatUp (SegEarth-OV, arXiv 2410.01768, section 3.3);
followed: the order of the steps and their ranges, checked against arrays that the original's code computed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from simfeatup.errors import UpsamplerError
from simfeatup.ops.axis_product import axis_product
from simfeatup.ops.folding import reflect_indices

MAX_PAD = 20  # pixels, SimFeatUp's released settings
MAX_ZOOM = 2.0
ZOOM_CHANCE, FLIP_CHANCE = 0.5, 0.5


class Jitter(NamedTuple):
    """One draw: what :func:`apply_jitter` takes besides the images."""

    max_pad: int  # pixels of reflection on each side
    zoom: float  # factor, at least 1
    y: int  # first row of the crop in the padded and zoomed image
    x: int  # first column of it
    flip: bool  # mirror left and right afterwards


def draw_jitter(
    size: Sequence[int], max_pad: int = MAX_PAD, max_zoom: float = MAX_ZOOM, generator: torch.Generator | None = None
) -> Jitter:
    """Draws a jitter for images of a size (H, W): half of all zoom, evenly from 1 to ``max_zoom``, and half flip."""
    zoom_draw, zoom, y, x, flip = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
    zoom = 1 + zoom * (max_zoom - 1) if zoom_draw < ZOOM_CHANCE else 1.0
    spare = [int((side + 2 * max_pad) * zoom) - side for side in size]
    return Jitter(max_pad, zoom, int(y * (spare[0] + 1)), int(x * (spare[1] + 1)), flip < FLIP_CHANCE)


def apply_jitter(images: Tensor, max_pad: int, zoom: float, y: int, x: int, flip: bool) -> Tensor:
    """Reflection padding, bilinear zoom, crop of the input's size, horizontal flip: (B, C, H, W) -> (B, C, H, W).

    Of images or features alike, by the numbers of a :class:`Jitter`.

    Raises:
        UpsamplerError: A zoom below 1, a pad below 0, or a crop that lies outside.
    """
    height, width = images.shape[2:]
    if zoom < 1 or max_pad < 0:
        raise UpsamplerError(f'A jitter needs a zoom of 1 or more and a pad of 0 or more; got {zoom} and {max_pad}.')
    for name, first, side in (('y', y, height), ('x', x, width)):
        spare = int((side + 2 * max_pad) * zoom) - side
        if not 0 <= first <= spare:
            raise UpsamplerError(f'The crop of a jitter lies outside: {name} is {first}; allowed: 0 to {spare}.')
    rows, cols = _axis(height, max_pad, zoom, y, images), _axis(width, max_pad, zoom, x, images)
    return axis_product(images, rows, cols.flip(0) if flip else cols)


def _axis(length: int, pad: int, zoom: float, first: int, like: Tensor) -> Tensor:
    """(length, length): row r holds the shares of the input's entries in output entry r."""
    positions = ((np.arange(first, first + length) + 0.5) / zoom - 0.5).clip(0)  # in the padded axis
    low = positions.astype(np.int64)  # align_corners=False
    high = (low + 1).clip(max=length + 2 * pad - 1)
    share, sources, outputs = positions - low, reflect_indices(length, pad), np.arange(length)
    matrix = np.zeros((length, length))
    np.add.at(matrix, (outputs, sources[low]), 1 - share)
    np.add.at(matrix, (outputs, sources[high]), share)
    return torch.tensor(matrix, dtype=like.dtype, device=like.device)
