"""Fast paths that prove themselves before they are used: on a tiny input, against the plain path, once a process.

What a processor, a driver or a library says of itself does not tell whether a fast way to compute something works
here. So it is tried: an error or a difference, and the plain path is taken from then on, with one line in the log.
"""

import contextvars
import logging
import os
import threading
import warnings
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

import torch
from torch import Tensor

from simfeatup.errors import UpsamplerError

ON, OFF = ('', '1', 'on', 'yes', 'true'), ('0', 'off', 'no', 'false')
TOLERANCE = 1e-4  # of the largest number of the plain path's result
MAX_REASON = 200  # characters

Proof = Callable[[], Iterable[tuple[Tensor, Tensor]]]
Case = tuple[Hashable, ...]
T = TypeVar('T')

logger = logging.getLogger(__name__)


class FastPath:
    """A fast way to compute what a plain one computes too.

    The environment's ``variable`` turns it off: 0, off, no or false, read at every use. ``name``, and ``instead``, what
    runs where it does not work, are for messages.
    """

    def __init__(self, name: str, variable: str, instead: str) -> None:
        self.name, self.variable, self.instead = name, variable, instead
        self._verdicts: dict[Case, str | None] = {}  # why it is not used, or None where it is
        self._said: set[str] = set()
        self._lock, self._process = threading.Lock(), os.getpid()

    def is_on(self) -> bool:
        """Whether the environment leaves it on; raises UpsamplerError for a value that means neither."""
        value = os.environ.get(self.variable, '').strip().lower()
        if value in ON or value in OFF:
            return value in ON
        raise UpsamplerError(f'{self.variable} is {value!r}; allowed: 0 turns {self.name} off, 1 leaves it on.')

    def works(self, case: Case, proof: Proof, tolerance: float = TOLERANCE) -> bool:
        """Whether it is on, as :meth:`is_on` says with its error, and has proved itself for a case.

        A case is what is proved apart from others: an operation, a dtype, sizes. The proof computes something tiny both
        ways and yields pairs of results, (fast path, plain path), which may differ by ``tolerance`` of the largest
        number of the plain one. It is called once a process for each case, in a thread of its own: no autocast, mode or
        hook of the caller's reaches it.
        """
        if not self.is_on():
            return False
        if case not in self._verdicts:
            if self._process != os.getpid():  # a forked process has none of the threads that were at work
                self._lock, self._process = threading.Lock(), os.getpid()
            with self._lock:
                if case not in self._verdicts:
                    run, arguments = contextvars.Context().run, (self._prove, case, proof, tolerance)
                    thread = threading.Thread(target=run, args=arguments, name='proof', daemon=True)
                    thread.start()
                    thread.join()
        return self._verdicts[case] is None

    def run(self, case: Case, proof: Proof, fast: Callable[[], T], plain: Callable[[], T], tolerance: float) -> T:
        """``fast()``, free of side effects, where the path works, else ``plain()``; so from an error of ``fast`` on."""
        if self.works(case, proof, tolerance):
            try:
                return fast()
            except Exception as error:
                result = plain()  # where that fails too, the fast path is not to blame
                self._refuse(case, _first_line(error))
                return result
        return plain()

    def verdicts(self) -> dict[Case, str | None]:
        """What was proved until now: case -> why it is not used, or None where it is."""
        return dict(self._verdicts)

    def _prove(self, case: Case, proof: Proof, tolerance: float) -> None:
        reason: str | None = 'the proof was broken off'
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # what a trial gives cause to
                reason = next(filter(None, (_difference(*pair, tolerance) for pair in proof())), None)
        except Exception as error:  # whatever it is, the plain path does without
            reason = _first_line(error)
        finally:
            if reason is None:
                self._verdicts[case] = None
            else:
                self._refuse(case, reason)

    def _refuse(self, case: Case, reason: str) -> None:
        """Takes the plain path for a case from now on, with one line in the log for each reason."""
        self._verdicts[case] = reason
        if reason in self._said:
            return
        self._said.add(reason)
        what = f'{self.name} ({", ".join(str(part).removeprefix("torch.") for part in case)})' if case else self.name
        logger.warning('Not used here: %s, for %s. Instead: %s. %s=0 turns it off.',
                       what, reason, self.instead, self.variable)  # fmt: skip


def pattern(*shape: int, dtype: torch.dtype, device: torch.device | str = 'cpu') -> Tensor:
    """Numbers from -1 to 1 without visible order, always the same; the generator of random numbers is left alone."""
    count = torch.Size(shape).numel()
    values = torch.arange(1, count + 1, dtype=torch.float64, device='cpu').square().mul(0.7).sin()
    return values.reshape(shape).to(device, dtype)


def _difference(fast: Tensor, plain: Tensor, tolerance: float) -> str | None:
    if fast.shape != plain.shape:
        return f'its result has the shape {tuple(fast.shape)} instead of {tuple(plain.shape)}'
    allowed = tolerance * plain.abs().max().item()
    largest = (fast.double() - plain.double()).abs().max().item()
    if largest <= allowed:  # not so where there is NaN
        return None
    return f'its result is wrong (by {largest:.2g}, allowed {allowed:.2g})'


def _first_line(error: BaseException) -> str:
    text = ' '.join(str(error).split('\n', 1)[0].split())[:MAX_REASON].rstrip('.')
    return f'{type(error).__name__}: {text}' if text else type(error).__name__
