"""Evaluates many configs, several at once, into one results.xlsx with a sheet of measured beside reported figures.

python eval_all.py --group optical
python eval_all.py --gpus 8 --jobs 4 --resume            # two devices a config; goes on where it was ended
python eval_all.py --configs 'cfg_*_road.py' configs/cfg_demo.py --limit 20 --cfg-options model.clip_type=Demo

Each config runs in a process and a folder of its own. One that fails is reported and the others go on; the exit code is
1 then. Ended in any way, it goes on with --resume: what the results hold for the same settings is not run again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from segearth.cli import EXIT_INTERRUPTED, build_parser, run_cli
from segearth.errors import ConfigError, ResultsError, UserError
from segearth.evaluation.comparison import PAPER_SHEET, save_chart, write_paper_sheet
from segearth.evaluation.configuration import add_config_options, load_config, match_configs
from segearth.evaluation.job_display import JobDisplay, summary_table
from segearth.evaluation.jobs import FAILED, Job, run_jobs
from segearth.evaluation.results import check_results_path
from segearth.evaluation.row import settings_digest
from segearth.paths import PROJECT_ROOT
from segearth.published import ALL, GROUPS, group_configs, published_images

EXIT_FAILED = 1
USUAL_IMAGES = 500  # of a set without a published number; for the time left only
VISIBLE_DEVICES = 'CUDA_VISIBLE_DEVICES'


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program and returns its exit code: 0, 1 where a config failed, 130 after an interruption.

    Raises:
        UserError: Options that do not fit.
    """
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
    elif any(outcome.state == FAILED for outcome in display.outcomes):
        code = EXIT_FAILED
    if results.exists():
        _compare(results, console)
    return code


def visible_devices() -> list[str]:
    """Names of the CUDA devices, as the environment variable that hides devices has them."""
    names = [name.strip() for name in os.environ.get(VISIBLE_DEVICES, '').split(',') if name.strip()]
    count = torch.cuda.device_count()
    return (names or [str(index) for index in range(count)])[:count]


def share_devices(
    devices: Sequence[str], num_devices: int | None = None, num_jobs: int | None = None
) -> list[list[str]]:
    """Devices of each job that runs at the same time.

    Args:
        devices: What there is.
        num_devices: How many of them to use; None for all.
        num_jobs: Jobs at once; None for one a device, or one where there are none. More jobs than devices share them.

    Raises:
        ConfigError: More devices than there are, or numbers below 1.
    """
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
    num_images = getattr(published_images(config.name), 'count', USUAL_IMAGES)
    try:
        settings = load_config(str(config), overrides)
        digest = settings_digest(settings.model, settings.test_dataloader.dataset, limit)
    except (UserError, SystemExit) as error:
        return Job(config, work_dir / config.stem, None, 0, str(error))
    return Job(config, work_dir / config.stem, digest, min(num_images, limit or num_images))


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


if __name__ == '__main__':
    run_cli(main)
