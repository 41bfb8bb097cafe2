"""One grid of windows over the whole scene, and blocks of it that are labelled on their own.

There are no seams by construction: a block computes all windows that touch it, and the windows are the same ones for
every block and for the scene in one piece. Those of the rim are computed by both neighbours, for a block of 18 strides
11 % twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segearth.errors import ConfigError
from segearth.inference.sliding_window import Box, window_boxes

BLOCK_SIDE = 2048  # pixels, rounded to strides: 8 blocks of an image of Sentinel-2 a side


@dataclass(frozen=True)
class WindowGrid:
    """Windows over a scene; all sizes are (height, width) in pixels."""

    shape: tuple[int, int]  # of the scene
    crop_size: tuple[int, int]  # of a window
    stride: tuple[int, int]  # between windows

    def __post_init__(self) -> None:
        window_boxes(*self.crop_size, self.crop_size, self.stride)  # refuses strides that leave gaps

    @property
    def window(self) -> tuple[int, int]:
        """(height, width) of the windows, which a small scene limits."""
        return min(self.crop_size[0], self.shape[0]), min(self.crop_size[1], self.shape[1])

    def starts(self, axis: int, first: int, last: int) -> list[int]:
        """First pixels of the windows along an axis (0: rows) that touch pixels first to last - 1."""
        side, window, stride = self.shape[axis], self.window[axis], self.stride[axis]
        end = side - window
        steps = -(-end // stride)  # ceiling
        lowest = max((first - window) // stride, 0)
        highest = min(-(-last // stride), steps)
        starts = (min(index * stride, end) for index in range(lowest, highest + 1))
        return [start for start in starts if start < last and start + window > first]

    def region(self, box: Box) -> Box:
        """The pixels that the windows touching a box see."""
        rows, columns = self.starts(0, box[0], box[2]), self.starts(1, box[1], box[3])
        return rows[0], columns[0], rows[-1] + self.window[0], columns[-1] + self.window[1]

    def num_windows(self, boxes: Sequence[Box]) -> int:
        """Number of windows computed for some boxes."""
        return sum(len(self.starts(0, y1, y2)) * len(self.starts(1, x1, x2)) for y1, x1, y2, x2 in boxes)

    def blocks(self, side: int = BLOCK_SIDE) -> list[Box]:
        """Cuts the scene into blocks, row by row, whose side in pixels is rounded to a multiple of the stride."""
        if side < 1:
            raise ConfigError(f'block size is {side}; allowed: 1 pixel or more, {BLOCK_SIDE} is usual')
        height, width = self.shape
        step_y, step_x = (max(round(side / stride), 1) * stride for stride in self.stride)
        return [
            (y, x, min(y + step_y, height), min(x + step_x, width))
            for y in range(0, height, step_y)
            for x in range(0, width, step_x)
        ]
