import os
import signal
from multiprocessing import forkserver
from types import SimpleNamespace

import dask
import pytest
import rasterio
from distributed import Client, KilledWorker, LocalCluster
from distributed.client import FutureCancelledError

from segearth.errors import ConfigError, MissingFileError, ResultsError
from segearth.maps import cluster
from segearth.maps.cluster import DaskRunner, connected, dask_runner
from segearth.maps.predict import MapOptions
from segearth.maps.scene import SceneSource
from tests.maps.conftest import UTM, Killed, make_map, read, smooth_picture
from tests.maps.stand_in import StandInModel, build_stand_in

OPTIONS = MapOptions(scores=True, block_side=48)


@pytest.fixture(scope='module')
def client():
    # Workers are forked from a process that has imported all they need, which a restarted one would take seconds for.
    forkserver.set_forkserver_preload(['segearth.maps.cluster', 'tests.maps.stand_in'])
    forkserver.ensure_running()
    with (
        dask.config.set({'distributed.worker.multiprocessing-method': 'forkserver'}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=':0') as local,
        Client(local) as client,
    ):
        yield client


def test_a_worker_killed_in_the_middle_changes_nothing(client, write_scene, tmp_path):
    scene = write_scene(smooth_picture(300, 320), **UTM)
    expected = make_map(scene, tmp_path / 'here', OPTIONS)
    processes, told = client.run(os.getpid), []

    def kill_one(done, total):
        told.append(done)
        if len(told) == 10:
            os.kill(next(iter(processes.values())), signal.SIGKILL)

    files = make_map(
        scene, tmp_path / 'there', OPTIONS, runner=DaskRunner(client, build_stand_in, 1), progress=kill_one
    )
    assert (read(files.classes) == read(expected.classes)).all()
    assert files.areas.read_text() == expected.areas.read_text()
    assert told[-1] == max(told) and len(told) == 1 + 49

    # A run that was begun on the cluster is gone on with here.
    def kill_all(done, total):
        if done > total / 2:
            raise Killed

    with pytest.raises(Killed):
        make_map(scene, tmp_path / 'both', OPTIONS, runner=DaskRunner(client, build_stand_in, 1), progress=kill_all)
    model, complete = StandInModel(), StandInModel()
    files = make_map(scene, tmp_path / 'both', OPTIONS, model, resume=True)
    assert (read(files.classes) == read(expected.classes)).all()
    make_map(scene, tmp_path / 'counted', OPTIONS, complete)
    assert 0 < model.num_scored < 0.6 * complete.num_scored


def test_mistakes_of_workers_are_explained(client, write_scene, tmp_path):
    scene = write_scene(smooth_picture(64, 64), **UTM)
    with rasterio.open(scene) as dataset:
        os.rename(scene, tmp_path / 'moved.tif')
        with pytest.raises(MissingFileError, match='one path on all machines'):
            make_map(scene, tmp_path / 'out', source=SceneSource(str(scene)), dataset=dataset,
                     runner=DaskRunner(client, build_stand_in))  # fmt: skip


@pytest.mark.parametrize(('error', 'message'), [
    (KilledWorker('task', None, 3), 'died several times.*--block-size.*--resume'),
    (FutureCancelledError('task', 'scheduler-connection-lost'), 'scheduler went away.*--resume'),
])  # fmt: skip
def test_what_dask_reports_is_explained(error, message):
    def fail():
        raise error

    with pytest.raises(ResultsError, match=message):
        DaskRunner(None, build_stand_in)._result(SimpleNamespace(result=fail), (0, 0, 1, 1))


@pytest.mark.parametrize('error', [OSError('connection closed'), TimeoutError(), AttributeError('ncores')])
def test_a_scheduler_that_does_not_answer_while_blocks_are_computed_is_lost(monkeypatch, error):
    def ask(*_, **__):
        raise error

    monkeypatch.setattr(cluster, 'ASK_SECONDS', 0)
    client = SimpleNamespace(sync=ask, scheduler=SimpleNamespace(ncores=None))
    with pytest.raises(ResultsError, match='scheduler went away.*--resume'):
        DaskRunner(client, build_stand_in)._wait(SimpleNamespace(has_ready=lambda: False))


def test_a_cluster_whose_workers_are_all_gone_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(cluster, 'ASK_SECONDS', 0)
    monkeypatch.setattr(cluster, 'WORKER_SECONDS', 0.2)
    client = SimpleNamespace(sync=lambda *_, **__: {}, scheduler=SimpleNamespace(ncores=None))
    with pytest.raises(ResultsError, match='no worker for 0.2 s.*--resume'):
        DaskRunner(client, build_stand_in)._wait(SimpleNamespace(has_ready=lambda: False))


def test_an_error_of_a_worker_is_no_lost_scheduler():
    def fail():
        raise OSError('no space left')

    future = SimpleNamespace(result=fail, status='error')
    with pytest.raises(OSError, match='no space left'):
        DaskRunner(None, build_stand_in)._result(future, (0, 0, 1, 1))


def test_refuses_clusters_that_are_not_there(monkeypatch):
    monkeypatch.setattr(cluster, 'CONNECT_SECONDS', 0.3)
    with (
        pytest.raises(ConfigError, match='no Dask scheduler answers at tcp://127.0.0.1:9'),
        connected('tcp://127.0.0.1:9'),
    ):
        pass
    with pytest.raises(ConfigError, match='--workers is 0'), dask_runner(build_stand_in, workers=0):
        pass
    with (
        LocalCluster(n_workers=0, dashboard_address=':0') as empty,
        pytest.raises(ConfigError, match='has no workers'),
        connected(empty.scheduler_address, worker_seconds=0.1),
    ):
        pass
