"""Which implementation of the operators runs: chosen by device and by what works, or by force.

``reference`` is plain torch and works everywhere; ``cpu`` are loops compiled by numba, ``cuda`` Triton kernels. All
compute the same. ``SIMFEATUP_BACKEND=reference`` in the environment forces one, and so does :func:`use_backend`.
Every operation asks :func:`is_proved` besides, forced or not.
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
from simfeatup.proof import Case, FastPath, Proof

BACKENDS = {'reference': 'torch', 'cpu': 'numba', 'cuda': 'triton'}
"""Name -> the package it needs."""
PATHS = {
    'cpu': FastPath('numba', 'SIMFEATUP_NUMBA', 'plain torch, slower'),
    'cuda': FastPath('Triton', 'SIMFEATUP_TRITON', 'plain torch, slower'),
}
VARIABLE = 'SIMFEATUP_BACKEND'

logger = logging.getLogger(__name__)
_forced: ContextVar[str | None] = ContextVar('forced_backend', default=None)


def choose_backend(tensor: Tensor, backend: str | None = None) -> str:
    """Name of the implementation for a tensor.

    Args:
        tensor: Its device decides: numba on CPUs, Triton on CUDA devices, each where it is installed, works and is
            not turned off by its variable, else plain torch.
        backend: Forces one, before :func:`use_backend` and the environment.

    Raises:
        UpsamplerError: A forced one that is unknown, not installed, or not for the tensor's device.
    """
    name = backend or _forced.get() or os.environ.get(VARIABLE) or 'auto'
    if name == 'auto':
        name = tensor.device.type
        is_usable = name in PATHS and PATHS[name].is_on() and _is_installed(name) and is_proved(name)
        return name if is_usable else 'reference'
    if name not in BACKENDS:
        raise UpsamplerError(f'There is no back end {name!r} ({VARIABLE}). Known: auto, {", ".join(BACKENDS)}.')
    if not _is_installed(name):
        raise UpsamplerError(f'The back end {name!r} needs {BACKENDS[name]}: pip install {BACKENDS[name]}.')
    is_interpreted = name == 'cuda' and os.environ.get('TRITON_INTERPRET') == '1'  # Triton's, for tests on CPUs
    if name != 'reference' and tensor.device.type != name and not is_interpreted:
        raise UpsamplerError(f'The back end {name!r} is not for tensors on {tensor.device}; leave the choice to auto.')
    return name if is_proved(name) else 'reference'


def is_proved(name: str, case: Case = (), proof: Proof | None = None) -> bool:
    """Whether a back end has proved itself for an operation; see :meth:`simfeatup.proof.FastPath.works`.

    Args:
        name: Of :data:`BACKENDS`; the reference needs no proof and has none.
        case: See there.
        proof: See there; None asks only whether the back end's modules can be loaded.
    """
    return name in PATHS and PATHS[name].works(case, proof or (lambda: _loads(name)))


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
    except Exception as error:  # with other versions of numpy or LLVM than it expects, numba may raise anything
        logger.warning('%s cannot be used (%s); the upsampler runs in plain torch, slower.', BACKENDS[name], error)
        return False
    return True


def _loads(name: str) -> Iterator[tuple[Tensor, Tensor]]:
    importlib.import_module(f'simfeatup.{name}.conv')
    yield from ()
