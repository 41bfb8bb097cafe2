from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import distributed

from segearth.cli import EXIT_USER_ERROR, run_cli
from segearth.evaluation.distributed import LostProcessError, join_processes, lost_processes_named
from segearth.evaluation.launchers import LAUNCHERS, STEPS_A_JOB, job_port
from segearth.evaluation.results import read_rows
from segearth.evaluation.run import evaluate
from segearth.paths import PROJECT_ROOT
from tests.evaluation.conftest import ColourSegmentor
from tests.processes import NUM_PROCESSES, TIMEOUT, free_port, start_forked
from tools.launch import worst_code

NAMES = {name: launcher.ranks for name, launcher in LAUNCHERS.items()}
NOT_PASSED_ON = ('GPUS', 'PORT', 'MASTER_ADDR', 'MASTER_PORT', 'SLURM_JOB_ID')
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
            monkeypatch.setattr('segearth.evaluation.run.check_files', lambda *_: time.sleep(2.5))
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


def refusals(capfd, act, names=NAMES['pytorch'], **environment) -> list[str]:
    """Messages of two processes that both have to refuse; ``environment``: values of the first and the second."""

    def body(rank):
        os.environ.update({name: values[rank] for name, values in environment.items()})
        run_cli(lambda: act(rank))

    assert start_forked(body, names) == [EXIT_USER_ERROR] * 2
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith('error: ')]


def test_processes_of_two_runs_refuse_each_other(project, capfd):
    """Tasks of two jobs that meet at one port, because their users fixed it."""
    messages = refusals(
        capfd, lambda _: evaluate('cfg_scenes.py', launcher='slurm'), NAMES['slurm'],
        SLURM_JOB_ID=('101', '102'), SLURM_STEP_ID=('0', '0'), SLURM_STEP_NUM_NODES=('1', '1'),
    )  # fmt: skip
    expected = r'run: SLURM_JOB_ID=101, SLURM_STEP_ID=0 \(rank 0\) / SLURM_JOB_ID=102, SLURM_STEP_ID=0 \(rank 1\)'
    assert all(re.search(expected, message) for message in messages) and len(messages) == 2
    assert not (project / 'results.xlsx').exists()


@pytest.mark.parametrize(
    ('of_second', 'difference'),
    [
        ({'limit': 2}, r'limit: None \(rank 0\) / 2 \(rank 1\)'),
        ({'overrides': {'model.bg_idx': 1}}, r'model.bg_idx: '),
        ({'config': 'cfg_other.py'}, r'config: cfg_scenes .* class words: \w+ \(rank 0\) / \w+'),
    ],
)
def test_processes_with_other_settings_refuse_each_other(project, capfd, of_second, difference):
    other = (project / 'cfg_scenes.py').read_text().replace('words.txt', 'other.txt')
    (project / 'cfg_other.py').write_text(other)
    (project / 'other.txt').write_text('background\nbarn\n')

    def act(rank):
        evaluate(**{'config': 'cfg_scenes.py', 'launcher': 'pytorch', **(of_second if rank else {})})

    messages = refusals(capfd, act)
    assert all(re.search(difference, message) for message in messages) and len(messages) == 2
    assert not (project / 'results.xlsx').exists()


@pytest.mark.parametrize('what', ['weights of weight', 'text embeddings', 'images: 5, list'])
def test_processes_that_loaded_something_else_refuse_each_other(project, capfd, monkeypatch, what):
    def act(rank):
        build = ColourSegmentor.__init__

        def build_other(self, **settings):
            build(self, **settings)
            self.register_buffer('text_embeddings', torch.eye(2) + 1e-5 * rank, persistent=False)
            if rank and what == 'weights of weight':
                self.weight.data += 1
            if rank and what == 'text embeddings':
                self.text_embeddings += torch.tensor([[0.0, 1], [0, 0]])

        monkeypatch.setattr(ColourSegmentor, '__init__', build_other)
        overrides = {}
        if what.startswith('images'):  # each has its own copy, one of them under another name
            root = project / f'copy{rank}'
            shutil.copytree(project / 'scenes', root)
            for folder in ('img', 'lab') if rank else ():
                (root / folder / '4.png').rename(root / folder / '5.png')
            overrides = {'test_dataloader.dataset.data_root': str(root)}
        evaluate('cfg_scenes.py', launcher='pytorch', overrides=overrides)

    messages = refusals(capfd, act)
    assert all(f'They differ in {what}' in message for message in messages) and len(messages) == 2
    assert not (project / 'results.xlsx').exists()


@pytest.mark.parametrize(
    ('environment', 'message'),
    [
        ({'WORLD_SIZE': ('2', '3')}, 'number of processes: 2 .* / 3 '),
        ({'WORLD_SIZE': ('3', '3')}, 'of 3 processes only those of rank [01], [01] came to'),
        ({'WORLD_SIZE': ('3', '3'), 'RANK': ('1', '1')}, 'rank 1 of 3 did not reach rank 0 at'),
        ({'RANK': ('0', '0')}, 'rank 0 cannot listen there; is there another run|only those of rank 0 came'),
    ],
)
def test_ranks_that_do_not_fit_end_in_a_message(capfd, environment, message):
    messages = refusals(capfd, lambda _: join_processes('pytorch', timeout=2), **environment)
    assert all(re.search(message, text) for text in messages) and len(messages) == 2


def test_a_process_too_many_is_refused(capfd):
    """Two of three have rank 1; whoever is last is one too many, or all see it."""

    def third(rank):
        signal.alarm(TIMEOUT)
        os.environ.update(RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK='0', MASTER_PORT=port)
        time.sleep(rank / 5)
        run_cli(lambda: join_processes('pytorch', timeout=3) or time.sleep(1.5))  # rank 0 stays and answers

    port, context = str(free_port()), multiprocessing.get_context('fork')
    started = [context.Process(target=third, args=(rank,)) for rank in (1, 1, 0)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert EXIT_USER_ERROR in [process.exitcode for process in started]
    assert 'two processes of rank 1 came to' in capfd.readouterr().err


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
        clean = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON}
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
    two = {'NNODES': '2'}
    for variables, port in (
        ({'MASTER_PORT': '1234'}, '1234'), ({'MASTER_PORT': '1234', 'PORT': '5678'}, '5678'),
        (two, '29500'), (two | {'SLURM_JOB_ID': '7'}, str(job_port(7 * STEPS_A_JOB))),
    ):  # fmt: skip
        assert f'--master_port={port} ' in command('cfg_x.py', **variables).stdout
    assert '--standalone --local_addr=10.0.0.1 ' in command('cfg_x.py', MASTER_ADDR='10.0.0.1').stdout
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
