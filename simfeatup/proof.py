"""Fast paths that prove themselves before they are used: on a tiny input, against the plain path, once a process.

What a processor, a driver or a library says of itself does not tell whether a fast way to compute something works
here. So it is tried: an error or a difference, and the plain path is taken from then on, with one line in the log.

    NUMBA = FastPath('numba', 'SIMFEATUP_NUMBA', 'plain torch')
    if NUMBA.works(('fold', dtype), proof):  # proof() yields pairs of results, (fast path, plain path)
        ...
"""

from __future__ import annotations

import contextvars
import logging
import os
import threading
import warnings
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future
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

    Args:
        name: For messages.
        variable: Environment variable that turns it off: 0, off, no or false. Read at every use.
        instead: What runs where it does not work, for messages.
    """

    def __init__(self, name: str, variable: str, instead: str) -> None:
        self.name, self.variable, self.instead = name, variable, instead
        self._verdicts: dict[Case, Future[str | None]] = {}
        self._said: set[str] = set()
        self._process = os.getpid()

    def is_on(self) -> bool:
        """Whether the environment leaves it on.

        Raises:
            UpsamplerError: The variable has a value that means neither.
        """
        value = os.environ.get(self.variable, '').strip().lower()
        if value in ON or value in OFF:
            return value in ON
        raise UpsamplerError(f'{self.variable} is {value!r}; allowed: 0 turns {self.name} off, 1 leaves it on.')

    def works(self, case: Case, proof: Proof, tolerance: float = TOLERANCE) -> bool:
        """Whether it is on and has proved itself.

        Args:
            case: What is proved, apart from other proofs of this path: an operation, a dtype, sizes.
            proof: Computes something tiny both ways and yields pairs of results, (fast path, plain path). Called once
                a process for each case, in a thread of its own: no autocast, mode or hook of the caller's reaches it.
            tolerance: Largest allowed difference, as a share of the largest number of the plain path's result.

        Raises:
            UpsamplerError: See :meth:`is_on`.
        """
        if not self.is_on():
            return False
        if self._process != os.getpid():  # a forked process has none of the threads that were at work
            self._process = os.getpid()
            self._verdicts = {known: verdict for known, verdict in self._verdicts.items() if verdict.done()}
        verdict = self._verdicts.get(case)
        if verdict is None:
            mine: Future[str | None] = Future()
            verdict = self._verdicts.setdefault(case, mine)
            if verdict is mine:
                run, arguments = contextvars.Context().run, (self._prove, mine, case, proof, tolerance)
                threading.Thread(target=run, args=arguments, name='proof', daemon=True).start()
        return verdict.result() is None

    def run(self, case: Case, proof: Proof, fast: Callable[[], T], plain: Callable[[], T], tolerance: float) -> T:
        """``fast()`` where the path works, else ``plain()``; so, too, from the first error of ``fast`` on.

        Args:
            case: See :meth:`works`, as the proof and the tolerance.
            proof: See there.
            fast: Without side effects.
            plain: The same by the plain path.
            tolerance: See there.
        """
        if self.works(case, proof, tolerance):
            try:
                return fast()
            except Exception as error:
                result = plain()  # where that fails too, the fast path is not to blame
                self.refuse(case, _first_line(error))
                return result
        return plain()

    def refuse(self, case: Case, reason: str) -> None:
        """Takes the plain path for a case from now on, with one line in the log."""
        refusal: Future[str | None] = Future()
        refusal.set_result(reason)
        self._verdicts[case] = refusal
        self._say(case, reason)

    def verdicts(self) -> dict[Case, str | None]:
        """What was proved until now: case -> why it is not used, or None where it is."""
        return {case: verdict.result() for case, verdict in list(self._verdicts.items()) if verdict.done()}

    def _prove(self, verdict: Future[str | None], case: Case, proof: Proof, tolerance: float) -> None:
        reason: str | None = 'the proof was broken off'
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # what a trial gives cause to
                reason = next(filter(None, (_difference(*pair, tolerance) for pair in proof())), None)
        except Exception as error:  # whatever it is, the plain path does without
            reason = _first_line(error)
        finally:
            if reason is not None:
                self._say(case, reason)
            verdict.set_result(reason)

    def _say(self, case: Case, reason: str) -> None:
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
