"""The plugin in QGIS without windows: by qgis_process, and by PyQGIS, which opens the results.

Debian's qgis_process is a script that gives the program an option it does not know; where there is one, the program
itself is taken.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psutil
import pytest
import rasterio
from affine import Affine
from rasterio.warp import transform_bounds

from segearth.demo.scene import make_scene
from segearth.paths import PROJECT_ROOT

pytestmark = pytest.mark.qgis

PLUGINS = PROJECT_ROOT / 'tools' / 'qgis'
IN_QGIS = Path(__file__).with_name('in_qgis.py')
SIDE, PIXEL, WEST, NORTH = 448, 0.25, 346000, 5648000
BOUNDS = [WEST, NORTH - SIDE * PIXEL, WEST + SIDE * PIXEL, NORTH]
CLASSES = ('building', 'road', 'tree', 'grass', 'water')
WORDS = 'building; road\n\ntree,forest;\n grass\nwater,river'
SECONDS = 300  # of a run
PROCESSING = {'PYTHONPATH': '/usr/share/qgis/python/plugins'}
PYTHONS = ('/usr/bin/python3', '/Applications/QGIS.app/Contents/MacOS/bin/python3')


def find_qgis() -> tuple[str, str]:
    """Programs: qgis_process, and the Python that has PyQGIS."""
    process = shutil.which('qgis_process.bin') or shutil.which('qgis_process')
    code = 'import qgis.core, qgis.gui'
    for python in filter(os.path.exists, PYTHONS):
        done = subprocess.run([python, '-c', code], env=clean(), capture_output=True, check=False)
        if process and done.returncode == 0:
            return process, python
    pytest.skip('needs QGIS with qgis_process and PyQGIS; Debian: qgis, python3-qgis')


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(('PYTHON', 'SEGEARTH_', 'QGIS'))}


class Qgis:
    """QGIS with a profile of its own."""

    def __init__(self, folder: Path, plugins: Path | None) -> None:
        self.process, self.python = find_qgis()
        self.profile, self.plugins = folder / 'a profile', plugins
        (folder / 'run').mkdir(mode=0o700)
        own = {'XDG_RUNTIME_DIR': folder / 'run', 'QGIS_CUSTOM_CONFIG_PATH': self.profile, 'QGIS_PLUGINPATH': plugins}
        self.variables = clean() | {name: str(path) for name, path in own.items() if path}
        self.variables |= {'QT_QPA_PLATFORM': 'offscreen', 'OMP_NUM_THREADS': '1', 'SEGEARTH_CACHE': f'{folder}/cache'}

    def command(self, *arguments: str, **variables: str) -> tuple[int, str]:
        """Exit code and all that qgis_process says."""
        done = subprocess.run(
            [self.process, *arguments], env=self.variables | variables, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    def run(self, python: str | None, **parameters: object) -> tuple[int, str]:
        given = [f'{name}={value}' for name, value in parameters.items()]
        variables = {'SEGEARTH_PYTHON': python} if python else {}
        return self.command('run', 'segearth:mapclasses', '--', *given, **variables)

    def act(self, act: str, python: str, **parameters: object) -> dict:
        """What in_qgis.py found."""
        request = json.dumps({'act': act, 'setting': python, 'parameters': parameters})
        done = subprocess.run(
            [self.python, IN_QGIS, PLUGINS, request], env=self.variables | PROCESSING, capture_output=True, text=True,
            timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert found['heavy'] == []
        return found


@pytest.fixture
def qgis(tmp_path):
    qgis = Qgis(tmp_path, PLUGINS)
    code, text = qgis.command('plugins', 'enable', 'segearth_qgis')
    assert code == 0, text
    return qgis


@pytest.fixture(scope='module')
def python(tmp_path_factory) -> str:
    """This test's Python with this checkout, which variables of QGIS do not reach."""
    path = tmp_path_factory.mktemp('my environment') / 'python'
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{PROJECT_ROOT}" exec "{sys.executable}" "$@"\n')
    path.chmod(0o755)
    return str(path)


def write_scene(path: Path, repeats: int = 1) -> Path:
    path.parent.mkdir(exist_ok=True)
    image = make_scene(3, SIDE).image.transpose(2, 0, 1)
    place = {'crs': 'EPSG:32632', 'transform': Affine(PIXEL, 0, WEST, 0, -PIXEL, NORTH)}
    side = SIDE * repeats
    with rasterio.open(path, 'w', driver='GTiff', dtype='uint8', count=3, height=side, width=side, **place) as target:
        for row in range(repeats):
            for column in range(repeats):
                target.write(image, window=rasterio.windows.Window(column * SIDE, row * SIDE, SIDE, SIDE))
    return path


