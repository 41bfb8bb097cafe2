from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segearth.paths import PROJECT_ROOT

PREFIX = 'test_dataloader.dataset.data_prefix'


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, 'argv', ['check_data.py', *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(PROJECT_ROOT / 'tools' / 'check_data.py'), run_name='__main__')
    return caught.value.code


@pytest.fixture
def udd5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two of the forty images of UDD5."""
    monkeypatch.setenv('SEGEARTH_DATA', str(tmp_path))
    for folder, suffix, array in (('src', 'JPG', np.zeros((8, 9, 3))), ('gt', 'png', np.arange(72).reshape(8, 9) % 5)):
        path = tmp_path / 'UDD5' / 'val' / folder
        path.mkdir(parents=True)
        for name in ('a', 'b'):
            kind = {'JPG': 'JPEG', 'png': 'PNG'}[suffix]
            Image.fromarray(array.astype(np.uint8)).save(path / f'{name}.{suffix}', format=kind)
    return tmp_path / 'UDD5'


def test_wrong_count_is_an_error(udd5: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    assert run(monkeypatch, 'configs/cfg_udd5.py', '--pictures', tmp_path / 'pictures') == 1
    printed = capsys.readouterr().out
    for part in (
        'cfg_udd5.py: UDD5Dataset',
        '8 x 9 (2)',
        'vegetation',
        'ERROR      2 images; published: 40',
        'not cfg_udd5',
    ):
        assert part in printed
    assert (tmp_path / 'pictures' / 'cfg_udd5.png').is_file()


def test_data_elsewhere_may_be_a_part(udd5: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    options = ['--cfg-options', f'test_dataloader.dataset.data_root={udd5}', '--pictures', tmp_path / 'pictures']
    assert run(monkeypatch, 'cfg_udd5', *options) == 0
    assert '1 of 1 data sets are sound' in capsys.readouterr().out


def test_missing_data_set_does_not_stop_the_others(udd5: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    assert run(monkeypatch, 'cfg_potsdam', 'cfg_udd5', '--pictures', tmp_path) == 1
    printed = capsys.readouterr().out
    assert 'remedy     python tools/dataset_converters/colour_tiles.py potsdam SOURCE' in printed
    assert 'cfg_udd5.py: UDD5Dataset' in printed and '0 of 2 data sets' in printed


@pytest.mark.parametrize('arguments', [
    [], ['--all', 'cfg_udd5'], ['cfg_nowhere'], ['cfg_udd5', '--limit', '0'], ['cfg_udd5', '--cfg-options', 'typo'],
])  # fmt: skip
def test_wrong_calls_end_with_code_2(arguments: list[str], monkeypatch, capsys) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize('name', ['loveda', 'potsdam', 'vaihingen'])
def test_real_samples(name: str, shared: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    options = [f'test_dataloader.dataset.data_root={shared / "samples" / name}']
    options += [f'{PREFIX}.img_path=img_dir', f'{PREFIX}.seg_map_path=ann_dir']
    assert run(monkeypatch, f'cfg_{name}', '--pictures', tmp_path, '--cfg-options', *options) == 0
    assert 'RGB' in capsys.readouterr().out
