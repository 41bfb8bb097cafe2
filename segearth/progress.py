"""A progress bar with the time left, on a terminal's error stream, or lines there for a program that reads them.

With ``SEGEARTH_PROGRESS=lines`` in the environment progress is ``progress: 12/345``, once a second, and messages begin
with ``INFO: `` or ``WARNING: ``.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich.progress as bars
from rich.console import Console

BYTES = 'bytes'
SECONDS_A_LINE = 1
Report = Callable[[int, int | None], None]
"""Told (what is done, how much there is in all, None if nobody knows)."""


def is_read_by_program() -> bool:
    """Whether lines are wanted instead of a bar."""
    return os.environ.get('SEGEARTH_PROGRESS') == 'lines'


def message_format() -> str:
    """How logging writes a message."""
    return '%(levelname)s: %(message)s' if is_read_by_program() else '%(message)s'


class MessageHandler(logging.StreamHandler):
    """Writes messages to what the error stream is at the moment: a bar takes it over, and lets lines pass above it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a message."""
        self.stream = sys.stderr
        super().emit(record)


@contextmanager
def progress_bar(name: str, unit: str = 'windows', is_passing: bool = False) -> Iterator[Report]:
    """Shows how far something is.

    Args:
        name: Shown before the bar.
        unit: What is counted; :data:`BYTES` are shown with their speed.
        is_passing: Show the bar on terminals only, from the first report on, and take it away at the end.
    """
    if is_read_by_program():
        yield _print_lines()
        return
    counted = (bars.MofNCompleteColumn(), bars.TextColumn(unit))
    amount = (bars.DownloadColumn(), bars.TransferSpeedColumn()) if unit == BYTES else counted
    left = (bars.TimeElapsedColumn(), bars.TextColumn('left'), bars.TimeRemainingColumn())
    console = Console(stderr=True)
    with bars.Progress(
        bars.TextColumn('{task.description}'), bars.BarColumn(), *amount, *left,
        console=console, transient=is_passing, disable=is_passing and not console.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task(name, total=None, visible=not is_passing)
        first: list[int] = []

        def report(done: int, total: int | None) -> None:
            if not first:  # what an earlier run did says nothing about the speed of this one
                first.append(done)
                bar.reset(task, total=total, completed=done, visible=True)
            bar.update(task, completed=done, total=total)

        yield report


def _print_lines() -> Report:
    told = float('-inf')

    def report(done: int, total: int | None) -> None:
        nonlocal told
        if total and (time.monotonic() - told >= SECONDS_A_LINE or done == total):
            told = time.monotonic()
            print(f'progress: {done}/{total}\n', end='', file=sys.stderr, flush=True)

    return report