@pytest.fixture
def scene(tmp_path) -> Path:
    return write_scene(tmp_path / 'my scenes' / 'Straße [1], ä b.tif')


def read_areas(path: str) -> dict[str, int]:
    with open(path, encoding='utf-8', newline='') as file:
        return {row['class']: int(row['pixels']) for row in csv.DictReader(file)}


def test_qgis_process_maps_a_scene_and_takes_finished_ones_as_they_are(qgis, python, scene, tmp_path):
    out = tmp_path / 'my öutput'
    settings = {'INPUT': scene, 'CLASSES': WORDS, 'ENCODER': 'Demo', 'OUTPUT': out}
    code, text = qgis.run(python, **settings)
    assert code == 0, text
    stem = out / scene.stem
    assert f'MAP:\t{stem}_classes.tif' in text and f'AREAS:\t{stem}_areas.csv' in text and '100' in text
    with rasterio.open(f'{stem}_classes.tif') as found, rasterio.open(scene) as expected:
        assert (found.crs, found.bounds, found.shape) == (expected.crs, expected.bounds, expected.shape)
        assert found.tags()['CLASS_NAMES'] == '; '.join(CLASSES)
    assert sum(read_areas(f'{stem}_areas.csv').values()) == SIDE**2
    written = os.stat(f'{stem}_classes.tif').st_mtime_ns
    code, text = qgis.run(python, **settings)
    assert code == 0 and 'is finished already' in text and f'MAP:\t{stem}_classes.tif' in text
    assert os.stat(f'{stem}_classes.tif').st_mtime_ns == written
    code, text = qgis.run(python, **settings | {'CLASSES': 'road; tree'})
    assert code == 1 and 'was made with other settings' in text and 'or "Replace existing results"' in text
    assert os.stat(f'{stem}_classes.tif').st_mtime_ns == written
    code, text = qgis.run(python, **settings | {'CLASSES': 'road; tree', 'OVERWRITE': 1})
    assert code == 0 and set(read_areas(f'{stem}_areas.csv')) == {'road', 'tree'}


def test_mistakes_are_messages_and_an_exit_code(qgis, python, scene, tmp_path):
    settings = {'INPUT': scene, 'CLASSES': 'road; tree', 'ENCODER': 'Demo', 'OUTPUT': tmp_path / 'out'}
    for environment, change, expected in (
        (None, {}, 'No Python environment is named yet. Name the Python'),
        ('/no/python', {}, '/no/python is no Python that can be started (No such file or directory)'),
        (qgis.python, {}, f'{qgis.python} has no segearth.'),
        (python, {'CLASSES': 'road; tree,,oak'}, 'classes, entry 2: empty synonym (two commas'),
        (python, {'CLASSES': ' ;\n'}, '"Classes" is empty: write one a line'),
        (python, {'BANDS': '1,2,9'}, 'has 3 bands, so band 9 does not exist'),
        (python, {'ENCODER': 'Clipp'}, "unknown clip_type 'Clipp'"),
        (python, {'OPTIONS': '--lambda "'}, '"Other options" cannot be read (No closing quotation)'),
        (python, {'OPTIONS': '--foo'}, 'unrecognized arguments: --foo'),
    ):
        code, text = qgis.run(environment, **settings | change)
        assert code == 1 and expected in text and 'Traceback' not in text, (change, text)
    assert not (tmp_path / 'out' / f'{scene.stem}_classes.tif').exists()


def test_results_open_with_their_legends_and_the_counts_of_the_table(qgis, python, scene, tmp_path):
    found = qgis.act(
        'load', python, INPUT=str(scene), CLASSES=WORDS, ENCODER='Demo', WITH_SCORES=True, WITH_POLYGONS=True,
        OUTPUT=str(tmp_path / 'out ü'), OPTIONS='--lambda -0.2',
    )  # fmt: skip
    classes, scores, polygons = (found['layers'].pop(f'{scene.stem} {kind}') for kind in ('map', 'scores', 'polygons'))
    assert found['layers'] == {}
    areas = read_areas(found['results']['AREAS'])
    assert list(areas) == list(CLASSES)
    for layer in (classes, scores):
        assert layer['system'] == polygons['system'] == 'EPSG:32632'
        assert layer['extent'] == BOUNDS
    assert classes['renderer'] == 'paletted' and classes['legend'] == list(CLASSES)
    assert len(set(classes['colours'])) == len(CLASSES)
    assert {CLASSES[int(value)]: pixels for value, pixels in classes['counts'].items()} == {
        name: pixels for name, pixels in areas.items() if pixels
    }
    sums = dict.fromkeys(areas, 0)
    for feature in polygons['features']:
        sums[feature['class']] += feature['pixels']
    assert sums == areas
    assert [layer['is_visible'] for layer in (classes, scores, polygons)] == [True, False, True]
    assert polygons['renderer'] == 'categorizedSymbol' and polygons['legend'] == list(CLASSES)
    assert scores['renderer'] == 'singlebandpseudocolor'
    assert max(found['steps']) == 100 and len(found['steps']) > 1
    assert any('SimFeatUp' in text for text in found['infos'])  # has an upsampler for other encoders


