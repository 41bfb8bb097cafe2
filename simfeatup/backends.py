"""Which implementation of the operators runs: chosen by device and availability, or by force.

``reference`` is plain torch and works everywhere; ``cpu`` are loops compiled by numba, ``cuda`` Triton kernels. All
compute the same. ``SIMFEATUP_BACKEND=reference`` in the environment forces one, and so does :func:`use_backend`.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from torch import Tensor

from simfeatup.errors import UpsamplerError

BACKENDS = {'reference': 'torch', 'cpu': 'numba', 'cuda': 'triton'}
"""Name -> the package it needs."""
VARIABLE = 'SIMFEATUP_BACKEND'

logger = logging.getLogger(__name__)
_forced: ContextVar[str | None] = ContextVar('forced_backend', default=None)


def choose_backend(tensor: Tensor, backend: str | None = None) -> str:
    """Name of the implementation for a tensor.

    Args:
        tensor: Its device decides: numba on CPUs, Triton on CUDA devices, each where it is installed, else plain
            torch.
        backend: Forces one, before :func:`use_backend` and the environment.

    Raises:
        UpsamplerError: A forced one that is unknown, not installed, or not for the tensor's device.
    """
    name = backend or _forced.get() or os.environ.get(VARIABLE) or 'auto'
    if name == 'auto':
        name = tensor.device.type if tensor.device.type in BACKENDS else 'reference'
        return name if _is_installed(name) else 'reference'
    if name not in BACKENDS:
        raise UpsamplerError(f'There is no back end {name!r} ({VARIABLE}). Known: auto, {", ".join(BACKENDS)}.')
    if not _is_installed(name):
        raise UpsamplerError(f'The back end {name!r} needs {BACKENDS[name]}: pip install {BACKENDS[name]}.')
    is_interpreted = name == 'cuda' and os.environ.get('TRITON_INTERPRET') == '1'  # Triton's, for tests on CPUs
    if name != 'reference' and tensor.device.type != name and not is_interpreted:
        raise UpsamplerError(f'The back end {name!r} is not for tensors on {tensor.device}; leave the choice to auto.')
    return name


@contextmanager
def use_backend(backend: str | None) -> Iterator[None]:
    """Forces a back end within a ``with`` block, in this thread; None leaves the choice as it is."""
    token = _forced.set(backend or _forced.get())
    try:
        yield
    finally:
        _forced.reset(token)


@cache
def _is_installed(name: str) -> bool:
    try:
        importlib.import_module(BACKENDS[name])
    except ImportError as error:
        logger.warning('%s cannot be used (%s); the upsampler runs in plain torch, slower.', BACKENDS[name], error)
        return False
    return True
