"""The lines of docs/benchmarking.md, run by Slurm's own programs."""

from __future__ import annotations

import subprocess

import pytest

from segearth.paths import PROJECT_ROOT
from tests.cluster.conftest import EVAL, OPTIONS, SAME, wait_for

pytestmark = pytest.mark.cluster

SRUN = ('srun', '--kill-on-bad-exit=1', '--ntasks=2')
TASK = (*EVAL, '--launcher', 'slurm')


def submit(slurm, *lines: str, wait: bool = True) -> tuple[int, str]:
    """Exit code and output of a batch script; without waiting its job and an empty output."""
    script = slurm.folder / 'job.sh'
    script.write_text('\n'.join(('#!/bin/bash', *lines)))
    arguments = ['sbatch', '--parsable', '--output=job.out', '--ntasks=2', '--nodes=1']
    if not wait:
        return int(slurm.run(*arguments, str(script))[1]), ''
    code, _ = slurm.run(*arguments, '--wait', str(script))
    return code, (slurm.folder / 'job.out').read_text()


@pytest.mark.parametrize('nodes', [1, 2])
def test_srun_gives_the_figures_of_one_process(slurm, alone, nodes):
    # both nodes are this machine, and the name of the first is in no table of hosts
    code, output = slurm.run(*SRUN, f'--nodes={nodes}', *TASK, *OPTIONS, MASTER_ADDR='127.0.0.1' if nodes > 1 else '')
    assert code == 0, output
    row = slurm.row('results.xlsx')
    assert row['Processes'] == 2
    assert {name: row[name] for name in SAME} == alone


def test_a_batch_script_and_one_that_forgot_srun(slurm, alone):
    code, output = submit(slurm, f'srun {" ".join((*TASK, *OPTIONS))}')
    assert code == 0, output
    assert {name: slurm.row('results.xlsx')[name] for name in SAME} == alone
    code, output = submit(slurm, f'{" ".join((*TASK, *OPTIONS))} --results forgotten.xlsx')
    assert code == 2
    assert output.count('runs outside srun: 2 tasks are allocated') == 1
    assert 'Traceback' not in output
    # from within a step, whose names the script inherits
    script = f'SLURM_STEP_ID=0 {" ".join((*TASK, *OPTIONS))} --results forgotten.xlsx'
    code, output = submit(slurm, script)
    assert code == 2 and 'runs outside srun' in output
    assert not (slurm.folder / 'forgotten.xlsx').exists()


def test_torchrun_on_each_node(slurm, alone):
    line = f'NODE_RANK=$SLURM_NODEID bash {PROJECT_ROOT}/dist_test.sh cfg_demo {" ".join(OPTIONS)}'
    command = ('srun', '--nodes=2', '--ntasks-per-node=1', 'bash', '-c', line)
    code, output = slurm.run(*command, NNODES='2', GPUS='1', MASTER_ADDR='127.0.0.1')
    assert code == 0, output
    assert slurm.row('results.xlsx')['Processes'] == 2
    assert {name: slurm.row('results.xlsx')[name] for name in SAME} == alone


@pytest.mark.parametrize('ports', [{}, {'MASTER_PORT': '28123'}])
def test_two_jobs_at_once_do_not_mix(slurm, alone, ports):
    """With ports of their own both give their figures; at one port none that is wrong."""
    models = ('SegEarth', 'vanilla')
    jobs = [
        slurm.start(*SRUN, '--nodes=1', '--nodelist=n1', *TASK, '--results', f'{model}.xlsx', '--work-dir', model,
                    *OPTIONS, f'model.model_type={model}', **ports)
        for model in models
    ]  # fmt: skip
    ends = dict(zip(models, map(slurm.finish, jobs), strict=True))
    done = [model for model, (code, _) in ends.items() if code == 0]
    assert [model for model in models if (slurm.folder / f'{model}.xlsx').exists()] == done
    if not ports:
        assert done == [*models], ends
    if 'SegEarth' in done:
        assert {name: slurm.row('SegEarth.xlsx')[name] for name in SAME} == alone
    for code, output in ends.values():
        assert 'Traceback' not in output
        assert code == 0 or 'do not meet at' in output or 'do not belong together' in output, output


@pytest.mark.parametrize('sent', [(), ('--signal=USR1',)])
def test_scancel_is_an_interruption(slurm, sent):
    job, _ = submit(
        slurm, f'srun {" ".join((*TASK, *OPTIONS))} test_dataloader.num_workers=2 --limit 60', wait=False
    )
    log = slurm.folder / 'job.out'
    wait_for(lambda: list(slurm.folder.glob('work_dirs/*/*/*.log')))  # they have met
    subprocess.run(['scancel', *sent, str(job)], env=slurm.variables, check=True)
    wait_for(lambda: not slurm.run('squeue', '-h', '--me')[1].strip())
    output = log.read_text()
    assert output.count(f'interrupted by {"SIGUSR1" if sent else "SIGTERM"}') == 2  # each task
    assert 'Traceback' not in output
    assert not (slurm.folder / 'results.xlsx').exists()