def test_a_cancelled_run_leaves_no_process_and_goes_on_when_run_again(qgis, python, tmp_path):
    scene = write_scene(tmp_path / 'large.tif', repeats=4)
    settings = {'INPUT': str(scene), 'CLASSES': WORDS, 'ENCODER': 'Demo', 'OUTPUT': str(tmp_path / 'out')}
    settings['OPTIONS'] = '--block-size 448'
    found = qgis.act('cancel', python, **settings)
    assert max(found['steps']) < 100 and 'MAP' not in found['results']
    assert running(scene) == []
    assert (tmp_path / 'out' / '.large.parts' / 'settings.json').is_file()
    assert not (tmp_path / 'out' / 'large_classes.tif').exists()
    again = qgis.act('load', python, **settings)
    assert again['results']['MAP'] == str(tmp_path / 'out' / 'large_classes.tif')
    assert again['layers']['large map']['legend'] == list(CLASSES)


def running(scene: Path) -> list[psutil.Process]:
    """Programs that map a scene."""
    found = []
    for process in psutil.process_iter(['cmdline', 'status']):
        command = process.info['cmdline'] or []
        if str(scene) in command and 'predict' in command and process.info['status'] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
def test_the_program_ends_when_qgis_does(qgis, python, tmp_path, number):
    scene = write_scene(tmp_path / 'large.tif', repeats=6)
    settings = {'INPUT': scene, 'CLASSES': WORDS, 'ENCODER': 'Demo', 'OUTPUT': tmp_path / 'out'}
    process = subprocess.Popen(
        [qgis.process, 'run', 'segearth:mapclasses', '--', *(f'{name}={value}' for name, value in settings.items())],
        env=qgis.variables | {'SEGEARTH_PYTHON': python}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: (tmp_path / 'out' / '.large.parts' / 'settings.json').is_file())
    process.send_signal(number)
    process.wait(SECONDS)
    wait_for(lambda: not running(scene))


def wait_for(condition) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, 'it did not come so far in time'
        time.sleep(0.1)


def test_layers_that_are_no_files_are_refused_in_words(qgis, python, tmp_path):
    found = qgis.act('refuse', python, CLASSES='a; b', OUTPUT=str(tmp_path / 'out'))
    assert not found['is_done']
    assert 'The layer tiles is no raster file that another program can open: it comes from "wms"' in found['text']


def test_the_encoder_is_chosen_from_a_list_or_written(qgis, python):
    found = qgis.act('widget', python)
    assert found['names'][:3] == ['', 'Mini', 'MiniSAR'] and found['values'] == ['', 'CLIP', 'my own']


def test_the_zip_is_a_plugin(python, scene, tmp_path):
    subprocess.run(['make', '-C', PROJECT_ROOT, 'qgis-plugin'], check=True, capture_output=True)
    qgis = Qgis(tmp_path, None)
    folder = qgis.profile / 'profiles' / 'default' / 'python' / 'plugins'
    with zipfile.ZipFile(PROJECT_ROOT / 'dist' / 'segearth_qgis.zip') as archive:
        archive.extractall(folder)
    code, text = qgis.command('plugins', 'enable', 'segearth_qgis')
    assert code == 0, text
    code, text = qgis.run(python, INPUT=scene, CLASSES='a; b', ENCODER='Demo', OUTPUT=tmp_path / 'out')
    assert code == 0, text
    assert (tmp_path / 'out' / f'{scene.stem}_classes.tif').is_file()


def test_an_extent_in_another_system_is_a_part_of_the_scene(qgis, python, scene, tmp_path):
    west, south, east, north = transform_bounds('EPSG:32632', 'EPSG:4326', WEST + 30, NORTH - 90, WEST + 60, NORTH - 60)
    part = f'{west!r},{east!r},{south!r},{north!r} [EPSG:4326]'
    code, text = qgis.run(python, INPUT=scene, CLASSES='a; b', ENCODER='Demo', OUTPUT=tmp_path / 'out', EXTENT=part)
    assert code == 0, text
    with rasterio.open(tmp_path / 'out' / f'{scene.stem}_classes.tif') as found:
        assert found.crs == 'EPSG:32632'
        assert tuple(found.bounds) == pytest.approx((WEST + 30, NORTH - 90, WEST + 60, NORTH - 60), abs=4)
