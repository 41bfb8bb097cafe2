"""The plugin's part that starts segearth, which needs no QGIS; a shell script stands in for Python."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import shutil
import subprocess
import sys
import time
import zipfile

import psutil
import pytest

import segearth
from segearth.paths import PROJECT_ROOT
from segearth.progress import progress_bar
from segearth.weights.encoders import clip_types

PLUGIN = PROJECT_ROOT / 'tools' / 'qgis' / 'segearth_qgis'
ANSWER = 'case "$2" in *found*) echo segearth True; exit ;; esac\n'


@pytest.fixture(scope='module')
def program():
    spec = importlib.util.spec_from_file_location('segearth_qgis_program', PLUGIN / 'program.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Function that writes a stand-in for Python, a script of shell, and returns its path."""
    monkeypatch.delenv('SEGEARTH_PYTHON', raising=False)

    def write(script: str, name: str = 'my python') -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\n{script}')
        path.chmod(0o755)
        return str(path)

    return write


class Feedback:
    """What QGIS hands to an algorithm; cancelled as soon as something of a kind is told."""

    def __init__(self, cancel_at: str = '') -> None:
        self.told: list[tuple[str, object]] = []
        self.cancel_at = cancel_at

    def isCanceled(self):
        return any(kind == self.cancel_at for kind, _ in self.told)

    def __getattr__(self, name):
        return lambda value: self.told.append((name, value))


def test_messages_progress_and_results(program, python):
    path = python(r"""
printf 'INFO: one\nWARNING: two\nprogress: 1/4\nanything\nprogress: 4/4\n' >&2
printf '/maps/%s_classes.tif\n' "$4"
""")
    feedback = Feedback()
    assert program.predict(path, ['ä b'], feedback) == ['/maps/ä b_classes.tif']
    assert feedback.told == [
        ('pushInfo', 'one'), ('pushWarning', 'two'), ('setProgress', 25), ('pushConsoleInfo', 'anything'),
        ('setProgress', 100),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('says', 'code', 'expected'),
    [
        ('error: no classes\nname one', 2, 'no classes\nname one'),
        ('usage: segearth\nsegearth: error: unrecognized arguments: --foo', 2, 'unrecognized arguments: --foo'),
        ('Traceback ...\nImportError: No torch', 1, 'segearth ended: ImportError: No torch'),
        ('', 9, 'segearth ended with code 9; what it said is in the log above'),
    ],
)  # fmt: skip
def test_errors(program, python, says, code, expected):
    with pytest.raises(program.ProgramError) as raised:
        program.predict(python(f'cat >&2 <<END\n{says}\nEND\nexit {code}'), [], Feedback())
    assert str(raised.value) == expected


def test_a_cancelled_program_ends_with_all_it_started(program, python, tmp_path):
    path = python(f'sleep 60 & echo $! > "{tmp_path}/inner"\ntrap "" TERM\necho progress: 1/9 >&2\nsleep 60')
    program.END_SECONDS = 0.2
    assert program.predict(path, [], Feedback('setProgress')) is None
    inner = int((tmp_path / 'inner').read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(inner) and psutil.Process(inner).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_variables_of_qgis_do_not_reach_the_program(program, python, monkeypatch, tmp_path):
    for name in ('PYTHONHOME', 'PYTHONPATH', 'GDAL_DATA', 'PROJ_LIB', 'MINE'):
        monkeypatch.setenv(name, 'of QGIS')
    program.predict(python(f'env > "{tmp_path}/variables"'), [], Feedback())
    lines = (tmp_path / 'variables').read_text().splitlines()
    assert [line for line in lines if line.endswith('of QGIS')] == ['MINE=of QGIS']
    assert 'SEGEARTH_PROGRESS=lines' in lines


@pytest.mark.parametrize('place', ['bin/python', 'Scripts/python.exe', 'python.exe'])
def test_an_environment_is_named_by_its_folder_or_its_python(program, python, tmp_path, monkeypatch, place):
    path = python(ANSWER, f'my env/{place}')
    assert program.find_python(f' "{tmp_path}/my env" ') == program.find_python(path) == path
    monkeypatch.setenv('SEGEARTH_PYTHON', path)
    assert program.find_python('/elsewhere') == path


@pytest.mark.parametrize(
    ('script', 'expected'),
    [
        (None, 'No Python environment is named yet. Name the Python'),
        ('echo segearth False', '-m pip install ".[maps]"'),
        ('echo what?', "or a broken one (it says 'what?'). Name"),
        ('sleep 9', 'is no Python that can be started (no answer within 0.2 s). Name'),
    ],
)
def test_an_environment_that_cannot_be_used(program, python, monkeypatch, script, expected):
    monkeypatch.setattr(program, 'PROBE_SECONDS', 0.2 if script == 'sleep 9' else 30)
    with pytest.raises(program.ProgramError) as raised:
        program.find_python(script and python(script))
    assert expected in str(raised.value) and 'Providers > SegEarth' in str(raised.value)


def test_missing_pythons_and_empty_folders(program, python, tmp_path):
    for named, expected in (('/no/python', 'No such file'), (str(tmp_path), 'is a folder without bin/python')):
        with pytest.raises(program.ProgramError, match=expected):
            program.find_python(named)


def test_the_real_python_has_segearth_and_no_other_folder_is_asked(program, monkeypatch, tmp_path):
    (tmp_path / 'importlib.py').write_text('raise SystemExit')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('SEGEARTH_PYTHON', sys.executable)
    assert program.find_python('') == sys.executable


def test_progress_in_lines(monkeypatch, capsys):
    monkeypatch.setenv('SEGEARTH_PROGRESS', 'lines')
    with progress_bar('scene') as report:
        for done in (0, 1, 2, 3):  # within a second: the first and the last are told
            report(done, 3)
    assert capsys.readouterr().err == 'progress: 0/3\nprogress: 3/3\n'


def test_encoders_and_version_are_those_of_the_program():
    tree = ast.parse((PLUGIN / 'encoders.py').read_text(encoding='utf-8'))
    (names,) = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)]
    assert sorted(names) == sorted(clip_types())
    metadata = configparser.ConfigParser()
    metadata.read(PLUGIN / 'metadata.txt', encoding='utf-8')
    assert metadata['general']['version'] == segearth.__version__


@pytest.mark.skipif(shutil.which('make') is None, reason='needs make')
def test_the_zip_has_one_folder_and_no_rubbish(tmp_path):
    for name in ('Makefile', 'LICENSE', 'requirements.txt'):
        shutil.copy(PROJECT_ROOT / name, tmp_path)
    copy = shutil.copytree(PLUGIN, tmp_path / 'tools' / 'qgis' / 'segearth_qgis')
    (copy / '__pycache__').mkdir(exist_ok=True)
    subprocess.run(['make', 'qgis-plugin'], cwd=tmp_path, check=True, capture_output=True)
    with zipfile.ZipFile(tmp_path / 'dist' / 'segearth_qgis.zip') as archive:
        names = {name for name in archive.namelist() if not name.endswith('/')}
    files = {path.name for path in PLUGIN.iterdir() if path.is_file()} | {'LICENSE'}
    assert names == {f'segearth_qgis/{name}' for name in files}
