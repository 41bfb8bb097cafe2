"""The operators on CUDA devices, as Triton kernels: no extension to build, compiled at the first call.

Checked against the reference in Triton's interpreter on CPUs. Block sizes are not tuned on a device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar('T')


def on_its_device(function: Callable[..., T]) -> Callable[..., T]:
    """Decorator: runs a function on the device of its first argument, where Triton would take the current one."""

    @functools.wraps(function)
    def run(tensor: Tensor, *arguments, **named) -> T:
        with torch.cuda.device_of(tensor):
            return function(tensor, *arguments, **named)

    return run
