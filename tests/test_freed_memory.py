"""Freed memory is used again instead of fetched anew; each case in a process of its own, which it changes."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from segearth import freed_memory
from segearth.freed_memory import VARIABLES

PROGRAM = """
import resource, torch
from segearth.freed_memory import keep_freed_memory
def faults(megabytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(megabytes * 1_000_000 // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
{setting}
faults(20), faults(60)  # a hole of the very size is too small: tensors are aligned
print(done, *(min(faults(size) for _ in range(4)) for size in (10, 50)))  # a small block may lie in a hole once
"""
SETTINGS = {
    'as it was': 'done = True',
    'limited': 'done = keep_freed_memory(limited=True)',
    'all': 'done = keep_freed_memory()',
    'all, then limited': 'done = keep_freed_memory() and keep_freed_memory(limited=True)',
}


def run(setting, **variables):
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | variables
    code = PROGRAM.format(setting=SETTINGS[setting])
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    answer, small, large = done.stdout.split()
    return answer == 'True', int(small), int(large)


def test_freed_memory_is_used_again():
    results = {name: run(name) for name in SETTINGS}
    if not all(answer for answer, _, _ in results.values()):
        pytest.skip('the C library is not glibc')
    _, _, before = results['as it was']
    if before < 100:
        pytest.skip('huge pages: too few to count')
    _, small, large = results['limited']
    assert small < 100 and large > before / 2
    for name in ('all', 'all, then limited'):
        _, small, large = results[name]
        assert small < 100 and large < before / 10


def test_the_environment_decides():
    assert not run('limited', MALLOC_MMAP_MAX_='65536')[0]


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc is of Linux')
@pytest.mark.parametrize('fault', ['refuses', 'missing', 'turned off'])
def test_a_c_library_that_refuses(fault, monkeypatch, caplog):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(freed_memory.MALLOC, '_verdicts', {})
    monkeypatch.setattr(freed_memory.MALLOC, '_said', set())
    monkeypatch.setattr(freed_memory, '_keeps_all', False)
    if fault == 'turned off':
        monkeypatch.setenv('SEGEARTH_MALLOC', '0')
    library = SimpleNamespace(mallopt=lambda option, value: 0) if fault == 'refuses' else SimpleNamespace()
    monkeypatch.setattr(freed_memory.ctypes, 'CDLL', lambda name: library)
    assert not any(freed_memory.keep_freed_memory(limited=True) for _ in range(2))
    assert len(caplog.records) == (fault != 'turned off')
    assert ('SEGEARTH_MALLOC=0' in caplog.text) is (fault != 'turned off')
