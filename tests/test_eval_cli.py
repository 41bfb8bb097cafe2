"""The program as users run it, with the real segmentor and a tiny random encoder."""

from __future__ import annotations

import logging
import os
import runpy
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from segearth.errors import MissingFileError
from segearth.evaluation import run as program
from segearth.evaluation.results import read_rows
from segearth.paths import PROJECT_ROOT

OPTIONS = ['model.clip_type=Demo', 'test_dataloader.num_workers=0', 'test_dataloader.dataset.data_root=scenes']


@pytest.fixture
def scenes(tmp_path, monkeypatch):
    """A data set in the form of LoveDA, in the working directory."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for folder, top, shape in (('img_dir', 256, (40, 60, 3)), ('ann_dir', 8, (40, 60))):
        (tmp_path / 'scenes' / folder / 'val').mkdir(parents=True)
        for index in range(2):
            Image.fromarray(random.integers(0, top, shape, dtype=np.uint8)).save(f'scenes/{folder}/val/{index}.png')
    return tmp_path


def test_a_config_with_the_embedded_encoder(scenes, tiny_clip):
    arguments = [
        '--config',
        'configs/cfg_loveda.py',
        '--workdir',
        'work',
        '--results',
        'out/table.xlsx',
        '--show-dir',
        'p',
    ]
    program.main([*arguments, '--cfg-options', *OPTIONS, '--cfg-options', f'model.clip_path={tiny_clip}'])
    (row,) = read_rows(scenes / 'out' / 'table.xlsx')
    assert (row['CLIP'], row['MODEL'], row['Dataset'], row['Config']) == (
        'Demo',
        'SegEarth',
        'LoveDADataset',
        'cfg_loveda',
    )
    assert row['VIT'] == 'demo_clip'  # not the size that the config has for CLIP
    assert (row['Images'], row['Upsampler'], row['Lambda'], row['Threshold']) == (2, 'joint_bilateral', -0.3, 0.3)
    assert len(list((scenes / 'p').glob('*.png'))) == 2
    assert list((scenes / 'work').glob('*/result.json'))


def test_words_of_the_original_s_command_line(scenes, tiny_clip, monkeypatch):
    arguments = ['--config', 'cfg_loveda', '--limit', '1', '--work-dir', 'work']
    options = ['--cfg-options', *OPTIONS, f'model.clip_path={tiny_clip}']
    monkeypatch.setenv('LOCAL_RANK', '1')
    program.main([*arguments, '--local-rank=0', '--show_dir', 'pictures', *options])
    assert os.environ['LOCAL_RANK'] == '1'
    assert [path.name for path in (scenes / 'pictures').iterdir()] == ['0.png']
    monkeypatch.delenv('LOCAL_RANK')
    program.main([*arguments, '--local_rank', '3', '--show', *options])
    assert os.environ['LOCAL_RANK'] == '3'
    assert [path.name for path in (scenes / 'work' / 'show').iterdir()] == ['0.png']


def test_the_row_says_what_held_where_the_config_says_nothing(scenes, tiny_clip):
    options = [*OPTIONS, f'model.clip_path={tiny_clip}', 'model._delete_=True', 'model.type=SegEarthSegmentation']
    options += ['model.name_path=cls_loveda.txt', 'model.feature_up=False']
    program.main(['--config', 'cfg_loveda', '--limit', '1', '--cfg-options', *options])
    (row,) = read_rows(scenes / 'results.xlsx')
    assert (row['Lambda'], row['Window'], row['MODEL'], row['Read-out blocks']) == (0, '224', 'SegEarth', 1)


def test_an_optical_config_reads_radar_by_an_option(scenes, tiny_clip):
    loader = 'test_dataloader.dataset.pipeline.0.type=LoadSARImage'
    program.main(
        ['--config', 'cfg_loveda', '--limit', '1', '--cfg-options', *OPTIONS, f'model.clip_path={tiny_clip}', loader]
    )
    assert read_rows(scenes / 'results.xlsx')[0]['Images'] == 1


def test_missing_weights_are_said_before_the_model_runs(scenes):
    options = [*OPTIONS[1:], 'model.clip_type=RemoteCLIP', 'model.vit_type=ViT-B/32', 'model.clip_path=mine.pt']
    with pytest.raises(MissingFileError, match='mine.pt'):
        program.main(['--config', 'cfg_loveda.py', '--cfg-options', *options])
    assert not (scenes / 'results.xlsx').exists()


@pytest.mark.parametrize(
    'arguments', [[], ['--config', 'x', '--launcher', 'magic'], ['--config', 'x', '--cfg-options', 'a']]
)
def test_a_wrong_command_line(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        program.main(arguments)
    assert error.value.code == 2
    assert 'usage' in capsys.readouterr().err


def test_a_mistake_ends_with_one_message_and_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['eval.py', '--config', 'cfg_potsdm.py'])
    monkeypatch.setattr(signal, 'signal', lambda *_: None)
    monkeypatch.setattr(logging, 'raiseExceptions', True)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(PROJECT_ROOT / 'eval.py'), run_name='__main__')
    assert end.value.code == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith('error: config not found: cfg_potsdm.py')
    assert 'cfg_potsdam.py' in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one(scenes, tiny_clip):
    Image.open('scenes/img_dir/val/0.png').save('scenes/img_dir/val/2.png')  # three images: not a multiple of two
    Image.open('scenes/ann_dir/val/1.png').save('scenes/ann_dir/val/2.png')
    options = ['--cfg-options', *OPTIONS, f'model.clip_path={tiny_clip}']
    program.main(['--config', 'cfg_loveda.py', *options])
    environment = {**os.environ, 'PYTHON': sys.executable}
    script = ['bash', str(PROJECT_ROOT / 'dist_test.sh'), 'cfg_loveda.py', '2', *options]
    subprocess.run(script, env=environment, check=True)
    one, two = read_rows(scenes / 'results.xlsx')
    assert (one['Processes'], two['Processes']) == (1, 2)
    for column in ('aAcc', 'mIoU', 'mAcc', 'Images', 'Settings'):
        assert one[column] == two[column]


def test_real_samples(shared, tmp_path, tiny_clip, monkeypatch):
    """The commands of the documentation, with random weights: the figures mean nothing."""
    monkeypatch.chdir(tmp_path)
    place = 'test_dataloader.dataset'
    for name, config, prefixes in (
        ('potsdam', 'cfg_potsdam.py', ('img_dir', 'ann_dir')),
        ('vaihingen', 'cfg_vaihingen.py', ('img_dir', 'ann_dir')),
        ('sen1floods11', 'examples/cfg_sen1floods11_sar.py', ('', '')),
    ):
        options = [
            *OPTIONS[:2],
            'model.slide_stride=224',
            f'model.clip_path={tiny_clip}',
            f'{place}.data_root={shared / "samples" / name}',
        ]
        options += [f'{place}.data_prefix.img_path={prefixes[0]}', f'{place}.data_prefix.seg_map_path={prefixes[1]}']
        program.main(['--config', f'{PROJECT_ROOT}/configs/{config}', '--cfg-options', *options])
    rows = read_rows(tmp_path / 'results.xlsx')
    assert [row['Dataset'] for row in rows] == ['PotsdamDataset', 'ISPRSDataset', 'WaterDataset']
    assert [row['Images'] for row in rows] == [1, 1, 1]
