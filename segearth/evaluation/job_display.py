"""What a sweep over configs shows: a bar for each job under way, a line for each that is over, a table at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from segearth.evaluation.jobs import DONE, FAILED, SKIPPED, STOPPED, Job, Outcome, RunningJob

MIN_IMAGES = 20  # before the time left is told: the first ones take the time of the start
STYLES = {DONE: 'green', FAILED: 'bold red', SKIPPED: 'cyan', STOPPED: 'yellow'}


class JobDisplay:
    """Progress of a sweep; a context manager.

    Args:
        num_jobs: All of them.
        console: Where to.

    Attributes:
        outcomes: What was reported so far.
    """

    def __init__(self, num_jobs: int, console: Console) -> None:
        self.outcomes: list[Outcome] = []
        self._num_jobs = num_jobs
        self._console = console
        share = TextColumn('{task.percentage:>3.0f} %  {task.fields[note]}')
        columns = TextColumn('{task.description}'), BarColumn(), share
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._bars: dict[Job, TaskID] = {}
        self._total = self._progress.add_task('all', total=1.0, note='')
        self._started = time.monotonic()
        self._images_done = 0.0
        self._left = ''

    def __enter__(self) -> JobDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def report(self, outcome: Outcome) -> None:
        """Says what became of a job."""
        self.outcomes.append(outcome)
        summary = outcome.row.summary if outcome.row else {}
        if outcome.state == DONE:
            self._images_done += summary.get('Images') or 0
        if outcome.job in self._bars:
            self._progress.remove_task(self._bars.pop(outcome.job))
        left = self._left if len(self.outcomes) < self._num_jobs else ''
        score = f'mIoU {summary.get("mIoU")}  ' if outcome.row else ''
        place = escape(f'[{len(self.outcomes)}/{self._num_jobs}]')
        self._console.print(
            f'{place} {outcome.job.config.stem}: {_state(outcome)}  {score}{escape(outcome.reason)}{left}',
            soft_wrap=True,
            highlight=False,
        )

    def watch(self, running: Sequence[RunningJob], waiting: Sequence[Job]) -> None:
        """Moves the bars."""
        done, left = self._images_done, float(sum(job.num_images for job in waiting))
        for entry in running:
            finished, total = entry.images or (0, entry.job.num_images)
            done, left = done + finished, left + total - finished
            if entry.job not in self._bars:
                self._bars[entry.job] = self._progress.add_task(entry.job.config.stem, total=1.0, note='')
            note = f'{finished} of {total} images' if entry.images else 'starting'
            self._progress.update(self._bars[entry.job], completed=finished / max(total, 1), note=note)
        seconds = (time.monotonic() - self._started) * left / max(done, 1)
        self._left = f'  about {timedelta(seconds=round(seconds))} left' if done >= MIN_IMAGES and left else ''
        note = f'{len(self.outcomes)} of {self._num_jobs} configs{self._left}'
        self._progress.update(self._total, completed=done / max(done + left, 1e-9), note=note)


def summary_table(outcomes: Sequence[Outcome]) -> Table:
    """Config, state, mIoU, images, seconds, and why."""
    table = Table('config', 'state', 'mIoU', 'images', 'seconds', 'why')
    for outcome in outcomes:
        summary = outcome.row.summary if outcome.row else {}
        cells = summary.get('mIoU', ''), summary.get('Images', ''), f'{outcome.seconds:.0f}' if outcome.seconds else ''
        table.add_row(outcome.job.config.stem, _state(outcome), *map(str, cells), escape(outcome.reason))
    return table


def _state(outcome: Outcome) -> str:
    return f'[{STYLES[outcome.state]}]{outcome.state}[/]'
