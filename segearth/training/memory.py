"""Memory that a training has freed stays with the process, for its next step.

Large tensors come straight from the operating system and go back to it when they are freed, so that every step gets
them anew, a page at a time and filled with zeros. On CPUs that is half of the time of a step of SimFeatUp.
"""

from __future__ import annotations

import ctypes
import sys

# Options of glibc's mallopt(3): never map a tensor apart, never give the end of the heap back.
MMAP_MAX, TRIM_THRESHOLD = -4, -1


def keep_freed_memory() -> bool:
    """Has the C library keep what is freed; for the whole process, which then shrinks no more.

    Returns:
        Whether it does; False where the library is not glibc.
    """
    if sys.platform != 'linux':
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    return mallopt is not None and bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, -1))
