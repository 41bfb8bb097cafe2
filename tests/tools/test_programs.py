"""Every program of the checkout runs from any folder where only the requirements are installed, not the package."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from segearth.paths import PROJECT_ROOT

PROGRAMS = sorted(
    path.relative_to(PROJECT_ROOT).as_posix()
    for path in (*PROJECT_ROOT.glob('eval*.py'), *(PROJECT_ROOT / 'tools').rglob('*.py'))
    if path.parent.name not in ('studies', 'segearth_qgis')  # modules of programs, and of QGIS
)
# Takes out what leads to this package: the finder that `pip install -e .` leaves, and folders that hold it.
WITHOUT_PACKAGE = """
import os, runpy, sys
from importlib.machinery import PathFinder
root, *programs = sys.argv[1:]
sys.meta_path[:] = [finder for finder in sys.meta_path if '__editable__' not in getattr(finder, '__module__', '')]
sys.path[:] = [path for path in sys.path if path and not os.path.isdir(os.path.join(path, 'segearth'))]
"""
WHERE_FOUND = """
import torch  # what takes long, before the forks

class Reporter:
    def find_spec(name, path=None, target=None):
        if name == 'segearth':
            spec = PathFinder.find_spec(name)
            print(program, spec and spec.origin, flush=True)
            os._exit(0)

for program in programs:
    if os.fork() == 0:
        sys.meta_path.insert(0, Reporter)
        sys.argv = [program, '--help']
        sys.path.insert(0, os.path.dirname(os.path.join(root, program)))  # as python does
        runpy.run_path(os.path.join(root, program), run_name='__main__')
        os._exit(1)
    os.wait()
"""


def run(code, folder, *programs):
    variables = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    command = [sys.executable, '-c', WITHOUT_PACKAGE + code, str(PROJECT_ROOT), *programs]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)


def test_every_program_finds_the_package_of_its_checkout(tmp_path):
    done = run(WHERE_FOUND, tmp_path, *PROGRAMS)
    found = dict(line.split(' ', 1) for line in done.stdout.splitlines() if line.startswith(tuple(PROGRAMS)))
    with_package = [name for name in PROGRAMS if 'import segearth' in text(name) or 'from segearth' in text(name)]
    assert len(with_package) > 15
    assert found == dict.fromkeys(with_package, str(PROJECT_ROOT / 'segearth' / '__init__.py')), done.stderr[-2000:]


@pytest.mark.parametrize('program', ['tools/dataset_converters/loveda.py', 'tools/predict.py'])
def test_a_program_without_the_package_installed(program, tmp_path):
    code = f"""
path = os.path.join(root, '{program}')
sys.argv = [path, '--help']
sys.path.insert(0, os.path.dirname(path))  # as python does
runpy.run_path(path, run_name='__main__')
"""
    done = run(code, tmp_path)
    assert done.returncode == 0 and done.stdout.startswith('usage:'), done.stderr[-2000:]


def text(name):
    return (PROJECT_ROOT / name).read_text(encoding='utf-8')
