"""Cutting large images into tiles: windows on a grid, the last one of a row or column moved back to the edge.

Source: mmsegmentation's converters of Potsdam, Vaihingen and iSAID, whose windows these are (where theirs visit a
window twice, it is here once).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segearth.errors import ConfigError

Box = tuple[int, int, int, int]
"""(y1, x1, y2, x2) in pixels, y2 and x2 exclusive."""


@dataclass(frozen=True)
class Tiling:
    """How images are cut, and how the pieces are named.

    Attributes:
        window: (height, width) in pixels.
        stride: (height, width) between windows.
        tile_name: Template over ``name`` and the box; without suffix.
        is_padded: Images smaller than the window are filled up to it, at the bottom and on the right; else their
            windows are as small as they are.
    """

    window: tuple[int, int]
    stride: tuple[int, int]
    tile_name: str = '{name}_{x1}_{y1}_{x2}_{y2}'
    is_padded: bool = False

    def __post_init__(self) -> None:
        for side, step in zip(self.window, self.stride, strict=True):
            if not 0 < step <= side:
                raise ConfigError(f'a window of {side} pixels with stride {step}: allowed are 1 to {side}')

    def boxes(self, size: tuple[int, int]) -> list[Box]:
        """Windows that cover an image of a size (height, width), in row-major order, each once."""
        height, width = (max(pair) if self.is_padded else pair[0] for pair in zip(size, self.window, strict=True))
        window_height, window_width = min(self.window[0], height), min(self.window[1], width)
        return [
            (y, x, y + window_height, x + window_width)
            for y in _starts(height, window_height, self.stride[0])
            for x in _starts(width, window_width, self.stride[1])
        ]

    def names(self, name: str, size: tuple[int, int]) -> dict[str, Box]:
        """Names of the pieces of one image, with their boxes."""
        return {
            self.tile_name.format(name=name, y1=y1, x1=x1, y2=y2, x2=x2): (y1, x1, y2, x2)
            for y1, x1, y2, x2 in self.boxes(size)
        }


def cut(array: np.ndarray, box: Box, fill: int) -> np.ndarray:
    """Cuts a box out of an array (H, W, ...); what lies outside becomes `fill`."""
    y1, x1, y2, x2 = box
    piece = array[y1:y2, x1:x2]
    missing = ((0, y2 - y1 - piece.shape[0]), (0, x2 - x1 - piece.shape[1]))
    if not any(after for _, after in missing):
        return np.ascontiguousarray(piece)
    return np.pad(piece, [*missing, *[(0, 0)] * (array.ndim - 2)], constant_values=fill)


def _starts(length: int, window: int, stride: int) -> list[int]:
    last = length - window
    return [*range(0, last, stride), last]
