from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segearth.paths import PROJECT_ROOT

FOLDER = PROJECT_ROOT / 'tools' / 'dataset_converters'
PROGRAMS = sorted(path.stem for path in FOLDER.glob('*.py'))
CONVERSIONS = {  # program -> the words of its call, image and label of a source in miniature
    'binary_masks': (['whu_aerial'], 'val/image/1.png', 'val/label/1.png'),
    'colour_tiles': (['uavid'], 'test/seq1/Images/0.png', 'test/seq1/Labels/0.png'),
    'hrsid': ([], 'JPEGImages/a.jpg', None),
    'loveda': ([], 'Val/Urban/images_png/1.png', 'Val/Urban/masks_png/1.png'),
    'openearthmap': ([], 'aachen/images/a_1.tif', 'aachen/labels/a_1.tif'),
    'yeseg': ([], 'sar/1.png', 'label/1.png'),
}
RUN_ALL = """
import json, runpy, sys
for program, arguments in json.loads(sys.argv[1]):
    sys.argv = [program, *arguments]
    try:
        runpy.run_path(program, run_name='__main__')
    except SystemExit as end:
        assert not end.code, program
print(sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'mmseg', 'mmengine', 'mmcv', 'numpy'}))
"""


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


def test_no_program_needs_torch_or_mmseg(tmp_path: Path) -> None:
    calls = []
    for program in PROGRAMS:
        words, image, label = CONVERSIONS[program]
        root = tmp_path / program
        for name, size in ((image, (4, 6, 3)), (label, (4, 6, 3) if program == 'colour_tiles' else (4, 6))):
            if name is not None:
                (root / name).parent.mkdir(parents=True)
                Image.fromarray(np.zeros(size, dtype=np.uint8)).save(root / name)
        calls.append((str(FOLDER / f'{program}.py'), [*words, str(root), '--out', str(tmp_path), '--jobs', '1']))
    (tmp_path / 'openearthmap' / 'val.txt').write_text('a_1.tif\n')
    annotations = {'images': [{'id': 0, 'file_name': 'a.jpg'}], 'annotations': []}
    (tmp_path / 'hrsid' / 'annotations').mkdir()
    (tmp_path / 'hrsid' / 'annotations' / 'test2017.json').write_text(json.dumps(annotations))
    command = [sys.executable, '-W', 'ignore', '-c', RUN_ALL, json.dumps(calls)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('1 images with labels from 1 in the source (1 written') == len(calls) == 6
    assert done.stdout.splitlines()[-1] == "['numpy']"


@pytest.mark.parametrize('program', PROGRAMS)
def test_help(program: str, monkeypatch, capsys) -> None:
    assert run(monkeypatch, program, '--help') == 0
    assert 'as downloaded' in capsys.readouterr().out


def test_unknown_name_lists_the_known(monkeypatch, capsys) -> None:
    assert run(monkeypatch, 'colour_tiles', 'atlantis', '.') == 2
    assert 'potsdam' in capsys.readouterr().err
