"""A progress bar with the time left, on a terminal's error stream."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich.progress as bars
from rich.console import Console

BYTES = 'bytes'
Report = Callable[[int, int | None], None]
"""Told (what is done, how much there is in all, None if nobody knows)."""


@contextmanager
def progress_bar(name: str, unit: str = 'windows', is_passing: bool = False) -> Iterator[Report]:
    """Shows how far something is.

    Args:
        name: Shown before the bar.
        unit: What is counted; :data:`BYTES` are shown with their speed.
        is_passing: Show the bar on terminals only, from the first report on, and take it away at the end.
    """
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
