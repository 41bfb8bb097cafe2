import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROGRAM = Path(__file__).parents[2] / 'tools' / 'demo.py'


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['demo.py', *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(PROGRAM), run_name='__main__')
    return stop.value.code


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'scene.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    return path


def test_writes_labels_and_a_picture_and_overwrites_only_when_told(monkeypatch, capsys, image, tmp_path, tiny_clip):
    out = tmp_path / 'out'
    arguments = (image, '--classes', 'building; road; water,river', '--out', out, '--clip-path', tiny_clip)
    assert run(monkeypatch, *arguments) == 0
    assert 'building' in capsys.readouterr().out
    labels = Image.open(out / 'scene_labels.png')
    assert labels.mode == 'L' and labels.size == (60, 40)
    assert set(np.unique(labels)) <= {0, 1, 2}
    assert sorted(path.name for path in out.iterdir()) == ['scene.png', 'scene_labels.png']
    assert run(monkeypatch, *arguments) == 2
    assert 'exist already' in capsys.readouterr().err
    assert run(monkeypatch, *arguments, '--overwrite') == 0


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('nowhere.png', '--classes', 'road; tree'), 'nowhere.png'),
        (('{image}', '--classes', 'road; road'), 'road'),
        (('{image}', '--classes', 'road; tree', '--bands', 'red'), '--bands'),
        (('{image}', 'elsewhere/scene.tif', '--classes', 'road; tree'), 'would both write'),
        (('{image}', 'scene_labels.png', '--classes', 'road; tree'), 'would both write'),
        (('{image}', 'SCENE.jpg', '--classes', 'road; tree'), 'would both write'),
        (('{image}', '--classes', 'road; tree', '--out', '{image.parent}', '--overwrite'), 'would replace the input'),
        (('{image}', '--classes', 'road; tree', '--out', '{image}'), 'cannot be the folder of results'),
        (('{image}', '--classes', 'road; tree', '--clip-type', 'RemoteCLIP', '--vit-type', 'ViT-B/16'), 'ViT-B/32'),
    ],
)
def test_mistakes_end_with_one_message(monkeypatch, capsys, image, tmp_path, tiny_clip, arguments, message):
    arguments = [argument.format(image=image) for argument in arguments]
    if '--clip-type' not in arguments:
        arguments += ['--clip-path', tiny_clip]
    if '--out' not in arguments:
        arguments += ['--out', tmp_path / 'out']
    assert run(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and message in error and 'Traceback' not in error
