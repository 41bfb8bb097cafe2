"""Memory that was freed stays with the process, for the next window or the next step.

Large tensors come straight from the operating system and go back to it when they are freed, so that every window gets
them anew, a page at a time and filled with zeros. On CPUs that is a twentieth of the time of an image, and half of
the time of a step of SimFeatUp.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from functools import partial

from torch import Tensor

from simfeatup.proof import FastPath

# Options of glibc's mallopt(3) and the environment's names for the same.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
VARIABLES = ('MALLOC_TRIM_THRESHOLD_', 'MALLOC_MMAP_THRESHOLD_', 'MALLOC_MMAP_MAX_')

LIMITED = {MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 256 << 20}  # bytes of a tensor (glibc takes no more), and in all
EVERYTHING = {MMAP_MAX: 0, TRIM_THRESHOLD: -1}

MALLOC = FastPath('keeping freed memory (mallopt)', 'SEGEARTH_MALLOC', 'it goes back to the system, slower')

_keeps_all = False


def keep_freed_memory(limited: bool = False) -> bool:
    """Has the C library keep what is freed, for the whole process; an environment that sets this itself is obeyed.

    Limited, it keeps tensors of at most 32 MiB, and 256 MiB in all (or everything, where that was asked for before);
    else everything, so that the process shrinks no more. Returns whether it does, which takes glibc.
    """
    global _keeps_all
    if sys.platform != 'linux' or any(name in os.environ for name in VARIABLES):
        return False
    if limited and _keeps_all:
        return MALLOC.is_on()
    settings = LIMITED if limited else EVERYTHING
    done = MALLOC.works(('limited' if limited else 'everything',), partial(_set, settings))
    _keeps_all = _keeps_all or (done and not limited)
    return done


def _set(settings: dict[int, int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Makes the settings: there is no result to compare, but the C library's answer."""
    mallopt = ctypes.CDLL(None).mallopt
    refused = [option for option, value in settings.items() if mallopt(option, value) != 1]
    if refused:
        raise OSError(f'the C library refuses option {refused[0]}')
    yield from ()
