from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segearth.paths import PROJECT_ROOT

FOLDER = PROJECT_ROOT / 'tools' / 'dataset_converters'


def run(monkeypatch: pytest.MonkeyPatch, program: str, *arguments: object) -> int:
    monkeypatch.setattr(sys, 'argv', [program, *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(FOLDER / f'{program}.py'), run_name='__main__')
    return caught.value.code


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for folder, array in (('images_png', np.zeros((4, 4, 3))), ('masks_png', np.ones((4, 4)))):
        path = tmp_path / 'Val' / 'Rural' / folder
        path.mkdir(parents=True)
        Image.fromarray(array.astype(np.uint8)).save(path / '2522.png')
    return tmp_path / 'Val'


def test_program_says_what_it_did(tmp_path: Path, source: Path, monkeypatch, capsys) -> None:
    assert run(monkeypatch, 'loveda', source, '--out', tmp_path, '--jobs', 2) == 0
    printed = capsys.readouterr().out
    for part in ('1 images with labels', '1 written', '1669 are expected', 'check_data.py configs/cfg_loveda.py'):
        assert part in printed


def test_output_folder_is_that_of_the_configs(tmp_path: Path, source: Path, monkeypatch) -> None:
    monkeypatch.setenv('SEGEARTH_DATA', str(tmp_path / 'all'))
    assert run(monkeypatch, 'loveda', source) == 0
    assert (tmp_path / 'all' / 'LoveDA' / 'ann_dir' / 'val' / '2522.png').is_file()


def test_wrong_source_ends_with_code_2(tmp_path: Path, source: Path, monkeypatch, capsys) -> None:
    assert run(monkeypatch, 'binary_masks', 'inria', source, '--out', tmp_path) == 2
    assert 'Expected: AerialImageDataset' in capsys.readouterr().err


@pytest.mark.parametrize('program', sorted(path.stem for path in FOLDER.glob('*.py')))
def test_help(program: str, monkeypatch, capsys) -> None:
    assert run(monkeypatch, program, '--help') == 0
    assert 'as downloaded' in capsys.readouterr().out


def test_unknown_name_lists_the_known(monkeypatch, capsys) -> None:
    assert run(monkeypatch, 'colour_tiles', 'atlantis', '.') == 2
    assert 'potsdam' in capsys.readouterr().err
