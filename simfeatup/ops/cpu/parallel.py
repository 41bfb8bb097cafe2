"""Compilation of inner loops and threads to run them.

The loops release the interpreter's lock and know nothing of threads; ordinary Python threads call them on ranges
of rows. So nothing depends on numba's threading layers, which end the process when two threads use them at once
(workqueue) or after a fork (OpenMP): here both are safe.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import torch
from numba import njit

from simfeatup.ops.cpu.cache import cached

CHUNKS_PER_THREAD = 4  # so that a thread that was held up does not hold up the others
OPTIONS = {
    'nogil': True,
    'error_model': 'numpy',  # a division needs no test for zero, which would keep a loop from being vectorised
    'fastmath': {'contract', 'reassoc', 'nsz', 'arcp'},  # all but the assumption that there is no NaN
}


def compiled(function: Callable) -> Callable:
    """Decorator: compiles at the first call, and keeps the result on disk where there is a place for it."""
    return cached(partial(njit, **OPTIONS), function)


def share_rows(run: Callable[[int, int, int], None], batch: int, height: int) -> None:
    """Calls ``run(image, first_row, last_row)`` for all rows of all images, on as many threads as torch uses.

    Args:
        run: Works on rows ``first_row`` to ``last_row - 1`` of one image. Must be safe to call at the same time for
            other rows.
        batch: Number of images.
        height: Rows of an image.
    """
    share_ranges(run, [(image, 0, height) for image in range(batch)])


def share_ranges(run: Callable[[int, int, int], None], ranges: Sequence[tuple[int, int, int]]) -> None:
    """As :func:`share_rows`, for some rows only: (image, first row, row behind the last)."""
    threads = torch.get_num_threads()
    total = sum(bottom - top for _, top, bottom in ranges)
    largest = max(-(-total // (threads * CHUNKS_PER_THREAD)), 1)
    jobs = []
    for image, top, bottom in ranges:
        parts = -(-(bottom - top) // largest)
        bounds = [top + (bottom - top) * part // parts for part in range(parts + 1)] if parts else []
        jobs += [(image, *rows) for rows in itertools.pairwise(bounds)]
    queue = iter(jobs)  # advancing a list iterator is atomic

    def work() -> None:
        for job in queue:
            run(*job)

    helpers = [_pool(os.getpid(), threads - 1).submit(work) for _ in range(min(threads, len(jobs)) - 1)]
    work()
    for helper in helpers:
        helper.result()


@cache
def _pool(process: int, size: int) -> ThreadPoolExecutor:
    """Threads of a process: a forked one has none of its parent's."""
    del process
    return ThreadPoolExecutor(size, thread_name_prefix='simfeatup')
