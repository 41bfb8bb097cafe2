"""Compiled loops on disk: never those of another state of the package, and no obstacle where they cannot be kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from simfeatup.ops.cpu import cache

PROGRAM = 'from simfeatup.ops.cpu import cache, one; print(one.first(1.0)); print(cache.cache_folder())'
FIRST = """
from simfeatup.ops.cpu.parallel import compiled
from simfeatup.ops.cpu.two import second


@compiled
def first(value):
    return second(value) + 1
"""
SECOND = """
from simfeatup.ops.cpu.parallel import compiled

CONSTANT = {}


@compiled
def second(value):
    return value * CONSTANT
"""


@pytest.fixture
def copy(tmp_path):
    """A copy of what compiles loops, with two loops, one of which calls the other; torch would only cost time."""
    root = tmp_path / 'copy'
    (root / 'simfeatup/ops/cpu').mkdir(parents=True)
    for name in ('torch.py', 'simfeatup/__init__.py', 'simfeatup/ops/__init__.py'):
        (root / name).touch()
    for name in ('__init__', 'cache', 'parallel'):
        shutil.copy(Path(cache.__file__).with_name(f'{name}.py'), root / 'simfeatup/ops/cpu')
    (root / 'simfeatup/ops/cpu/one.py').write_text(FIRST)
    (root / 'simfeatup/ops/cpu/two.py').write_text(SECOND.format(10))
    return root


def start(root, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(('NUMBA_', 'XDG_'))}
    environment |= {'PYTHONPATH': str(root), 'HOME': str(root / 'home'), 'OMP_NUM_THREADS': '1'} | variables
    command = [sys.executable, '-W', 'ignore', '-c', PROGRAM]
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}
    return subprocess.Popen(command, env=environment, cwd=root, text=True, **pipes)


def finish(process):
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    number, folder = output.split(maxsplit=1)
    return float(number), folder.strip()


def test_a_changed_module_is_compiled_anew(copy):
    number, folder = finish(start(copy))
    assert number == 11 and Path(folder).parent == copy / 'simfeatup/ops/cpu/__pycache__'
    kept = sorted(Path(folder).rglob('*.nbc'))
    times = [file.stat().st_mtime_ns for file in kept]
    assert len(kept) >= 2
    assert finish(start(copy)) == (11, folder)
    assert [file.stat().st_mtime_ns for file in kept] == times  # read, not written again
    stamp = (copy / 'simfeatup/ops/cpu/two.py').stat()
    (copy / 'simfeatup/ops/cpu/two.py').write_text(SECOND.format(20))
    os.utime(copy / 'simfeatup/ops/cpu/two.py', ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    for compiled_python in (copy / 'simfeatup/ops/cpu/__pycache__').glob('two.*.pyc'):
        compiled_python.unlink()  # Python's own, which goes by time and size
    number, other = finish(start(copy))
    assert number == 21 and other != folder


def test_two_processes_at_once(copy):
    processes = [start(copy) for _ in range(2)]
    assert len({finish(process) for process in processes}) == 1


def test_a_read_only_installation(copy):
    (copy / 'simfeatup/ops/cpu/__pycache__').write_text('a file in the place of the folder')
    number, folder = finish(start(copy, PYTHONDONTWRITEBYTECODE='1'))
    assert number == 11 and Path(folder).is_relative_to(copy / 'home/.cache/simfeatup')
    (copy / 'no_home').write_text('')
    number, folder = finish(start(copy, PYTHONDONTWRITEBYTECODE='1', HOME=str(copy / 'no_home')))
    assert (number, folder) == (11, 'None')
    number, folder = finish(start(copy, PYTHONDONTWRITEBYTECODE='1', NUMBA_CACHE_DIR=str(copy / 'named')))
    assert number == 11 and Path(folder).parent == copy / 'named'


def test_damaged_files_are_compiled_anew(copy):
    _, folder = finish(start(copy))
    for file in (*Path(folder).rglob('*.nbc'), *Path(folder).rglob('*.nbi')):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert finish(start(copy)) == (11, folder)


def test_the_digest_follows_everything(tmp_path, monkeypatch):
    (tmp_path / 'a.py').write_text('x')
    digests = {cache.digest(tmp_path)}
    (tmp_path / 'a.py').write_text('y')
    digests.add(cache.digest(tmp_path))
    (tmp_path / 'a.py').rename(tmp_path / 'b.py')
    digests.add(cache.digest(tmp_path))
    for name, value in (('OPT', 1), ('CPU_NAME', 'of another name')):
        monkeypatch.setattr(cache.numba.config, name, value)
        digests.add(cache.digest(tmp_path))
    monkeypatch.setattr(cache.binding, 'get_host_cpu_name', lambda: 'another')
    digests.add(cache.digest(tmp_path))
    monkeypatch.setattr(cache.importlib.metadata, 'version', lambda name: '0')
    digests.add(cache.digest(tmp_path))
    assert len(digests) == 7


def test_old_folders_do_not_pile_up(tmp_path):
    folders = [tmp_path / f'{cache.PREFIX}{number}' for number in range(9)]
    for age, folder in enumerate(folders):
        folder.mkdir()
        os.utime(folder, (1000 - age, 1000 - age))
    (tmp_path / 'another').mkdir()
    cache._remove_old(tmp_path, folders[8])
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {folder.name for folder in [*folders[: cache.KEPT], folders[8]]} | {'another'}
