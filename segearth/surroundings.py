"""Torch as this program needs it, whatever the caller has switched on: default dtype and device, autocast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch


@contextmanager
def plain_torch() -> Iterator[None]:
    """Float32 and the CPU where nothing else is said, and no autocast, until the block ends.

    The precision of the encoder is a setting of ours; under the caller's autocast the same image would have other
    scores, and with a default dtype or device of the caller's, parts would not fit each other.
    """
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device('cpu'), torch.autocast('cpu', enabled=False), torch.autocast('cuda', enabled=False):
            yield
    finally:
        torch.set_default_dtype(dtype)


def in_plain_torch(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that runs inside of :func:`plain_torch`."""

    @wraps(function)
    def run(*args: Any, **settings: Any) -> Any:
        with plain_torch():
            return function(*args, **settings)

    return run
