from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import distributed

from segearth.errors import ConfigError
from segearth.evaluation.distributed import LostProcessError, join_processes, lost_processes_named
from segearth.evaluation.results import read_rows
from segearth.evaluation.runner import evaluate
from segearth.paths import PROJECT_ROOT
from tests.processes import NUM_PROCESSES, TIMEOUT, start_forked
from tools.launch import worst_code

SAME = ('aAcc', 'mIoU', 'mAcc', 'Images', 'Settings')


def test_two_processes_give_the_figures_of_one(project):
    """Five images: no multiple of two."""
    evaluate('cfg_scenes.py')
    assert start_forked(lambda _: evaluate('cfg_scenes.py', launcher='pytorch')) == [0, 0]
    one, two = read_rows(project / 'results.xlsx')
    assert (one['Processes'], two['Processes']) == (1, NUM_PROCESSES)
    assert [one[name] for name in SAME] == [two[name] for name in SAME]


def test_a_process_that_died_is_said_and_nobody_waits_for_it(project, interrupt_after):
    def act(rank):
        if rank == 1:
            interrupt_after(1)  # it ends while the other goes on to the exchange of counts
        try:
            evaluate('cfg_scenes.py', launcher='pytorch')
        except KeyboardInterrupt:
            os._exit(7)
        except LostProcessError as error:
            assert 'env_cfg.dist_cfg.timeout' in str(error)
            os._exit(8)

    assert start_forked(act) == [8, 7]
    assert not (project / 'results.xlsx').exists()


def test_waiting_is_bounded_by_a_setting(project, monkeypatch):
    overrides = {'env_cfg.dist_cfg.timeout': 1}

    def act(rank):
        if rank == 1:
            monkeypatch.setattr('segearth.evaluation.runner.check_files', lambda *_: time.sleep(2.5))
        try:
            evaluate('cfg_scenes.py', launcher='pytorch', overrides=overrides, skip_broken=True)
        except LostProcessError as error:
            assert 'within 1 s' in str(error)
            os._exit(8)

    started = time.monotonic()
    codes = start_forked(act)
    assert codes[0] == 8
    assert time.monotonic() - started < TIMEOUT


def test_the_slurm_launcher_finds_the_first_machine(tmp_path, monkeypatch):
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\necho 127.0.0.1\necho elsewhere\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    monkeypatch.delenv('MASTER_ADDR', raising=False)

    def act(rank):
        join_processes('slurm', timeout=TIMEOUT)
        total = torch.tensor([rank + 1])
        distributed.all_reduce(total)
        os._exit(int(total))

    assert start_forked(act, ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID')) == [3, 3]


def test_launchers_say_what_they_miss(monkeypatch):
    for name in ('RANK', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match='--launcher pytorch finds no RANK.*dist_test.sh'):
        join_processes('pytorch')
    with pytest.raises(ConfigError, match='SLURM_PROCID'):
        join_processes('slurm')


def test_errors_of_one_process_stay_as_they_are():
    with pytest.raises(RuntimeError, match='gloo'), lost_processes_named(5):
        raise RuntimeError('gloo')


@pytest.mark.parametrize(
    ('codes', 'worst'),
    [
        ([2, 0], 2),
        ([2, -signal.SIGTERM], 2),  # the second was told to end
        ([2, 130], 2),
        ([2, -signal.SIGKILL], 137),
        ([-signal.SIGTERM], 143),
        ([], 1),
    ],
)
def test_the_worst_exit_code(codes, worst):
    assert worst_code(codes) == worst


def test_the_script_passes_everything_on():
    def command(*arguments, **environment):
        clean = {name: value for name, value in os.environ.items() if name not in ('GPUS', 'PORT', 'MASTER_ADDR')}
        script = ['bash', str(PROJECT_ROOT / 'dist_test.sh'), *arguments]
        return subprocess.run(
            script, env={**clean, 'PYTHON': 'echo', **environment}, capture_output=True, text=True, check=False
        )

    options = ['--limit', '3', '--show-dir', 'a b', '--cfg-options', 'model.prob_thd=0.1', 'model.bg_idx=0']
    line = command('cfg_x.py', '4', *options).stdout
    assert '--standalone' in line
    assert line.endswith(f'eval.py --config cfg_x.py --launcher pytorch {" ".join(options)}\n')
    assert '--nproc_per_node=4 ' in line
    assert line == command('cfg_x.py', *options, GPUS='4').stdout
    line = command('cfg_x.py', GPUS='8', NNODES='2', NODE_RANK='1', MASTER_ADDR='first', PORT='1234').stdout
    for part in ('--nnodes=2', '--node_rank=1', '--master_addr=first', '--master_port=1234', '--nproc_per_node=8'):
        assert f'{part} ' in line
    usage = command()
    assert usage.returncode == 2
    assert 'dist_test.sh CONFIG' in usage.stderr


@pytest.mark.slow
def test_a_killed_process_ends_the_run_with_its_code(project, tiny_clip, shared):
    """The real thing: bash, two processes, one killed from outside."""
    place = 'test_dataloader.dataset'
    options = [
        'model.clip_type=Demo', f'model.clip_path={tiny_clip}', 'model.slide_stride=8', 'test_dataloader.num_workers=0',
        f'{place}.data_root={shared / "samples" / "loveda"}', f'{place}.data_prefix.img_path=img_dir',
        f'{place}.data_prefix.seg_map_path=ann_dir',
    ]  # fmt: skip
    script = ['bash', str(PROJECT_ROOT / 'dist_test.sh'), 'cfg_loveda.py', '2', '--work-dir', 'work', '--cfg-options']
    environment = {**os.environ, 'PYTHON': sys.executable}
    run = subprocess.Popen([*script, *options], env=environment, stderr=subprocess.PIPE, text=True)
    victim = None
    for _ in range(600):
        time.sleep(0.1)
        children = subprocess.run(['pgrep', '-P', str(run.pid)], capture_output=True, text=True, check=False)
        if list((project / 'work').glob('*/*.log')) and len(children.stdout.split()) == NUM_PROCESSES:
            victim = int(children.stdout.split()[1])
            break
    os.kill(victim, signal.SIGKILL)
    _, messages = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGKILL
    assert 'was ended by SIGKILL' in messages
    assert 'Traceback' not in messages
    assert not (project / 'results.xlsx').exists()


def test_an_interruption_while_the_config_is_printed_is_one(project, monkeypatch):
    """mmengine catches everything there and calls it a syntax error."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate('cfg_scenes.py')
