"""What launchers say in the environment: which process this is, of how many, of which run, and where they meet."""

import os
import subprocess
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from segearth.errors import ConfigError

LOOPBACK = '127.0.0.1'
FIRST_PORT, NUM_PORTS = 12_000, 16_381  # below the ports that systems give out themselves; a prime number of them
STEPS_A_JOB = 97  # jobs that follow each other lie so many ports apart
FIRST_SPECIAL_STEP = 0xFFFF_FFF0  # ids of steps that srun did not start: the batch script, interactive shells
INTEGERS = (('rank', 0), ('number of processes', 1), ('rank on its machine', 0))  # the least


@dataclass(frozen=True)
class Place:
    """A process of a run, and where its processes meet."""

    rank: int
    world_size: int  # number of processes
    local_rank: int  # on its machine
    address: str  # name of the machine of rank 0
    port: int
    run: str  # what tells this run from others, as far as the launcher says
    is_kept_by_launcher: bool = False  # it keeps the meeting place itself; else rank 0 does

    @property
    def where(self) -> str:
        """Address and port, for messages."""
        return f'{self.address}:{self.port}'


@dataclass(frozen=True)
class Launcher:
    """How a launcher tells a process its place; the functions get the number of processes."""

    ranks: tuple[str, str, str]  # variables of rank, number of processes and rank within the machine
    run: tuple[str, ...]  # variables that tell one run from another
    start: str  # how to start it, for messages
    check: Callable[[int], None] = lambda _: None  # raises where the processes were not started by it
    address: Callable[[int], str] = lambda _: LOOPBACK  # of rank 0, unless MASTER_ADDR says it
    port: Callable[[], int | None] = lambda: None  # unless MASTER_PORT says it; None where that cannot be told


def read_place(name: str) -> Place:
    """Reads the environment of a launcher; MASTER_ADDR and MASTER_PORT go before what is derived."""
    launcher, environment = LAUNCHERS[name], os.environ
    missing = [variable for variable in launcher.ranks if not environment.get(variable)]
    if missing:
        raise _not_started(name, f'finds no {", ".join(missing)} in the environment')
    rank, world_size, local_rank = (
        _integer(variable, *meaning) for variable, meaning in zip(launcher.ranks, INTEGERS, strict=True)
    )
    if rank >= world_size:
        named = f'{launcher.ranks[0]} is {rank}, but {launcher.ranks[1]} is {world_size}'
        raise ConfigError(f'{named}: ranks go from 0 to {world_size - 1}')
    launcher.check(world_size)
    port = _integer('MASTER_PORT', 'port', 1, 65535) if environment.get('MASTER_PORT') else launcher.port()
    if port is None:
        raise _not_started(name, 'cannot tell at which port to meet: set MASTER_PORT, alike for all processes')
    address = environment.get('MASTER_ADDR') or launcher.address(world_size)
    run = ', '.join(f'{variable}={environment[variable]}' for variable in launcher.run if environment.get(variable))
    is_kept_by_launcher = name == 'pytorch' and environment.get('TORCHELASTIC_USE_AGENT_STORE') == str(True)
    return Place(rank, world_size, local_rank, address, port, run, is_kept_by_launcher)


def job_port(number: int) -> int:
    """The port of a job: below 32768, where systems begin to give out ports, and another for each of many jobs."""
    return FIRST_PORT + number % NUM_PORTS


def _integer(variable: str, meaning: str, lowest: int, highest: int | None = None) -> int:
    text = os.environ[variable]
    with suppress(ValueError):
        value = int(text)
        if lowest <= value and (highest is None or value <= highest):
            return value
    limits = f'{lowest} or more' if highest is None else f'{lowest} to {highest}'
    raise ConfigError(f'{variable} is {text!r} in the environment; it is the {meaning}: a whole number, {limits}')


def _not_started(name: str, reason: str) -> ConfigError:
    return ConfigError(f'--launcher {name} {reason}. Start it with: {LAUNCHERS[name].start}')


def _slurm_check(world_size: int) -> None:
    """A batch script has the ranks of a task too, but nothing starts the other tasks."""
    step = os.environ.get('SLURM_STEP_ID', '')
    is_outside = 'SLURM_JOB_ID' in os.environ and (not step or (step.isdecimal() and int(step) >= FIRST_SPECIAL_STEP))
    try:  # a batch script that was submitted from within a step inherits the names of that step
        command = Path(f'/proc/{int(os.environ["SLURM_TASK_PID"])}/cmdline').read_bytes()
    except (KeyError, ValueError, OSError):
        command = b''
    if world_size > 1 and (is_outside or b'slurm_script' in command):
        reason = f'runs outside srun: {world_size} tasks are allocated, and none but this would ever come'
        raise _not_started('slurm', reason)


def _slurm_address(_: int) -> str:
    if os.environ.get('SLURM_STEP_NUM_NODES') == '1':
        return LOOPBACK
    names = ('SLURM_STEP_NODELIST', 'SLURM_JOB_NODELIST', 'SLURM_NODELIST')  # a step may have only some of the nodes
    nodes = next((os.environ[name] for name in names if os.environ.get(name)), '')
    command = ['scontrol', 'show', 'hostnames', nodes]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise ConfigError('cannot find the first machine of the slurm job: set MASTER_ADDR to its name') from error


def _slurm_port() -> int | None:
    job, step = (os.environ.get(name, '') for name in ('SLURM_JOB_ID', 'SLURM_STEP_ID'))
    if not job.isdecimal():
        return None
    return job_port(int(job) * STEPS_A_JOB + (int(step) if step.isdecimal() else 0))


def _mpi_address(world_size: int) -> str:
    here = os.environ.get('OMPI_COMM_WORLD_LOCAL_SIZE', '')
    if here.isdecimal() and int(here) < world_size:
        raise ConfigError(
            f'{here} of {world_size} processes run on this machine, so the others have to be told where rank 0 is: '
            'mpirun -x MASTER_ADDR=HOST, the name of the first machine'
        )
    return LOOPBACK


def _mpi_port() -> int | None:
    run = next((os.environ[name] for name in LAUNCHERS['mpi'].run if os.environ.get(name)), None)
    return None if run is None else job_port(zlib.crc32(run.encode()))


LAUNCHERS: Mapping[str, Launcher] = {
    'pytorch': Launcher(
        ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
        ('TORCHELASTIC_RUN_ID', 'SLURM_JOB_ID'),
        'bash dist_test.sh CONFIG [GPUS], or torchrun',
    ),
    'slurm': Launcher(
        ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
        ('SLURM_JOB_ID', 'SLURM_STEP_ID', 'SLURM_RESTART_COUNT'),
        'srun python eval.py --config CONFIG --launcher slurm (within a batch script too)',
        check=_slurm_check, address=_slurm_address, port=_slurm_port,
    ),  # fmt: skip
    'mpi': Launcher(
        ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
        ('PMIX_NAMESPACE', 'OMPI_MCA_ess_base_jobid'),
        'mpirun -n N python eval.py --config CONFIG --launcher mpi',
        address=_mpi_address, port=_mpi_port,
    ),  # fmt: skip
}
