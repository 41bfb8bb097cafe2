"""A progress bar with the time left, on a terminal's error stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

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
    amount = (DownloadColumn(), TransferSpeedColumn()) if unit == BYTES else (MofNCompleteColumn(), TextColumn(unit))
    columns = (
        TextColumn('{task.description}'), BarColumn(), *amount,
        TimeElapsedColumn(), TextColumn('left'), TimeRemainingColumn(),
    )  # fmt: skip
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=is_passing, disable=is_passing and not console.is_terminal
    ) as bar:
        task = bar.add_task(name, total=None, visible=not is_passing)
        first: list[int] = []

        def report(done: int, total: int | None) -> None:
            if not first:  # what an earlier run did says nothing about the speed of this one
                first.append(done)
                bar.reset(task, total=total, completed=done, visible=True)
            bar.update(task, completed=done, total=total)

        yield report
