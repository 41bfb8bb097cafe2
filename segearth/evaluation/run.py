"""Evaluates a config on its data set: a table of class IoUs, and a row in results.xlsx and results.txt.

python eval.py --config configs/cfg_demo.py --show-dir pictures
python eval.py --config configs/cfg_loveda.py --cfg-options model.clip_type=Demo --limit 20
bash dist_test.sh configs/cfg_loveda.py 4

An installed package has the same as a command, from any folder: segearth eval cfg_demo --show-dir pictures
"""

import logging
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.registry import init_default_scope

from segearth.cli import build_parser
from segearth.errors import DataError, UserError
from segearth.evaluation.agreement import images_card, prove_alike, settings_card, weights_card
from segearth.evaluation.configuration import add_config_options, build_dataset, check_classes, check_files, load_config
from segearth.evaluation.distributed import DEFAULT_TIMEOUT, join_processes, leave_processes, lost_processes_named
from segearth.evaluation.launchers import LAUNCHERS
from segearth.evaluation.metric import ClassIoUMetric
from segearth.evaluation.results import append_row, check_results_path
from segearth.evaluation.row import ResultRow, build_row, device_name, write_row
from segearth.evaluation.runner import EvaluationRunner, PictureHook, build_runner
from segearth.freed_memory import keep_freed_memory
from segearth.io.outputs import make_folder
from segearth.models.build import AUTO, PRECISIONS
from simfeatup.errors import UpsamplerError

PASSED_ON = ('work_dir', 'launcher', 'show_dir', 'show', 'results', 'limit', 'skip_broken')
WORKER_MESSAGE = re.compile(r'^Caught \w+ in DataLoader worker process')
WORKER_DEATH = re.compile(r'DataLoader worker .* (killed by signal|exited unexpectedly)')
REGISTRY_MESSAGE = re.compile(r'^(class `\w+` in \S+: )+')


def evaluate(
    config: str,
    work_dir: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    launcher: str = 'none',
    show_dir: str | os.PathLike[str] | None = None,
    results: str | os.PathLike[str] = 'results.xlsx',
    limit: int | None = None,
    skip_broken: bool = False,
    show: bool = False,
) -> ResultRow | None:
    """Evaluates a config and appends the outcome to the results.

    Args:
        config: Path of a config, or its name if it is in configs/.
        work_dir: Folder of logs and of the run's own row; None for work_dirs/NAME.
        overrides: Dotted key of the config -> value.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.
        show_dir: Where to save pictures; None for none.
        results: Spreadsheet to append to.
        limit: Number of images, the first by name; None for all.
        skip_broken: Leave unreadable images out and count them.
        show: Without ``show_dir``, save pictures into the folder ``show`` of the work folder.

    Returns:
        The row; None in processes other than the first.

    Raises:
        UserError: Anything a user can mend; the message says how.
        KeyboardInterrupt: Interrupted; no row is written.
    """
    with clean_messages():
        results = check_results_path(Path(results))
        settings = load_config(config, overrides)
        folder = Path(work_dir or settings.get('work_dir') or Path('work_dirs') / Path(settings.filename).stem)
        settings.work_dir = str(make_folder(folder, '--work-dir'))
        process_group = settings.get('env_cfg', {}).get('dist_cfg', {})
        timeout = process_group.get('timeout', DEFAULT_TIMEOUT)
        card = {} if launcher == 'none' else settings_card(settings, limit=limit, skip_broken=skip_broken)
        join_processes(launcher, process_group.get('backend'), timeout, card)
        init_default_scope(settings.get('default_scope', 'mmseg'))
        dataset = build_dataset(settings.test_dataloader.dataset, limit)
        check_classes(settings.model, dataset)
        with lost_processes_named(timeout):
            broken = check_files(dataset, skip_broken)
        show_dir = show_dir or (folder / 'show' if show else None)
        runner = build_runner(settings, dataset, launcher, [PictureHook(show_dir)] if show_dir else [])
        for reason in broken.values():
            runner.logger.warning(f'skipped: {reason}')
        with lost_processes_named(timeout):
            if launcher != 'none':
                prove_alike(images_card(dataset) | weights_card(runner.model))
            started = time.perf_counter()
            metrics = _test(runner, results)
        metric = _class_metric(runner)
        measured = {
            'Images': metric.num_images if metric else len(dataset),
            'Skipped': len(broken),
            'Limit': limit,
            'Seconds': round(time.perf_counter() - started, 1),
            'Processes': get_world_size(),
            'Device': device_name(),
        }
        is_first = is_main_process()
        if launcher != 'none':
            leave_processes()
        if not is_first:
            return None
        scores = metric.class_scores if metric else []
        row = build_row(uuid.uuid4().hex[:12], settings, runner.model, metrics, scores, measured)
        _save(row, results, runner)
        if broken:
            runner.logger.warning(f'{len(broken)} unreadable images were skipped and do not count')
        return row


