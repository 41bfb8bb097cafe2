"""The installed package without a checkout: everything that has a default works from an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from segearth.demo import files as demo_files
from segearth.paths import PROJECT_ROOT

FILES = ('pyproject.toml', 'requirements.txt', 'README.md', 'LICENSE', 'weights/README.md')
# not all of weights/, where fetched files may lie
FOLDERS = ('segearth', 'simfeatup', 'configs', 'weights/demo', 'weights/mini')
FOREIGN = 'raise RuntimeError("a folder of somebody else beside the package was read")\n'
PROGRAM = """
import sys
from pathlib import Path
import numpy as np, rasterio
from affine import Affine
from PIL import Image
import segearth
from segearth import commands, paths
from segearth.demo.scene import make_scene
from segearth.training.engine import load_training_config

assert segearth.__file__.startswith(sys.prefix), segearth.__file__
image = make_scene(3, 64).image
upsampler = {'model_name': 'jbu_one', 'model_path': 'demo/demo_jbu_one.safetensors'}
segmenter = segearth.Segmenter(['road', 'building', 'water'], 'Demo', feature_up_cfg=upsampler, resize=None)
result = segmenter(Image.fromarray(image))
assert result.labels.shape == (64, 64)
assert segearth.Segmenter(['road', 'water'], resize=None)(image).labels.shape == (64, 64)

place = dict(crs='EPSG:32632', transform=Affine(0.25, 0, 500000, 0, -0.25, 5600000))
with rasterio.open('scene.tif', 'w', 'GTiff', 64, 64, 3, dtype='uint8', **place) as scene:
    scene.write(image.transpose(2, 0, 1))
assert not commands.main(['predict', 'scene.tif', '--config', 'cfg_demo', '--out', 'maps', '--no-upsampling'])
assert rasterio.open('maps/scene_classes.tif').shape == (64, 64)

import segearth.app.page
assert len(segearth.app.page.EXAMPLES) == 3 and segearth.app.page.WORDS.is_file()
load_training_config('simfeatup/demo')
assert paths.data_folders() == [Path.cwd()], 'demo data are drawn into the working directory'
print('download folder', paths.download_folder())
"""


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """A wheel, built without a network from a copy, so that no build/ is left in the checkout."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    for name in FOLDERS:
        shutil.copytree(PROJECT_ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in FILES:
        shutil.copy(PROJECT_ROOT / name, source / name)
    (source / 'weights' / 'fetched.pt').write_bytes(b'of a user')
    run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '--no-index', '-w', folder, source)
    return next(folder.glob('*.whl'))


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    """Folder of the programs of an environment with the wheel, which sees the other packages of this one."""
    venv = tmp_path_factory.mktemp('environment')
    run(sys.executable, '-m', 'venv', '--without-pip', venv)
    packages = Path(sysconfig.get_path('purelib', 'venv', {'base': venv, 'platbase': venv}))
    (packages / 'zz_others.pth').write_text(sysconfig.get_path('purelib'))
    pip = (sys.executable, '-m', 'pip', '--python', venv / 'bin' / 'python', 'install')
    run(*pip, '--no-deps', '--no-index', '--ignore-installed', '--no-compile', wheel)
    for name in ('configs/cfg_demo.py', 'cfg_demo.py'):
        (packages / name).parent.mkdir(exist_ok=True)
        (packages / name).write_text(FOREIGN)
    (packages / 'weights' / 'demo').mkdir(parents=True)
    (packages / 'weights' / 'demo' / 'demo_clip.safetensors').write_text('no weights')
    return venv / 'bin', packages / 'segearth'


def run(*command, folder=None):
    """Runs a command; returns what it printed."""
    variables = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    variables |= {'SIMFEATUP_BACKEND': 'reference', 'SEGEARTH_WEIGHTS': ''}  # compiling loops costs more than they save
    done = subprocess.run(list(map(str, command)), cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, f'{command}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}'
    return done.stdout


def test_a_wheel_holds_every_module_the_configs_and_the_embedded_weights_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in name}
    expected = set()
    for folder, start in (('segearth', ''), ('simfeatup', ''), ('configs', 'segearth/shipped/')):
        expected |= {
            f'{start}{path.relative_to(PROJECT_ROOT).as_posix()}'
            for path in (PROJECT_ROOT / folder).rglob('*')
            if path.is_file() and '__pycache__' not in path.parts
        }
    weights = {path for folder in ('demo', 'mini') for path in (PROJECT_ROOT / 'weights' / folder).iterdir()}
    expected |= {f'segearth/shipped/{path.relative_to(PROJECT_ROOT).as_posix()}' for path in weights}
    expected.add('segearth/shipped/weights/README.md')
    assert names == expected, 'a new folder of modules has to be named in pyproject.toml, tool.setuptools.packages'


def test_segmenter_maps_page_and_configs_from_an_empty_folder(installed, tmp_path):
    programs, package = installed
    before = files(package)
    printed = run(programs / 'python', '-c', PROGRAM, folder=tmp_path)
    assert str(package) not in printed.splitlines()[-1], 'nothing may be fetched into the package'
    assert {path.name for path in tmp_path.iterdir()} == {'scene.tif', 'maps'}
    assert files(package) == before


def test_the_evaluation_command_from_a_folder_of_data_alone(installed, tmp_path, monkeypatch):
    draw = demo_files._write_tiles
    monkeypatch.setattr(demo_files, '_write_tiles', lambda root, number, *sizes: number or draw(root, number, *sizes))
    demo_files.ensure_benchmark(tmp_path / 'data' / 'demo')  # one scene of all of them, to save time
    programs, package = installed
    before = files(package)
    quick = ('--cfg-options', 'model.feature_up=False', 'model.slide_stride=224')
    printed = run(programs / 'segearth', 'eval', '--limit', '1', 'cfg_demo', *quick, folder=tmp_path)
    assert 'mIoU' in printed
    assert {'results.xlsx', 'results.txt', 'work_dirs'} <= {path.name for path in tmp_path.iterdir()}
    assert files(package) == before, 'nothing may be written into the package'


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob('*') if '__pycache__' not in path.parts}
