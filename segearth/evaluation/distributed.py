"""Joins the processes of one evaluation, with NCCL where there is CUDA and gloo where there is none.

mmengine's own initialisation insists on CUDA; with the process group made here, its Runner uses that one.
"""

import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore, Store

from segearth.errors import ConfigError, UserError
from segearth.evaluation.agreement import RANK, Card, code_card, find_disagreement
from segearth.evaluation.launchers import Place, read_place

DEFAULT_TIMEOUT = 1800  # seconds
KNOCK_SECONDS = 0.5  # between attempts to reach the process of rank 0
POLL_SECONDS = 0.05
SAY_AFTER = 15  # seconds of waiting
FAREWELL_SECONDS = 10  # that rank 0, which keeps the cards, gives the others to read them
LOST = re.compile(r'gloo|Connection (closed|reset) by peer|timed out', re.IGNORECASE)

logger = logging.getLogger(__name__)


class LostProcessError(UserError):
    """Another process of the evaluation has ended or does not answer."""


def join_processes(
    launcher: str, backend: str | None = None, timeout: float = DEFAULT_TIMEOUT, card: Card | None = None
) -> None:
    """Makes the default process group from a launcher's environment; 'none' does nothing.

    The processes make sure first that they are of one run, with one version of the code.

    Args:
        launcher: 'none', 'pytorch' (torchrun), 'slurm' or 'mpi' (Open MPI).
        backend: nccl or gloo; None for nccl with CUDA, else gloo. Without CUDA it is gloo in any case.
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
    start = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
    store = PrefixStore(f'segearth/{start}', _meeting_place(place, timeout))
    _call_the_roll(store, place, {'backend': backend, **code_card(), **(card or {})}, timeout)
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
    """Turns what torch says in many ways when another process is gone, or is silent so long, into one message."""
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
    """The store that rank 0 or the launcher keeps."""
    is_keeper = place.rank == 0 and not place.is_kept_by_launcher
    if not is_keeper:
        _wait_until_kept(place, timeout)
    try:
        return distributed.TCPStore(  # type: ignore[attr-defined]
            place.address,
            place.port,
            world_size=place.world_size,
            is_master=is_keeper,
            timeout=timedelta(seconds=timeout),
            wait_for_workers=False,  # the roll call does so, and looks who comes
        )
    except distributed.DistError as error:
        cause = (
            f'rank 0 cannot listen there; is there another run, or another process of rank 0? ({error})'
            if is_keeper
            else f'what listens there does not answer ({error})'
        )
        raise ConfigError(
            f'the processes do not meet at {place.where}: {cause}. Set MASTER_PORT (PORT of dist_test.sh) to a free '
            'port, alike for all processes'
        ) from error


def _wait_until_kept(place: Place, timeout: float) -> None:
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


def _call_the_roll(store: Store, place: Place, card: Card, timeout: float) -> None:
    """Waits for the processes of a run and checks that they are those of one run.

    Whoever comes lays down a card, in the order of coming; the first ``world_size`` cards have to be alike in all but
    the rank, of which there has to be each one once. A process that comes after these is one too many.
    """
    card = {RANK: place.rank, 'number of processes': place.world_size, 'run': place.run or 'unnamed', **card}
    started = time.monotonic()
    cards: list[Card] = []
    is_said = False
    try:
        turn = store.add('come', 1)
        store.set(f'card/{turn}', json.dumps(card))
        while len(cards) < place.world_size:
            while store.check([f'card/{len(cards) + 1}']):
                cards.append(json.loads(store.get(f'card/{len(cards) + 1}')))
            problem = _find_problem(cards, card, place, is_late=turn > place.world_size)
            waited = time.monotonic() - started
            ranks = ', '.join(str(known[RANK]) for known in cards)
            if not problem and waited > timeout:
                problem = ConfigError(
                    f'of {place.world_size} processes only those of rank {ranks} came to {place.where} (MASTER_ADDR, '
                    f'MASTER_PORT; PORT of dist_test.sh) within {timeout:.0f} s. Nothing was counted'
                )
            if problem:
                _wait_for_readers(store, place)
                raise problem
            if waited > SAY_AFTER and not is_said:
                is_said = True
                logger.warning('waiting at %s for %d processes; rank %s came', place.where, place.world_size, ranks)
            if len(cards) < place.world_size:
                time.sleep(POLL_SECONDS)
    except distributed.DistError as error:
        raise ConfigError(
            f'the process of rank 0 ended before all {place.world_size} had met at {place.where}; its own message says '
            'why. Nothing was counted'
        ) from error


def _find_problem(cards: Sequence[Card], own: Card, place: Place, is_late: bool) -> ConfigError | None:
    if problem := find_disagreement([*cards, own] if is_late else cards, place.where):
        return problem
    ranks = [card[RANK] for card in cards]
    doubled = [place.rank] if is_late else sorted({rank for rank in ranks if ranks.count(rank) > 1})
    if not doubled:
        return None
    return ConfigError(
        f'two processes of rank {doubled[0]} came to {place.where}, where {place.world_size} processes of one run '
        'meet. Nothing was counted: start each rank once, and give another run another MASTER_PORT'
    )


def _wait_for_readers(store: Store, place: Place) -> None:
    """The process that keeps the cards waits until the others have seen them, before all refuse."""
    left = store.add('left', 1)
    deadline = time.monotonic() + FAREWELL_SECONDS
    while place.rank == 0 and left < store.add('come', 0) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        left = store.add('left', 0)
