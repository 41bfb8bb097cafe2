"""The sweep as users run it; what its processes do is in tests/evaluation/test_jobs.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

import eval_all as program
from segearth.errors import ConfigError
from segearth.evaluation import run as single
from segearth.evaluation.jobs import CONSOLE_LOG
from segearth.evaluation.results import read_rows
from segearth.paths import PROJECT_ROOT


@pytest.fixture
def configs(tmp_path, monkeypatch, shared, tiny_clip):
    """Two configs that run, one without data, one that is no Python."""
    monkeypatch.chdir(tmp_path)
    text = (
        "_base_ = '{root}/configs/cfg_{name}.py'\n"
        "model = dict(clip_type='Demo', vit_type=None, clip_path='{clip}', feature_up=False)\n"
        "test_dataloader = dict(num_workers=0, dataset=dict(data_root='{data}',"
        " data_prefix=dict(img_path='img_dir', seg_map_path='ann_dir')))\n"
    )
    for name in ('potsdam', 'vaihingen', 'loveda'):
        data = 'nowhere' if name == 'loveda' else shared / 'samples' / name
        values = {'root': PROJECT_ROOT, 'name': name, 'clip': tiny_clip, 'data': data}
        (tmp_path / f'cfg_{name}.py').write_text(text.format(**values))
    (tmp_path / 'cfg_zz.py').write_text('model = dict(\n')
    return tmp_path


@pytest.fixture
def in_process(monkeypatch):
    """Runs eval.py's main in a fork of this process, which has everything imported."""

    def fork(command, env, stdout, **_):
        process = os.fork()
        if process:
            return Forked(process)
        os.dup2(stdout.fileno(), 1)
        os.dup2(stdout.fileno(), 2)
        code = 1
        try:
            single.main(command[2:])
            code = 0
        except Exception as error:
            os.write(2, f'error: {error}\n'.encode())
            code = 2
        finally:
            os._exit(code)

    stand_in = SimpleNamespace(Popen=fork, DEVNULL=None, STDOUT=None)
    monkeypatch.setattr('segearth.evaluation.jobs.subprocess', stand_in)


class Forked:
    """The part of Popen that jobs use."""

    def __init__(self, pid: int) -> None:
        self.pid, self.code = pid, None

    def poll(self):
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code


def test_a_sweep_its_table_and_its_resumption(configs, in_process, capsys):
    arguments = ['--configs', 'cfg_[pl]*.py', 'cfg_zz.py', '--limit', '1', '--cfg-options', 'model.slide_stride=224']
    assert program.main(arguments) == 1
    shown = capsys.readouterr().out
    assert 'cfg_loveda: failed  image folder of LoveDADataset not found' in shown
    assert 'cfg_zz: failed  config' in shown
    (row,) = read_rows(configs / 'results.xlsx')
    assert (row['Config'], row['Stride'], row['Limit']) == ('cfg_potsdam', '224', 1)
    assert (configs / 'results_paper.png').stat().st_size > 1000
    assert (configs / 'work_dirs' / 'eval_all' / 'cfg_potsdam' / CONSOLE_LOG).is_file()

    assert program.main([*arguments, '--resume']) == 1  # the digest of the sweep is that of the row
    assert 'cfg_potsdam: skipped' in capsys.readouterr().out
    assert len(read_rows(configs / 'results.xlsx')) == 1


def test_devices_are_shared():
    assert program.share_devices([]) == [[]]
    assert program.share_devices([], num_jobs=3) == [[], [], []]
    assert program.share_devices(['0', '1', '5']) == [['0'], ['1'], ['5']]
    assert program.share_devices(['0', '1', '2', '3'], num_jobs=2) == [['0', '2'], ['1', '3']]
    assert program.share_devices(['0', '1', '2'], 2, 3) == [['0'], ['1'], ['0']]
    with pytest.raises(ConfigError, match='--gpus 3: there are 2'):
        program.share_devices(['0', '1'], 3)
    with pytest.raises(ConfigError, match='--jobs 0'):
        program.share_devices([], num_jobs=0)


def test_commands_and_environments(tmp_path):
    job = program.plan(PROJECT_ROOT / 'configs' / 'cfg_loveda.py', tmp_path, {'model.clip_type': 'Demo'}, 50)
    assert (job.folder, job.num_images) == (tmp_path / 'cfg_loveda', 50)
    one = program.command(job, ['3'], ['--results', 'r.xlsx'])
    assert one[1:4] == [str(PROJECT_ROOT / 'eval.py'), '--config', str(job.config)]
    assert program.command(job, ['3', '4'], [])[:2] == ['bash', str(PROJECT_ROOT / 'dist_test.sh')]
    assert program.command(job, ['3', '4'], [])[3] == '2'
    assert program.environment(['3', '4'], 2)['CUDA_VISIBLE_DEVICES'] == '3,4'
    assert int(program.environment([], 2)['OMP_NUM_THREADS']) >= 1


def test_devices_that_are_hidden_stay_hidden(monkeypatch):
    monkeypatch.setattr(program.torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4, 6')
    assert program.visible_devices() == ['4', '6']
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES')
    assert program.visible_devices() == ['0', '1']


@pytest.mark.parametrize(
    'arguments', [['--group', 'radar'], ['--group', 'sar', '--configs', 'x'], ['--cfg-options', 'a']]
)
def test_a_wrong_command_line(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        program.main(arguments)
    assert error.value.code == 2
    assert 'usage' in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_sweep_goes_on(configs):
    """The real programs: killed while the first config runs, started again; told to end, started again."""
    command = [sys.executable, str(PROJECT_ROOT / 'eval_all.py'), '--configs', 'cfg_*.py', '--resume']
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 130)):
        sweep = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        log = configs / 'work_dirs' / 'eval_all' / ('cfg_potsdam' if number == signal.SIGKILL else 'cfg_vaihingen')
        while not list(log.glob('*/*.log')) and sweep.poll() is None:
            time.sleep(0.1)
        sweep.send_signal(number)
        assert sweep.wait(60) == code
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 1  # two cannot run
    assert sorted(row['Config'] for row in read_rows(configs / 'results.xlsx')) == ['cfg_potsdam', 'cfg_vaihingen']
