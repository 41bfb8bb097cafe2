"""Compilation of inner loops and threads to run them.

The loops release the interpreter's lock and know nothing of threads; ordinary Python threads call them on ranges
of rows. So nothing depends on numba's threading layers, which end the process when two threads use them at once
(workqueue) or after a fork (OpenMP): here both are safe.
"""

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import torch
from numba import njit

from simfeatup.ops.cpu.cache import cached

Ranges = list[tuple[int, int, int]]
"""(image, first row, row behind the last)."""

CHUNKS_PER_THREAD = 4  # so that a thread that was held up does not hold up the others
OPTIONS = {
    'nogil': True,
    'error_model': 'numpy',  # a division needs no test for zero, which would keep a loop from being vectorised
    'fastmath': {'contract', 'reassoc', 'nsz', 'arcp'},  # all but the assumption that there is no NaN
}


def compiled(function: Callable) -> Callable:
    """Decorator: compiles at the first call, and keeps the result on disk where there is a place for it."""
    return cached(partial(njit, **OPTIONS), function)


def run_rows(loop: Callable, inputs: Sequence, constants: Sequence, outputs: Sequence, ranges: Ranges | int) -> None:
    """Calls ``loop(*inputs, *constants, *outputs, first row, row behind the last)`` on as many threads as torch uses.

    Inputs and outputs have a first axis of images, of which a call sees one; they may be tensors, as constants may.
    ``ranges`` are the rows to work on, or the height of all images. The loop must be safe to run on other rows at once.
    """
    sources, shared, targets = (
        [value.numpy() if isinstance(value, torch.Tensor) else value for value in group]
        for group in (inputs, constants, outputs)
    )
    if isinstance(ranges, int):
        ranges = [(image, 0, ranges) for image in range(len(targets[0]))]
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
        for image, top, bottom in queue:
            loop(*(array[image] for array in sources), *shared, *(array[image] for array in targets), top, bottom)

    helpers = [_pool(os.getpid(), threads - 1).submit(work) for _ in range(min(threads, len(jobs)) - 1)]
    work()
    for helper in helpers:
        helper.result()


@cache
def _pool(process: int, size: int) -> ThreadPoolExecutor:
    """Threads of a process: a forked one has none of its parent's."""
    del process
    return ThreadPoolExecutor(size, thread_name_prefix='simfeatup')
