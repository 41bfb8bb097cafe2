"""Kernels of rows that a window shares with the one above it, computed once.

A kernel depends on the guidance around its pixel alone, and on the border only within a few pixels of it. Where
windows follow each other down an image, most rows of their overlap therefore have one and the same kernels.
"""

from collections.abc import Hashable
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from simfeatup.ops.folding import axis_folding


class KernelReuse:
    """What the last window's stages were, for the next window to take over; made for one image and its windows.

    Each next one lies by ``step``, a share of its height above 0, below the last. Nothing is taken over from windows
    that lie elsewhere: the guidance itself is compared.
    """

    def __init__(self, step: Fraction) -> None:
        self.step = step
        self._last: dict[Hashable, tuple[Tensor, Tensor]] = {}  # stage -> guidance, kernels

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
