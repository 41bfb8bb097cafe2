from __future__ import annotations

import os
import signal

import pytest

from tests.cluster.conftest import EVAL, OPTIONS, SAME, need, wait_for

pytestmark = pytest.mark.cluster

MPIRUN = ('mpirun', '--allow-run-as-root', '--oversubscribe', '-n', '2')
TASK = (*EVAL, '--launcher', 'mpi')


def test_two_runs_at_once_give_the_figures_of_one_process(commands, alone):
    need('mpirun')
    names = ('SegEarth', 'vanilla')
    runs = [
        commands.start(*MPIRUN, *TASK, '--results', f'{name}.xlsx', '--work-dir', name, *OPTIONS,
                       f'model.model_type={name}')
        for name in names
    ]  # fmt: skip
    for run in runs:
        code, output = commands.finish(run)
        assert code == 0, output
    assert [commands.row(f'{name}.xlsx')['Processes'] for name in names] == [2, 2]
    assert {name: commands.row('SegEarth.xlsx')[name] for name in SAME} == alone


def test_mpirun_that_is_told_to_end(commands):
    need('mpirun')
    run = commands.start(*MPIRUN, *TASK, '--limit', '60')
    wait_for(lambda: list((commands.folder / 'work_dirs').glob('*/*/*.log')))
    os.kill(run.pid, signal.SIGTERM)
    code, output = commands.finish(run)
    assert code != 0
    assert 'interrupted by SIGTERM' in output, output
    assert 'Traceback' not in output, output
    assert not (commands.folder / 'results.xlsx').exists()
