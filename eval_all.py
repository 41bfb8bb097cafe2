"""Evaluates many configs, several at once, into one results.xlsx with a sheet of measured beside reported figures.

python eval_all.py --group optical
python eval_all.py --gpus 8 --jobs 4 --resume            # two devices a config; goes on where it was ended
python eval_all.py --configs 'cfg_*_road.py' configs/cfg_demo.py --limit 20 --cfg-options model.clip_type=Demo

Each config runs in a process and a folder of its own. One that fails is reported and the others go on; the exit code is
1 then. Ended in any way, it goes on with --resume: what the results hold for the same settings is not run again.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from segearth.cli import EXIT_INTERRUPTED, build_parser, run_cli
from segearth.errors import ConfigError, ResultsError, UserError
from segearth.evaluation.comparison import PAPER_SHEET, save_chart, write_paper_sheet
from segearth.evaluation.configuration import add_config_options, load_config, match_configs
from segearth.evaluation.jobs import DONE, FAILED, SKIPPED, STOPPED, Job, Outcome, RunningJob, run_jobs
from segearth.evaluation.results import check_results_path
from segearth.evaluation.row import settings_digest
from segearth.paths import PROJECT_ROOT
from segearth.published import ALL, GROUPS, group_configs, published_images

EXIT_FAILED = 1
USUAL_IMAGES = 500  # of a set without a published number; for the time left only
VISIBLE_DEVICES = 'CUDA_VISIBLE_DEVICES'
MIN_IMAGES = 20  # before the time left is told: the first ones take the time of the start
STYLES = {DONE: 'green', FAILED: 'bold red', SKIPPED: 'cyan', STOPPED: 'yellow'}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program and returns its exit code: 0, 1 where a config failed, 130 after an interruption."""
    parser = build_parser(__doc__)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument('--group', choices=(*GROUPS, ALL), default=ALL, help='data sets of a table (default: all)')
    chosen.add_argument('--configs', nargs='+', metavar='GLOB', help='configs by path or pattern instead')
    parser.add_argument('--gpus', type=int, help='CUDA devices to use (default: all)')
    parser.add_argument('--jobs', type=int, help='configs at once (default: one a device, one without devices)')
    parser.add_argument('--resume', action='store_true', help='skip what the results hold for the same settings')
    parser.add_argument('--results', type=Path, default=Path('results.xlsx'), help='spreadsheet (default: %(default)s)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/eval_all'), help='default: %(default)s')
    parser.add_argument('--limit', type=int, help='only so many images of each set; marked in the sheet')
    parser.add_argument('--skip-broken', action='store_true', help='leave unreadable images out, and count them')
    add_config_options(parser)
    options = parser.parse_args(arguments)
    results = check_results_path(options.results)
    configs = match_configs(options.configs) if options.configs else group_configs(options.group)
    slots = share_devices(visible_devices(), options.gpus, options.jobs)
    jobs = [plan(config, options.work_dir, options.cfg_options, options.limit) for config in configs]
    common = ['--results', str(results)]
    common += ['--limit', str(options.limit)] if options.limit is not None else []
    common += ['--skip-broken'] if options.skip_broken else []
    common += ['--cfg-options', *options.cfg_options_as_given] if options.cfg_options_as_given else []

    def start(job: Job, devices: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        return command(job, devices, common), environment(devices, len(slots))

    console = Console()
    code = 0
    with JobDisplay(len(jobs), console) as display:
        try:
            run_jobs(jobs, slots, start, results, options.resume, display.report, display.watch)
        except KeyboardInterrupt:
            code = EXIT_INTERRUPTED
    console.print(summary_table(display.outcomes))
    if code:
        console.print('interrupted; to go on: the same command with --resume')
    if results.exists():
        _compare(results, console)
    return code or (EXIT_FAILED if any(outcome.state == FAILED for outcome in display.outcomes) else 0)


def visible_devices() -> list[str]:
    """Names of the CUDA devices, as the environment variable that hides devices has them."""
    names = [name.strip() for name in os.environ.get(VISIBLE_DEVICES, '').split(',') if name.strip()]
    count = torch.cuda.device_count()
    return (names or [str(index) for index in range(count)])[:count]


def share_devices(
    devices: Sequence[str], num_devices: int | None = None, num_jobs: int | None = None
) -> list[list[str]]:
    """Devices of each of the jobs at once, which share them; by default all there are, and one a job."""
    if num_devices is not None and not 0 <= num_devices <= len(devices):
        raise ConfigError(
            f'--gpus {num_devices}: there are {len(devices)} CUDA devices. Without any, --jobs N runs N configs at once'
        )
    if num_jobs is not None and num_jobs < 1:
        raise ConfigError(f'--jobs {num_jobs}: give a number of 1 or more')
    used = list(devices[:num_devices])
    num_jobs = num_jobs or max(len(used), 1)
    if num_jobs > len(used) > 0:
        return [[used[index % len(used)]] for index in range(num_jobs)]
    return [used[index::num_jobs] for index in range(num_jobs)]


def plan(config: Path, work_dir: Path, overrides: Mapping[str, Any] | None, limit: int | None) -> Job:
    """The job of a config; one that cannot be read becomes a job with a fault."""
    published, folder = published_images(config.name), work_dir / config.stem
    num_images = published.count if published else USUAL_IMAGES
    try:
        digest = settings_digest(load_config(str(config), overrides), limit)
    except (UserError, SystemExit) as error:
        return Job(config, folder, None, 0, str(error))
    return Job(config, folder, digest, min(num_images, limit or num_images))


def command(job: Job, devices: Sequence[str], common: Sequence[str]) -> list[str]:
    """What runs a job: eval.py, in several processes where it has several devices."""
    own = ['--work-dir', str(job.folder), *common]
    if len(devices) > 1:
        return ['bash', str(PROJECT_ROOT / 'dist_test.sh'), str(job.config), str(len(devices)), *own]
    return [sys.executable, str(PROJECT_ROOT / 'eval.py'), '--config', str(job.config), *own]


def environment(devices: Sequence[str], num_jobs: int) -> dict[str, str]:
    """Variables of a job's process: its devices, and its share of the processor's cores where it computes on them."""
    variables = {**os.environ, 'PYTHON': sys.executable}
    if devices:
        variables[VISIBLE_DEVICES] = ','.join(devices)
    elif num_jobs > 1:
        variables.setdefault('OMP_NUM_THREADS', str(max((os.cpu_count() or 1) // num_jobs, 1)))
    return variables


def _compare(results: Path, console: Console) -> None:
    chart = results.with_name(f'{results.stem}_paper.png')
    try:
        save_chart(write_paper_sheet(results), chart)
    except (ResultsError, OSError) as error:
        console.print(f'the comparison with the published figures could not be written: {error}')
        return
    console.print(f'rows in {results}; measured beside reported: its sheet {PAPER_SHEET!r}, {chart}', soft_wrap=True)


class JobDisplay(Progress):
    """Progress of a sweep, with the outcomes reported so far."""

    def __init__(self, num_jobs: int, console: Console) -> None:
        share = TextColumn('{task.percentage:>3.0f} %  {task.fields[note]}')
        columns = TextColumn('{task.description}'), BarColumn(), share
        super().__init__(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.outcomes: list[Outcome] = []
        self._num_jobs = num_jobs
        self._bars: dict[Job, TaskID] = {}
        self._total = self.add_task('all', total=1.0, note='')
        self._started = time.monotonic()
        self._images_done = 0.0
        self._left = ''

    def report(self, outcome: Outcome) -> None:
        """Says what became of a job."""
        self.outcomes.append(outcome)
        summary = outcome.row.summary if outcome.row else {}
        if outcome.state == DONE:
            self._images_done += summary.get('Images') or 0
        if outcome.job in self._bars:
            self.remove_task(self._bars.pop(outcome.job))
        left = self._left if len(self.outcomes) < self._num_jobs else ''
        score = f'mIoU {summary.get("mIoU")}  ' if outcome.row else ''
        place = escape(f'[{len(self.outcomes)}/{self._num_jobs}]')
        line = f'{place} {outcome.job.config.stem}: {_state(outcome)}  {score}{escape(outcome.reason)}{left}'
        self.console.print(line, soft_wrap=True, highlight=False)

    def watch(self, running: Sequence[RunningJob], waiting: Sequence[Job]) -> None:
        """Moves the bars."""
        done, left = self._images_done, float(sum(job.num_images for job in waiting))
        for entry in running:
            finished, total = entry.images or (0, entry.job.num_images)
            done, left = done + finished, left + total - finished
            if entry.job not in self._bars:
                self._bars[entry.job] = self.add_task(entry.job.config.stem, total=1.0, note='')
            note = f'{finished} of {total} images' if entry.images else 'starting'
            self.update(self._bars[entry.job], completed=finished / max(total, 1), note=note)
        seconds = (time.monotonic() - self._started) * left / max(done, 1)
        self._left = f'  about {timedelta(seconds=round(seconds))} left' if done >= MIN_IMAGES and left else ''
        note = f'{len(self.outcomes)} of {self._num_jobs} configs{self._left}'
        self.update(self._total, completed=done / max(done + left, 1e-9), note=note)


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


if __name__ == '__main__':
    run_cli(main)
