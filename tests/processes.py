"""Two processes that find each other as those of torchrun do."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket

NUM_PROCESSES = 2
TIMEOUT = 20  # seconds after which a process that should be dead is


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def start_forked(act, names=('RANK', 'WORLD_SIZE', 'LOCAL_RANK')) -> list[int]:
    """Runs a function in processes that share this one's imports; returns their exit codes."""
    port = str(free_port())

    def body(rank: int) -> None:
        signal.alarm(TIMEOUT)
        values = (rank, NUM_PROCESSES, rank)
        os.environ.update({name: str(value) for name, value in zip(names, values, strict=True)}, MASTER_PORT=port)
        act(rank)

    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=body, args=(rank,)) for rank in range(NUM_PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]
