"""Two network namespaces, joined by a cable that can be cut, as two machines."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from segearth.paths import PROJECT_ROOT
from tests.cluster.conftest import OPTIONS, SAME, need, wait_for

pytestmark = pytest.mark.cluster

ADDRESSES = ('10.213.0.1', '10.213.0.2')
SCRIPT = ('bash', str(PROJECT_ROOT / 'dist_test.sh'), 'cfg_demo', '1')


def ip(*arguments: str) -> None:
    subprocess.run(['ip', *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def machines() -> Iterator[list[tuple[str, ...]]]:
    """What to put before a command for it to run on the first or the second."""
    need('ip')
    names = [f'segearth{os.getpid()}_{index}' for index in (0, 1)]
    cables = [f'seg{os.getpid() % 1_000_000}_{index}' for index in (0, 1)]
    made = []
    try:
        for name in names:
            ip('netns', 'add', name)
            made.append(name)
        ip('link', 'add', cables[0], 'netns', names[0], 'type', 'veth', 'peer', 'name', cables[1], 'netns', names[1])
        for name, cable, address in zip(names, cables, ADDRESSES, strict=True):
            ip('-n', name, 'link', 'set', cable, 'name', 'cable')
            ip('-n', name, 'address', 'add', f'{address}/24', 'dev', 'cable')
            for device in ('lo', 'cable'):
                ip('-n', name, 'link', 'set', device, 'up')
        yield [('ip', 'netns', 'exec', name) for name in names]
    finally:
        for name in made:  # with what still runs in it
            for process in subprocess.run(['ip', 'netns', 'pids', name], capture_output=True, text=True).stdout.split():
                os.kill(int(process), signal.SIGKILL)
            ip('netns', 'del', name)


def cut(machine: tuple[str, ...]) -> None:
    ip('-n', machine[-1], 'link', 'set', 'cable', 'down')


def start(commands, machines, *options, of_second=(), **variables):
    shared = {'NNODES': '2', 'MASTER_ADDR': ADDRESSES[0], 'GLOO_SOCKET_IFNAME': 'cable', **variables}
    return [
        commands.start(*machine, *SCRIPT, '--work-dir', f'work{rank}', *OPTIONS, *options,
                       *(of_second if rank else ()), NODE_RANK=str(rank), **shared)
        for rank, machine in enumerate(machines)
    ]  # fmt: skip


@pytest.mark.parametrize('port', [{}, {'PORT': '23456', 'MASTER_PORT': '1'}, {'MASTER_PORT': '23457'}])
def test_two_machines_give_the_figures_of_one_process(commands, machines, alone, port):
    for code, output in map(commands.finish, start(commands, machines, **port)):
        assert code == 0, output
    row = commands.row('results.xlsx')
    assert row['Processes'] == 2
    assert {name: row[name] for name in SAME} == alone


def test_machines_with_other_settings_are_refused(commands, machines):
    for code, output in map(commands.finish, start(commands, machines, of_second=('model.model_type=vanilla',))):
        assert code == 2, output
        assert output.count("model.model_type: 'SegEarth' (rank 0) / 'vanilla' (rank 1)") == 1
        assert 'Traceback' not in output
    assert not (commands.folder / 'results.xlsx').exists()


def test_a_cut_cable_ends_both(commands, machines):
    runs = start(commands, machines, 'env_cfg.dist_cfg.timeout=20')
    wait_for(lambda: len(list(commands.folder.glob('work*/*/*.log'))) > 0)
    cut(machines[1])
    for code, output in map(commands.finish, runs):
        assert code == 2, output
        assert 'Traceback' not in output
        assert 'another process of this evaluation ended' in output
    assert not (commands.folder / 'results.xlsx').exists()
