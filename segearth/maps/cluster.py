"""Blocks on a Dask cluster: each block is a task, each worker builds the model once, this process writes.

A task holds all it needs (how to open the scene, its stretch, its box), so Dask runs the tasks of a lost worker again
on another one, and a worker that joins late is of use at once. Finished blocks go into the same workspace as without a
cluster, so a run may begin on one machine and be resumed on many.
"""

import asyncio
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed
from distributed.client import FutureCancelledError

from segearth.errors import ConfigError, MissingFileError, ResultsError
from segearth.maps.labelling import SegmenterModel
from segearth.maps.run import MapPlan, MapRun, compute_block
from segearth.maps.scene import open_scene

TASKS_A_THREAD = 3  # enough to keep workers busy; more would pile up results
CONNECT_SECONDS = 15
WORKER_SECONDS = 120  # that a cluster may be without any worker, or its scheduler without an answer
ASK_SECONDS = 5  # between questions whether the cluster is there, while no block is finished
POLL_SECONDS = 0.05
CONNECTION_ERRORS = (asyncio.CancelledError, OSError, asyncio.TimeoutError)

Build = Callable[[], SegmenterModel]
_models: dict[str, SegmenterModel] = {}  # of this worker process
_models_lock = threading.Lock()


class DaskRunner:
    """Computes blocks on the workers of a cluster.

    Each worker builds the model once, by ``build``, which is picklable, and gives torch so many ``threads`` if told.
    """

    def __init__(self, client: Client, build: Build, threads: int | None = None) -> None:
        self._client = client
        self._build = build
        self._threads = threads
        self._key = uuid.uuid4().hex  # a run's own: weights may change under one name

    def __call__(self, run: MapRun) -> None:
        """Computes the missing blocks and keeps them in the workspace; a ResultsError says that the cluster is lost."""
        plan, waiting = run.plan, list(reversed(run.missing))
        blocks: dict[Future, int] = {}
        limit = TASKS_A_THREAD * max(self._num_threads(), 1)
        queue = as_completed()
        try:
            while waiting or blocks:
                while waiting and len(blocks) < limit:
                    index = waiting.pop()
                    future = self._submit(plan, index)
                    blocks[future] = index
                    queue.add(future)
                self._wait(queue)
                future = next(queue)
                index = blocks.pop(future)
                run.workspace.save_block(index, self._result(future, plan.blocks[index]))
                future.release()
                run.advance(plan.grid.num_windows([plan.blocks[index]]))
        except SchedulerLostError:
            raise  # nobody is left to cancel tasks
        except BaseException:
            self._client.cancel(list(blocks))
            raise

    def _submit(self, plan: MapPlan, index: int) -> Future:
        path = plan.source.path
        source = replace(plan.source, path=os.path.abspath(path)) if os.path.exists(path) else plan.source
        of_block = replace(plan, source=source, blocks=(plan.blocks[index],))
        name = f'segearth-{self._key}-{index}-{uuid.uuid4().hex[:8]}'
        with _lost_scheduler_named():
            return self._client.submit(_compute, of_block, self._build, self._key, self._threads, key=name, pure=False)

    def _wait(self, queue: as_completed) -> None:
        """Waits until a block is finished; a scheduler that ended in order does not say so, it has to be asked."""
        asked = seen = time.monotonic()
        while not queue.has_ready():
            time.sleep(POLL_SECONDS)
            now = time.monotonic()
            if now - asked < ASK_SECONDS:
                continue
            if self._num_threads():
                seen = now
            elif now - seen > WORKER_SECONDS:
                raise ResultsError(
                    f'the Dask cluster has had no worker for {WORKER_SECONDS} s: start some again and go on with '
                    '--resume'
                )
            asked = time.monotonic()

    def _num_threads(self) -> int:
        """Threads of all workers. A scheduler that meets its first task imports torch, and answers nobody meanwhile."""
        with _lost_scheduler_named():
            return sum(self._client.sync(self._client.scheduler.ncores, callback_timeout=WORKER_SECONDS).values())

    def _result(self, future: Future, box: tuple) -> dict[str, np.ndarray]:
        try:
            return future.result()
        except MissingFileError as error:
            raise MissingFileError(
                f'{error}, on a worker: scene and weights must have one path on all machines'
            ) from error
        except KilledWorker as error:
            raise ResultsError(
                f'workers died several times over the block {box}, probably for want of memory: give a smaller '
                '--block-size or workers with more memory, then go on with --resume'
            ) from error
        except (FutureCancelledError, *CONNECTION_ERRORS) as error:
            if getattr(future, 'status', None) == 'error':  # the worker's own
                raise
            raise _lost(error) from error


class SchedulerLostError(ResultsError):
    """The scheduler ended, or the link to it is cut."""


def _lost(error: BaseException) -> SchedulerLostError:
    return SchedulerLostError(
        f'the Dask scheduler went away ({error or type(error).__name__}): start it again and go on with --resume'
    )


@contextmanager
def _lost_scheduler_named() -> Iterator[None]:
    try:
        yield
    except (*CONNECTION_ERRORS, AttributeError) as error:  # a client that closed itself has no scheduler
        raise _lost(error) from error


@contextmanager
def dask_runner(
    make_segmenter: Callable[[], Any], scheduler: str | None = None, workers: int | None = None
) -> Iterator[DaskRunner]:
    """Connects to the cluster of a scheduler, or starts workers on this machine for as long as the context lasts.

    ``make_segmenter`` builds the :class:`segearth.Segmenter` of a worker and is picklable.
    """
    build = partial(_build_model, make_segmenter)
    if scheduler is None:
        if workers is None or workers < 1:
            raise ConfigError(f'--workers is {workers}; allowed: 1 or more')
        with (
            LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=':0', silence_logs=logging.ERROR
            ) as cluster,
            Client(cluster) as client,
        ):
            yield DaskRunner(client, build, max((os.cpu_count() or 1) // workers, 1))
        return
    with connected(scheduler) as client:
        yield DaskRunner(client, build)


@contextmanager
def connected(scheduler: str, worker_seconds: float = WORKER_SECONDS) -> Iterator[Client]:
    """A client of a running scheduler that has a worker at least; a ConfigError says that it is not there."""
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f'no Dask scheduler answers at {scheduler} ({error}): start one with "dask scheduler", workers with '
            '"dask worker tcp://HOST:8786", and give its address as --scheduler'
        ) from error
    for name in ('distributed', 'distributed.client', 'asyncio', 'tornado'):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what is lost is said once, by an error
    with client:
        try:
            client.wait_for_workers(1, timeout=worker_seconds)
        except TimeoutError as error:
            raise ConfigError(
                f'the Dask scheduler at {scheduler} has no workers: start some with "dask worker {scheduler}", in an '
                'environment with this package'
            ) from error
        yield client


def _build_model(make_segmenter: Callable[[], Any]) -> SegmenterModel:
    return SegmenterModel(make_segmenter().model)


def _compute(plan: MapPlan, build: Build, key: str, threads: int | None) -> dict[str, np.ndarray]:
    with _models_lock:
        if key not in _models:
            if threads is not None:
                torch.set_num_threads(threads)
            _models.clear()
            _models[key] = build()
        model = _models[key]
    with open_scene(plan.source) as scene:
        return compute_block(plan, 0, model, scene)
