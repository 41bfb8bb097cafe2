"""How many windows to take at once: what the free memory holds, and no more than the device can use."""

from __future__ import annotations

from collections.abc import Sequence

import psutil
import torch

AUTO = 'auto'
MAX_WINDOWS = {'cpu': 4, 'cuda': 64}
"""Device type -> batch beyond which nothing gets faster (docs/performance.md), only larger."""
FREE_SHARE = 0.5  # of the free memory; the rest is for the score map and for whoever else runs
BYTES_PER_FLOAT = 4
MAPS_AT_ONCE = 3  # copies of the full-size channels that live at the same time: before, after, under way
KERNEL_TAPS = 2 * 121  # floats a pixel for the upsampler's kernels of radius 5 and their similarities


def window_batch_size(device: torch.device, sides: Sequence[int], num_queries: int, embed_dim: int) -> int:
    """Batch size of windows for a device.

    An estimate from above: scoring takes the queries and one coordinate a channel to full size, three times over,
    besides the upsampler's kernels; the encoder needs less than that.

    Args:
        device: Where the windows are scored.
        sides: (height, width) of a window in pixels.
        num_queries: Q.
        embed_dim: C.

    Returns:
        1 or more.
    """
    floats = sides[0] * sides[1] * (MAPS_AT_ONCE * (num_queries + embed_dim) + KERNEL_TAPS)
    affordable = int(free_memory(device) * FREE_SHARE / (floats * BYTES_PER_FLOAT))
    return max(1, min(affordable, MAX_WINDOWS.get(device.type, MAX_WINDOWS['cpu'])))


def free_memory(device: torch.device) -> int:
    """Free bytes of a device: of the GPU, or of the machine."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
