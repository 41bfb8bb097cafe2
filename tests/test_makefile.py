"""Which build of PyTorch the Makefile takes, with a python that only writes down how it is called."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from segearth.paths import PROJECT_ROOT

PYTHON = f"""#!/bin/sh
echo "$*" >> calls
case "$1 $2" in
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip") case "$*" in *--index-url*) [ ! -e no-version-for-this-python ] ;; esac ;;
-c*torch.version.cuda*) [ ! -e has-cuda ] ;;
-c*) exec {sys.executable} "$@" ;;
esac
"""
pytestmark = pytest.mark.skipif(shutil.which('make') is None, reason='needs make')
GPU = any(Path('/dev').glob('nvidia[0-9]*')) or Path('/dev/dxg').exists()


@pytest.fixture
def index(tmp_path):
    """Address of a package index that has a page about torch."""
    (tmp_path / 'index' / 'torch').mkdir(parents=True)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / 'index')
    handler.func.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


@pytest.fixture
def make(tmp_path):
    """Runs make test; returns its exit code, its messages, and the arguments of each pip."""
    for name in ('Makefile', 'requirements.txt', 'pyproject.toml'):
        shutil.copy(PROJECT_ROOT / name, tmp_path)

    def run(*variables, system='Linux x86_64', python=PYTHON):
        for name, text in (('python3', python), ('uname', f'#!/bin/sh\necho {system}\n')):
            (tmp_path / 'bin').mkdir(exist_ok=True)
            (tmp_path / 'bin' / name).write_text(text)
            (tmp_path / 'bin' / name).chmod(0o755)
        path = f'{tmp_path}/bin:/usr/bin:/bin'
        done = subprocess.run(
            ['make', 'test', *variables], cwd=tmp_path, env={'PATH': path}, capture_output=True, text=True
        )
        calls = tmp_path / 'calls'
        calls = calls.read_text().splitlines() if calls.exists() else []
        return done.returncode, done.stderr, [call for call in calls if call.startswith('-m pip')]

    return run


@pytest.mark.skipif(GPU, reason='this machine has a GPU')
def test_without_a_gpu_the_cpu_build_of_both_where_its_index_answers(make, index):
    code, _, (first, second) = make(f'TORCH_INDEX={index}')
    assert code == 0
    assert f'--index-url {index} torch>=' in first and ' torchvision>=' in first
    assert '-e .[dev]' in second


@pytest.mark.parametrize(
    ('given', 'system'),
    [(['TORCH_INDEX=http://127.0.0.1:9'], 'Linux x86_64'), (['TORCH=default'], 'Linux x86_64'),
     ([], 'Darwin arm64'), ([], 'Linux aarch64')],
)  # fmt: skip
def test_else_the_ordinary_build(make, index, given, system):
    code, _, pips = make(f'TORCH_INDEX={index}', *given, system=system)
    assert code == 0 and len(pips) == 1 and '--index-url' not in pips[0]


def test_an_index_without_a_version_for_this_python(make, index, tmp_path):
    (tmp_path / 'no-version-for-this-python').touch()
    code, _, pips = make(f'TORCH_INDEX={index}')
    assert code == 0 and '--index-url' not in pips[-1]
    code, message, _ = make(f'TORCH_INDEX={index}', 'TORCH=cpu')
    assert code == 2 and 'TORCH=default takes the ordinary one' in message
    assert not (tmp_path / '.venv' / '.ready-cpu').exists()


def test_a_forced_build_is_the_one_that_is_there_or_said_not_to_be(make, index, tmp_path):
    assert make('TORCH_INDEX=http://127.0.0.1:9')[0] == 0
    (tmp_path / 'has-cuda').touch()
    code, message, _ = make(f'TORCH_INDEX={index}', 'TORCH=cpu')
    assert code == 2 and 'make clean' in message
    (tmp_path / 'has-cuda').unlink()
    assert make(f'TORCH_INDEX={index}', 'TORCH=cpu')[0] == 0


@pytest.mark.parametrize(
    ('given', 'python', 'expected'),
    [
        ('TORCH=gpu', PYTHON, "TORCH is 'gpu'; allowed: auto, cpu, default"),
        ('TORCH=default', '#!/bin/sh\necho Python 3.9.1\nexit 1\n', 'needed; python3 is Python 3.9.1. Name another'),
        ('TORCH=default', '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\n', 'apt install python3-venv'),
    ],
)
def test_mistakes_are_said_in_one_message(make, given, python, expected):
    code, message, pips = make(given, python=python)
    assert code == 2 and expected in message and not pips
