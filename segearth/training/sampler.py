"""Which sample every process takes in every step: a number that only grows, so that a run can go on anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import numpy as np
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Sampler


@DATA_SAMPLERS.register_module()
class StepSampler(Sampler):
    """Yields 0, 1, 2, ... without end, each number to one process.

    Data sets turn the number into a sample by themselves, with all that is random about it
    (:func:`draw_index`), so a resumed run sees what an uninterrupted one would have seen.

    Args:
        dataset: As mmengine hands it over; only its length is asked.
        seed: As mmengine hands it over; data sets have their own.
    """

    def __init__(self, dataset: Sized | None = None, seed: int | None = None) -> None:
        self.first = 0
        self.length = len(dataset) if dataset is not None else 1

    def __len__(self) -> int:
        """Length of the list that the numbers are drawn from; mmengine asks, nothing depends on it."""
        return self.length

    def __iter__(self) -> Iterator[int]:
        rank, world_size = get_dist_info()
        number = self.first * world_size + rank
        while True:
            yield number
            number += world_size

    def skip(self, num_samples: int) -> None:
        """Leaves out the first so many samples of each process; mmengine's loop calls it when it resumes."""
        self.first = num_samples

    def set_epoch(self, epoch: int) -> None:
        """Does nothing: there are no epochs."""


def draw_index(number: int, length: int, seed: int) -> tuple[int, np.random.Generator]:
    """The place of sample ``number`` in a list, which is gone through in a new order each time, and its randomness.

    Args:
        number: From 0, without end.
        length: Of the list.
        seed: Of the data set.
    """
    epoch, place = divmod(number, length)
    order = np.random.default_rng([seed, 0, epoch]).permutation(length)
    return int(order[place]), np.random.default_rng([seed, 1, number])