def _test(runner: EvaluationRunner, results: Path) -> dict[str, float]:
    try:
        return runner.test()
    except KeyboardInterrupt:
        runner.logger.warning(f'interrupted: this run is not complete and adds nothing to {results}')
        raise
    except OSError as error:
        metric = _class_metric(runner)
        if not metric or not metric.summary:
            raise
        runner.logger.warning(f'the figures are complete, but mmengine could not write its own files: {error}')
        return metric.summary
    except RuntimeError as error:
        if not WORKER_DEATH.search(str(error)):
            raise
        raise DataError(
            f'a loading process was ended from outside ({error}). If memory ran out, use fewer: --cfg-options '
            f'test_dataloader.num_workers=0. This run adds nothing to {results}'
        ) from error


def _class_metric(runner: EvaluationRunner) -> ClassIoUMetric | None:
    metric = runner.test_evaluator.metrics[0]
    return metric if isinstance(metric, ClassIoUMetric) else None


def _save(row: ResultRow, results: Path, runner: EvaluationRunner) -> None:
    own = Path(runner.log_dir) / 'result.json'
    kept_in: Path | None = own
    runner.logger.info(row.to_line())
    try:
        write_row(row, own)
    except OSError as error:
        runner.logger.warning(f'cannot write {own}: {error.strerror}')
        kept_in = None
    append_row(row, results, kept_in)
    runner.logger.info(f'appended to {results} and {results.with_suffix(".txt")}')


@contextmanager
def clean_messages() -> Iterator[None]:
    """Takes from messages what registries and data loader workers put around them."""
    try:
        yield
    except (UserError, UpsamplerError) as error:
        text = str(error)
        if WORKER_MESSAGE.match(text):  # torch puts the worker's traceback before the message
            name = f'{type(error).__module__}.{type(error).__qualname__}: '
            text = text.rpartition(name)[2].strip() or text
        text = REGISTRY_MESSAGE.sub('', text)
        if text == str(error):
            raise
        raise type(error)(text) from None


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> None:
    """Runs the program with arguments, or with those of the process; ``program`` is its name in the usage line."""
    parser = build_parser(__doc__)
    parser.prog = program or parser.prog
    parser.add_argument('name', nargs='?', metavar='CONFIG', help='config, such as configs/cfg_demo.py or cfg_demo')
    parser.add_argument('--config', help='the same as an option')
    parser.add_argument('--work-dir', '--workdir', help='folder of logs and of the row (default: work_dirs/NAME)')
    add_config_options(parser)
    types = 'number type of the encoder (default: auto, fp16 on CUDA and else fp32)'
    parser.add_argument('--precision', choices=(AUTO, *PRECISIONS), help=types)
    parser.add_argument('--exact-reference', action='store_true', help='score by the plain path: slow, to compare with')
    parser.add_argument('--launcher', choices=('none', *LAUNCHERS), default='none')
    parser.add_argument('--show-dir', '--show_dir', help='folder for pictures: image, ground truth, prediction')
    parser.add_argument('--show', action='store_true', help='pictures in WORK_DIR/show; no windows are opened')
    parser.add_argument('--local-rank', '--local_rank', help='from old launchers; LOCAL_RANK goes before it', type=int)
    parser.add_argument('--results', default='results.xlsx', help='spreadsheet to append to (default: %(default)s)')
    parser.add_argument('--limit', type=int, help='evaluate only so many images, the first by name')
    parser.add_argument('--skip-broken', action='store_true', help='leave unreadable images out, and count them')
    options = parser.parse_intermixed_args(arguments)  # a config may stand behind options
    if (options.name is None) == (options.config is None):
        parser.error('give one config: CONFIG or --config CONFIG')
    overrides = dict(options.cfg_options)
    if options.precision:
        overrides['model.precision'] = options.precision
    if options.exact_reference:
        overrides['model.exact_reference'] = True
    if options.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(options.local_rank))
    passed_on = {name: value for name, value in vars(options).items() if name in PASSED_ON}
    evaluate(options.config or options.name, overrides=overrides, **passed_on)


def run(arguments: Sequence[str] | None = None, program: str | None = None) -> None:
    """Runs the program as a process of its own; the arguments are those of :func:`main`."""
    logging.raiseExceptions = False  # a log file on a full disk: no traceback for each of its lines
    keep_freed_memory(limited=True)
    main(arguments, program)
