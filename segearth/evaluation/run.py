"""An evaluation from config to result row."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.registry import init_default_scope

from segearth.errors import DataError, ResultsError, UserError
from segearth.evaluation.agreement import images_card, prove_alike, settings_card, weights_card
from segearth.evaluation.configuration import load_config
from segearth.evaluation.distributed import DEFAULT_TIMEOUT, join_processes, leave_processes, lost_processes_named
from segearth.evaluation.metric import ClassIoUMetric
from segearth.evaluation.preflight import build_dataset, check_classes, check_files
from segearth.evaluation.results import append_row, check_results_path
from segearth.evaluation.row import ResultRow, build_row, device_name, write_row
from segearth.evaluation.runner import EvaluationRunner, PictureHook, build_runner
from simfeatup.errors import UpsamplerError

WORKER_MESSAGE = re.compile(r'^Caught \w+ in DataLoader worker process')
WORKER_DEATH = re.compile(r'DataLoader worker .* (killed by signal|exited unexpectedly)')
REGISTRY_MESSAGE = re.compile(r'^class `\w+` in \S+: ')


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
        settings.work_dir = _make_work_dir(work_dir or settings.get('work_dir'), Path(settings.filename).stem)
        process_group = settings.get('env_cfg', {}).get('dist_cfg', {})
        timeout = process_group.get('timeout', DEFAULT_TIMEOUT)
        card = {} if launcher == 'none' else settings_card(settings, limit=limit, skip_broken=skip_broken)
        join_processes(launcher, process_group.get('backend'), timeout, card)
        init_default_scope(settings.get('default_scope', 'mmseg'))
        dataset = build_dataset(settings.test_dataloader.dataset, limit)
        check_classes(settings.model, dataset)
        with lost_processes_named(timeout):
            broken = check_files(dataset, skip_broken)
        show_dir = show_dir or (Path(settings.work_dir) / 'show' if show else None)
        runner = build_runner(settings, dataset, launcher, [PictureHook(show_dir)] if show_dir else [])
        for pair in broken:
            runner.logger.warning(f'skipped: {pair.reason}')
        with lost_processes_named(timeout):
            if launcher != 'none':
                prove_alike(images_card(dataset) | weights_card(runner.model))
            started = time.perf_counter()
            metrics = _test(runner, results)
        measured = {'Skipped': len(broken), 'Limit': limit, 'Seconds': round(time.perf_counter() - started, 1)}
        measured['Processes'], is_first = get_world_size(), is_main_process()
        if launcher != 'none':
            leave_processes()
        if not is_first:
            return None
        metric = _class_metric(runner)
        images = metric.num_images if metric else len(dataset)
        row = build_row(
            uuid.uuid4().hex[:12],
            settings,
            runner.model,
            metrics,
            metric.class_scores if metric else [],
            {'Images': images, **measured, 'Device': device_name()},
        )
        _save(row, results, runner)
        if broken:
            runner.logger.warning(f'{len(broken)} unreadable images were skipped and do not count')
        return row


def _make_work_dir(given: str | os.PathLike[str] | None, name: str) -> str:
    path = Path(given or Path('work_dirs') / name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(
            f'--work-dir {path}: the folder cannot be made ({error.strerror}); choose another'
        ) from error
    return str(path)


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
    runner.logger.info(row.to_line())
    is_kept = True
    try:
        write_row(row, own)
    except OSError as error:
        runner.logger.warning(f'cannot write {own}: {error.strerror}')
        is_kept = False
    append_row(row, results, kept_in=own if is_kept else None)
    runner.logger.info(f'appended to {results} and {results.with_suffix(".txt")}')


@contextmanager
def clean_messages() -> Iterator[None]:
    """Takes from messages what registries and data loader workers put around them."""
    try:
        yield
    except (UserError, UpsamplerError) as error:
        text = clean_message(error)
        if text == str(error):
            raise
        raise type(error)(text) from None


def clean_message(error: Exception) -> str:
    """The message as it was raised first."""
    text = str(error)
    if WORKER_MESSAGE.match(text):  # torch puts the worker's traceback before the message
        name = f'{type(error).__module__}.{type(error).__qualname__}: '
        text = text.rpartition(name)[2].strip() or text
    while REGISTRY_MESSAGE.match(text):
        text = REGISTRY_MESSAGE.sub('', text, count=1)
    return text
