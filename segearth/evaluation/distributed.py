"""Joins the processes of one evaluation, with NCCL where there is CUDA and gloo where there is none.

mmengine's own initialisation insists on CUDA; with the process group made here, its Runner uses that one.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from segearth.errors import ConfigError, UserError

LAUNCHERS = {  # names of rank, number of processes and rank within the machine in the environment
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}
DEFAULT_PORT = '29500'
DEFAULT_TIMEOUT = 1800  # seconds
LOST = re.compile(r'gloo|Connection (closed|reset) by peer|timed out', re.IGNORECASE)


class LostProcessError(UserError):
    """Another process of the evaluation has ended or does not answer."""


def join_processes(launcher: str, backend: str | None = None, timeout: float = DEFAULT_TIMEOUT) -> None:
    """Makes the default process group from a launcher's environment; 'none' does nothing.

    Args:
        launcher: 'none', 'pytorch' (torchrun), 'slurm' or 'mpi' (Open MPI).
        backend: Of torch.distributed; None for nccl with CUDA, else gloo. nccl without CUDA becomes gloo.
        timeout: Seconds until processes that wait for a dead one give up.

    Raises:
        ConfigError: The environment is not the launcher's, or a process has no device.
    """
    if launcher == 'none' or distributed.is_initialized():
        return
    names = LAUNCHERS[launcher]
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ConfigError(
            f'--launcher {launcher} finds no {", ".join(missing)} in the environment. '
            'Start it with: bash dist_test.sh CONFIG [GPUS] (torchrun), srun (slurm) or mpirun (mpi)'
        )
    for target, name in zip(LAUNCHERS['pytorch'], names, strict=True):
        os.environ[target] = os.environ[name]
    os.environ.setdefault('MASTER_PORT', DEFAULT_PORT)
    os.environ.setdefault('MASTER_ADDR', _first_host() if launcher == 'slurm' else '127.0.0.1')
    if torch.cuda.is_available():
        local_rank, num_devices = int(os.environ['LOCAL_RANK']), torch.cuda.device_count()
        if launcher == 'slurm' and num_devices == 1:  # --gpus-per-task: each process sees its own
            local_rank = 0
        if local_rank >= num_devices:
            raise ConfigError(f'{local_rank + 1} processes or more on a machine with {num_devices} CUDA devices')
        torch.cuda.set_device(local_rank)
    elif backend == 'nccl':
        backend = None
    backend = backend or ('nccl' if torch.cuda.is_available() else 'gloo')
    try:
        distributed.init_process_group(backend, timeout=timedelta(seconds=timeout))
    except distributed.DistError as error:
        place = f'{os.environ["MASTER_ADDR"]}:{os.environ["MASTER_PORT"]}'
        raise ConfigError(f'the processes do not meet at {place} (MASTER_ADDR, PORT): {error}') from error


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


def _first_host() -> str:
    command = [
        'scontrol',
        'show',
        'hostnames',
        os.environ.get('SLURM_JOB_NODELIST') or os.environ.get('SLURM_NODELIST', ''),
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise ConfigError('cannot find the first machine of the slurm job: set MASTER_ADDR to its name') from error
