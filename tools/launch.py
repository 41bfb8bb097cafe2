"""Starts several processes of a program, like torchrun, and ends with the exit code of the worst of them.

python tools/launch.py --standalone --nproc_per_node 2 eval.py --config configs/cfg_demo.py --launcher pytorch

Takes torchrun's options. torchrun itself ends with code 1 and a traceback whatever happened; here a user's mistake
stays code 2, a process killed by signal n gives 128 + n, and messages are those of the processes. It imports nothing of
this project, which would cost seconds before each start.
"""

import logging
import os
import signal
import sys
from collections.abc import Iterable

from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous.api import RendezvousError
from torch.distributed.run import parse_args, run

ELASTIC_LOGGER = 'torch.distributed.elastic'  # repeats as a table what the processes say themselves
THREAD_VARIABLES = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')
SIGNALS = 'SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1'  # torchrun's own, and the one that Slurm's users ask for
SIGNAL_BASE = 128  # shells report signal n as 128 + n
WHEN_TOLD_TO_END = (-signal.SIGTERM, SIGNAL_BASE + signal.SIGINT)
"""Codes of processes that are ended because another failed: before and after eval.py minds that signal."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the program and returns its exit code."""
    options = parse_args(arguments)
    logging.getLogger(ELASTIC_LOGGER).setLevel(logging.CRITICAL)
    os.environ.setdefault('TORCHELASTIC_SIGNALS_TO_HANDLE', SIGNALS)
    if options.nproc_per_node.isdecimal():  # torchrun would give each process a single thread
        num_processes = max(int(options.nproc_per_node), 1)
        for name in THREAD_VARIABLES:
            os.environ.setdefault(name, str(max((os.cpu_count() or 1) // num_processes, 1)))
    try:
        run(options)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in sorted(error.failures.items())}
        for rank, code in codes.items():
            if code < 0 and code not in WHEN_TOLD_TO_END:
                name = signal.Signals(-code).name
                print(f'error: process {rank} was ended by {name}; the others were ended too', file=sys.stderr)
        return worst_code(codes.values())
    except SignalException as error:
        return SIGNAL_BASE + error.sigval
    except (DistError, RendezvousError) as error:
        print(f'error: the processes do not find each other: {error}. Check MASTER_ADDR, PORT or '
              'MASTER_PORT, NNODES, NODE_RANK; two runs need two ports', file=sys.stderr)
        return 2
    return 0


def worst_code(codes: Iterable[int]) -> int:
    """The highest exit code, signals (negative) as shells count them; codes of processes told to end count last."""
    codes = [code for code in codes if code]
    own = [code for code in codes if code not in WHEN_TOLD_TO_END] or codes
    return max((SIGNAL_BASE - code if code < 0 else code for code in own), default=1)


if __name__ == '__main__':
    sys.exit(main())
