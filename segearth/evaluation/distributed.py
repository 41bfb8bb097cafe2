"""Joins the processes of one evaluation, with NCCL where there is CUDA and gloo where there is none.

mmengine's own initialisation insists on CUDA; with the process group made here, its Runner uses that one.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore, Store

from segearth.errors import ConfigError, UserError
from segearth.evaluation.agreement import Card, call_the_roll, code_card
from segearth.evaluation.launchers import Place, read_place

DEFAULT_TIMEOUT = 1800  # seconds
KNOCK_SECONDS = 0.5  # between attempts to reach the process of rank 0
LOST = re.compile(r'gloo|Connection (closed|reset) by peer|timed out', re.IGNORECASE)


class LostProcessError(UserError):
    """Another process of the evaluation has ended or does not answer."""


def join_processes(
    launcher: str, backend: str | None = None, timeout: float = DEFAULT_TIMEOUT, card: Card | None = None
) -> None:
    """Makes the default process group from a launcher's environment; 'none' does nothing.

    The processes make sure first that they are of one run, with one version of the code.

    Args:
        launcher: 'none', 'pytorch' (torchrun), 'slurm' or 'mpi' (Open MPI).
        backend: Of torch.distributed, nccl or gloo; None for nccl with CUDA, else gloo. nccl without CUDA becomes gloo.
        timeout: Seconds until processes that wait for one that is dead, or never comes, give up.
        card: What else has to be alike in all processes, strings.

    Raises:
        ConfigError: The environment is not the launcher's, a process has no device, or the processes do not meet, or do
            not belong together.
    """
    if launcher == 'none' or distributed.is_initialized():
        return
    if backend not in (None, 'nccl', 'gloo'):
        raise ConfigError(f'env_cfg.dist_cfg.backend is {backend!r}; allowed: nccl, gloo')
    if not isinstance(timeout, (int, float)) or timeout <= 0:
        raise ConfigError(f'env_cfg.dist_cfg.timeout is {timeout!r}; it is a number of seconds above 0')
    place = read_place(launcher)
    if torch.cuda.is_available():
        _choose_device(launcher, place.local_rank)
        backend = backend or 'nccl'
    else:
        backend = 'gloo'
    names = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')  # for libraries that look there
    values = (place.rank, place.world_size, place.local_rank, place.address, place.port)
    os.environ.update({name: str(value) for name, value in zip(names, values, strict=True)})
    store = PrefixStore(
        f'segearth/{os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")}', _meeting_place(place, timeout)
    )
    call_the_roll(store, place, {'backend': backend, **code_card(), **(card or {})}, timeout)
    try:
        distributed.init_process_group(
            backend,
            store=PrefixStore('group', store),
            rank=place.rank,
            world_size=place.world_size,
            timeout=timedelta(seconds=timeout),
        )
    except RuntimeError as error:
        raise ConfigError(
            f'the processes met at {place.where}, but cannot reach each other by {backend} ({error}). Set '
            f'{backend.upper()}_SOCKET_IFNAME to the network interface that joins the machines, see "ip address"'
        ) from error


def leave_processes() -> None:
    """Takes the default process group down; without one it does nothing."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def lost_processes_named(timeout: float) -> Iterator[None]:
    """Says in one message that another process is gone, where torch says it in many ways.

    Args:
        timeout: As given to :func:`join_processes`, for the message.

    Raises:
        LostProcessError: Another process ended, or did not answer in time.
    """
    try:
        yield
    except RuntimeError as error:
        is_lost = isinstance(error, distributed.DistError) or LOST.search(str(error))
        if not is_lost or not distributed.is_initialized() or distributed.get_world_size() == 1:
            raise
        raise LostProcessError(
            f'another process of this evaluation ended, or did not answer within {timeout:.0f} s '
            '(--cfg-options env_cfg.dist_cfg.timeout=SECONDS changes that). No row was written'
        ) from error


def _choose_device(launcher: str, local_rank: int) -> None:
    num_devices = torch.cuda.device_count()
    if launcher == 'slurm' and num_devices == 1:  # --gpus-per-task: each process sees its own
        local_rank = 0
    if local_rank >= num_devices:
        raise ConfigError(f'{local_rank + 1} processes or more on a machine with {num_devices} CUDA devices')
    torch.cuda.set_device(local_rank)


def _meeting_place(place: Place, timeout: float) -> Store:
    """The store that rank 0 or the launcher serves.

    Raises:
        ConfigError: Its port is taken, or it is not reached in time.
    """
    serves = place.rank == 0 and not place.is_served
    if not serves:
        _wait_until_served(place, timeout)
    try:
        return distributed.TCPStore(  # type: ignore[attr-defined]
            place.address,
            place.port,
            world_size=place.world_size,
            is_master=serves,
            timeout=timedelta(seconds=timeout),
            wait_for_workers=False,  # call_the_roll does so, and looks who comes
        )
    except distributed.DistError as error:
        cause = (
            f'rank 0 cannot listen there; is there another run, or another process of rank 0? ({error})'
            if serves
            else f'what listens there does not answer ({error})'
        )
        raise ConfigError(
            f'the processes do not meet at {place.where}: {cause}. Set MASTER_PORT (PORT of dist_test.sh) to a free '
            'port, alike for all processes'
        ) from error


def _wait_until_served(place: Place, timeout: float) -> None:
    """Knocks until somebody listens: torch's own attempts cannot be interrupted."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((place.address, place.port), timeout=min(timeout, 5)).close()
            return
        except OSError as error:
            if time.monotonic() + KNOCK_SECONDS > deadline:
                raise ConfigError(
                    f'the processes do not meet: rank {place.rank} of {place.world_size} did not reach rank 0 at '
                    f'{place.where} within {timeout:.0f} s ({error}). Check that all were started, MASTER_ADDR and '
                    'MASTER_PORT (PORT of dist_test.sh)'
                ) from error
        time.sleep(KNOCK_SECONDS)
