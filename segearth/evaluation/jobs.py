"""Runs evaluations as processes: several at once, each in its folder, none twice, none lost.

A job holds a lock on its folder, and its process inherits it: when the program that started the jobs is killed, a job
that goes on keeps the lock until it ends. A second start therefore waits for it and then, resuming, finds its row.
Rows are known by their run, so appending one that is there already changes nothing.
"""

import fcntl
import logging
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from segearth.errors import ResultsError
from segearth.evaluation.results import append_row, read_rows
from segearth.evaluation.row import ResultRow, read_row

DONE, FAILED, SKIPPED, STOPPED = 'done', 'failed', 'skipped', 'not done'
CONSOLE_LOG, ROW_FILE, LOCK_FILE = 'console.log', 'result.json', 'running.lock'
POLL_SECONDS = 0.2
GRACE_SECONDS = 20.0  # between being told to end and being ended
TAIL_BYTES = 20_000
PROGRESS = re.compile(r'Iter\(test\) \[\s*(\d+)/(\d+)\]')
ERROR = re.compile(r'^(?:error: )(.*)$', re.MULTILINE)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """An evaluation to run."""

    config: Path
    folder: Path  # of its logs and rows
    digest: str | None  # of its settings, as in its row; None where the config cannot be read
    num_images: int = 1  # that it will take, as far as known before; for the time left
    fault: str = ''  # why it cannot be run


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    job: Job
    state: str  # done, failed, skipped or not done
    reason: str = ''  # why it is not done
    row: ResultRow | None = None
    seconds: float = 0.0  # that the process ran


class RunningJob:
    """A job under way, on some devices."""

    def __init__(
        self, job: Job, devices: Sequence[str], lock: IO, command: Sequence[str], environment: dict[str, str]
    ) -> None:
        self.job = job
        self.devices = devices
        self.started = time.time()
        self._lock = lock
        with open(job.folder / CONSOLE_LOG, 'wb') as console:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                pass_fds=(lock.fileno(),),
                start_new_session=True,  # an interruption reaches it through signal(), once
            )

    @property
    def images(self) -> tuple[int, int] | None:
        """Images done and images in all, as its console says; None before the first ones are."""
        counts = PROGRESS.findall(_tail(self.job.folder / CONSOLE_LOG))
        return (int(counts[-1][0]), int(counts[-1][1])) if counts else None

    def poll(self, results: Path) -> Outcome | None:
        """What became of it; None while it runs. Makes sure that its row is in the results."""
        code = self._process.poll()
        if code is None:
            return None
        seconds, row = time.time() - self.started, None
        reason = failure_reason(self.job.folder / CONSOLE_LOG, code) if code else f'it left no row in {self.job.folder}'
        kept = [] if code else kept_rows(self.job.folder)
        if kept and kept[-1][0].stat().st_mtime >= self.started - 1:
            try:
                append_row(kept[-1][1], results)  # it is there, unless the process was hindered: then it is now
                row, reason = kept[-1][1], ''
            except ResultsError as error:
                reason = str(error)
        self._lock.close()
        return Outcome(self.job, DONE if row else FAILED, reason, row, seconds)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to its processes."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def end(self, results: Path, deadline: float) -> Outcome:
        """Waits for its end until a time (of ``time.monotonic``), then ends it."""
        try:
            self._process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self._process.wait()
        outcome = self.poll(results)
        assert outcome is not None  # it has ended
        return outcome if outcome.state == DONE else Outcome(self.job, STOPPED, 'interrupted', None, outcome.seconds)


