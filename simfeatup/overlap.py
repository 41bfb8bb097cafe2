"""Kernels of rows that a window shares with the one above it, computed once.

A kernel depends on the guidance around its pixel alone, and on the border only within a few pixels of it. Where
windows follow each other down an image, most rows of their overlap therefore have one and the same kernels.

    with overlapping_windows(Fraction(112, 224)):  # the next window lies half a window below the last
        for window in column:
            score(upsampler, features, window, text_embeddings)
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from fractions import Fraction
from functools import lru_cache

import numpy as np

from simfeatup.folding import axis_folding

_current: ContextVar[_Overlap | None] = ContextVar('overlap', default=None)


class _Overlap:
    def __init__(self, step: Fraction) -> None:
        self.step = step
        self.last: dict[Hashable, tuple[np.ndarray, np.ndarray]] = {}  # stage -> guidance, kernels


@contextmanager
def overlapping_windows(step: Fraction) -> Iterator[None]:
    """Within the block, compiled loops look whether a window lies below the last one, and take over what is the same.

    Nothing is taken over from windows that lie elsewhere: the guidance itself is compared.

    Args:
        step: How far below, as a share of the window's height, above 0; from 1 on nothing overlaps.
    """
    token = _current.set(_Overlap(step))
    try:
        yield
    finally:
        _current.reset(token)


def take_over(
    stage: Hashable, guidance: np.ndarray, kernels: np.ndarray, length: int, radius: int
) -> list[tuple[int, int, int]]:
    """Copies the kernels of known rows, if there are any, and says which are left to compute.

    Args:
        stage: What made the kernels: equal for equal weights and sizes.
        guidance: (B, 3, H, W). Only of single windows is anything taken over.
        kernels: (B, H, Ty, Tx, W), filled in place; to be completed by the caller and then left alone, for the next
            window reads them.
        length: Rows of the stage's input.
        radius: Neighbours on each side.

    Returns:
        (window, first row, row behind the last) of what is left.
    """
    batch, height = len(kernels), kernels.shape[1]
    everything = [(index, 0, height) for index in range(batch)]
    overlap = _current.get()
    if overlap is None or batch != 1:
        return everything
    known = overlap.last.get(stage)
    overlap.last[stage] = guidance, kernels
    shift = overlap.step * height
    if known is None or shift.denominator != 1:
        return everything
    shift = int(shift)
    first, last = shared_rows(length, height, radius, shift)
    if first == last or not np.array_equal(guidance[:, :, : height - shift], known[0][:, :, shift:]):
        return everything
    kernels[:, first:last] = known[1][:, first + shift : last + shift]
    return [(0, 0, first), (0, last, height)]


@lru_cache(maxsize=256)
def shared_rows(length: int, outputs: int, radius: int, shift: int) -> tuple[int, int]:
    """First row, and row behind the last, whose kernels are those of ``shift`` rows further down in the window above.

    Args:
        length: Rows of the stage's input.
        outputs: Rows of its output.
        radius: Neighbours on each side; those of the rows lie inside both windows.
        shift: Rows between the windows, above 0.
    """
    folding = axis_folding(length, outputs, radius)
    starts, weights = folding.starts.tolist(), folding.weights.numpy()
    distance = Fraction(shift * length, outputs)
    rows = [
        row
        for row in range(radius, outputs - shift - radius)
        if starts[row + shift] - starts[row] == distance and np.array_equal(weights[row], weights[row + shift])
    ]
    if not rows or rows[-1] - rows[0] + 1 != len(rows):
        return 0, 0
    return rows[0], rows[-1] + 1
