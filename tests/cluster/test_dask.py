"""A map on a Dask cluster of its own programs, whose scheduler, workers or link go away."""

from __future__ import annotations

import signal
import sys

import pytest
import rasterio

from tests.cluster.conftest import free_ports, stop, wait_for
from tests.cluster.test_two_machines import ADDRESSES, cut, machines  # noqa: F401 - a fixture
from tests.maps.conftest import UTM, smooth_picture, write_scene  # noqa: F401 - a fixture

pytestmark = pytest.mark.cluster


def predict(scene, *options):
    return (
        sys.executable, '-m', 'segearth.commands', 'predict', str(scene), '--classes', 'building; road; water',
        '--out', 'maps', '--block-size', '224', *options,
    )  # fmt: skip


@pytest.fixture
def scene(write_scene):  # noqa: F811
    return write_scene(smooth_picture(500, 900), **UTM)


def start_cluster(commands, machine, host):
    (port,) = free_ports(1)
    address = f'tcp://{host}:{port}'
    program = (*machine, sys.executable, '-m')
    common = ('--no-dashboard',)
    return (
        commands.start(*program, 'distributed.cli.dask_scheduler', '--host', host, '--port', str(port), *common),
        commands.start(*program, 'distributed.cli.dask_worker', address, '--nthreads', '1', *common),
        address,
    )


@pytest.mark.parametrize('loss', ['killed', 'told to end', 'cut'])
def test_a_lost_scheduler(commands, machines, scene, loss):  # noqa: F811
    scheduler, worker, address = start_cluster(commands, machines[1], ADDRESSES[1])
    run = commands.start(*machines[0], *predict(scene, '--scheduler', address))
    try:
        wait_for(lambda: run.poll() is not None or list((commands.folder / 'maps').glob('.*.parts/*.npz')))
        assert run.poll() is None, commands.finish(run)
        if loss == 'cut':
            cut(machines[0])
        else:
            scheduler.send_signal(signal.SIGKILL if loss == 'killed' else signal.SIGTERM)
        code, output = commands.finish(run)
    finally:
        stop([scheduler, worker])
    assert code == 2, output
    assert output.count('the Dask scheduler went away') == 1
    assert 'Traceback' not in output
    assert not list((commands.folder / 'maps').glob('*.tif'))
    # goes on here, and gives what a run in one piece does
    code, output = commands.run(*predict(scene, '--resume'))
    assert code == 0, output
    code, output = commands.run(*predict(scene, '--out', 'whole'))
    assert code == 0, output
    maps = []
    for folder in ('maps', 'whole'):
        (path,) = (commands.folder / folder).glob('*_classes.tif')
        with rasterio.open(path) as dataset:
            maps.append(dataset.read(1))
    assert (maps[0] == maps[1]).all()


def test_told_to_end(commands, scene):
    run = commands.start(*predict(scene))
    wait_for(lambda: list((commands.folder / 'maps').glob('.*.parts/*.npz')))
    run.terminate()
    code, output = commands.finish(run)
    assert code == 130
    assert output.count('interrupted by SIGTERM') == 1
    assert 'Traceback' not in output
    assert not list((commands.folder / 'maps').glob('*.tif'))