def run_jobs(
    jobs: Sequence[Job],
    slots: Sequence[Sequence[str]],
    start: Callable[[Job, Sequence[str]], tuple[Sequence[str], dict[str, str]]],
    results: Path,
    resume: bool = False,
    report: Callable[[Outcome], None] = lambda _: None,
    watch: Callable[[Sequence[RunningJob], Sequence[Job]], None] = lambda *_: None,
) -> None:
    """Runs jobs in their order, as many at once as there are slots, each on the devices of its slot.

    ``start`` gives command and environment of a job on devices. Resuming skips jobs whose row is in the results, or
    kept in their folder. ``report`` gets each outcome as it is known, ``watch`` what runs and what waits, several times
    a second. An interruption tells the jobs under way to end, and is raised when all outcomes are reported.
    """
    waiting, free = list(jobs), list(slots)
    running: list[RunningJob] = []
    blocked: set[Job] = set()
    try:
        while waiting or running:
            for job in list(waiting):
                if not free:
                    break
                begun = _begin(job, free[0], start, results, resume)
                if begun is None:
                    if job not in blocked:
                        logger.warning('%s is still running from an earlier start: waiting for it', job.config.stem)
                    blocked.add(job)
                    continue
                waiting.remove(job)
                if isinstance(begun, Outcome):
                    report(begun)
                else:
                    free.pop(0)
                    running.append(begun)
            for entry in list(running):
                if outcome := entry.poll(results):
                    running.remove(entry)
                    free.append(entry.devices)
                    report(outcome)
            watch(running, waiting)
            if waiting or running:
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        for entry in running:
            entry.signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        for entry in running:
            report(entry.end(results, deadline))
        for job in waiting:
            report(Outcome(job, STOPPED, 'not started'))
        raise


def find_row(job: Job, results: Path) -> ResultRow | None:
    """The row of a job's settings, from its folder (then it is appended to the results) or from the results."""
    wanted = (job.digest, job.config.stem)
    for path, row in reversed(kept_rows(job.folder)):
        if (row.summary.get('Settings'), row.summary.get('Config')) == wanted:
            append_row(row, results, kept_in=path)
            return row
    for row in reversed(read_rows(results) if results.exists() else []):
        if (row.get('Settings'), row.get('Config')) == wanted:
            return ResultRow(row['Run'], row)
    return None


def kept_rows(folder: Path) -> list[tuple[Path, ResultRow]]:
    """Rows that runs left in a job's folder, the oldest first."""
    rows = []
    for path in sorted(folder.glob(f'*/{ROW_FILE}'), key=lambda path: path.stat().st_mtime):
        try:
            rows.append((path, read_row(path)))
        except ResultsError as error:
            logger.warning('%s is left out: %s', path, error)
    return rows


def failure_reason(console: Path, code: int) -> str:
    """Why a process failed: its last message, or the end of its console."""
    text = _tail(console)
    messages = ERROR.findall(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reason = messages[-1] if messages else (lines[-1] if lines else 'no output')
    if code < 0:
        reason = f'ended by {signal.Signals(-code).name}; {reason}'
    return reason if messages else f'{reason} (exit code {code}; all of it in {console})'


def _begin(
    job: Job, devices: Sequence[str], start: Callable, results: Path, resume: bool
) -> RunningJob | Outcome | None:
    """The job running, or its outcome where it need not or cannot run; None where its folder is in use."""
    if job.fault:
        return Outcome(job, FAILED, job.fault)
    job.folder.mkdir(parents=True, exist_ok=True)
    lock = open(job.folder / LOCK_FILE, 'a')  # noqa: SIM115 - held as long as the job runs
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    try:
        row = find_row(job, results) if resume else None
        if row is None:
            return RunningJob(job, devices, lock, *start(job, devices))
        outcome = Outcome(job, SKIPPED, f'has run {row.run} with these settings', row)
    except (ResultsError, OSError) as error:
        outcome = Outcome(job, FAILED, str(error) if isinstance(error, ResultsError) else f'cannot be started: {error}')
    lock.close()
    return outcome


def _tail(path: Path) -> str:
    try:
        with open(path, 'rb') as file:
            file.seek(max(os.fstat(file.fileno()).st_size - TAIL_BYTES, 0))
            return file.read().decode(errors='replace')
    except OSError:
        return ''
