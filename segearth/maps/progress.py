"""A progress bar with the time left, on a terminal's error stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from segearth.maps.run import Progress as Report


@contextmanager
def progress_bar(name: str) -> Iterator[Report]:
    """Shows how far the windows of a scene are.

    Yields:
        Function to be told (windows done, windows in all).
    """
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn('windows'),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)
        first: list[int] = []

        def report(done: int, total: int) -> None:
            if not first:  # windows of an earlier run say nothing about the speed of this one
                first.append(done)
                bar.reset(task, total=total, completed=done)
            bar.update(task, completed=done, total=total)

        yield report
