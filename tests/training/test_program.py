"""The command line of the training programs: what it does before it trains."""

from __future__ import annotations

import subprocess
import sys

import pytest

from segearth.training import program

COUNT_FAULTS = """
import resource, torch
from segearth.training.memory import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(50_000_000 // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
given_back = faults()
if keep_freed_memory():
    faults()
    print(given_back, faults())
"""


def test_freed_memory_is_used_again():
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', COUNT_FAULTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if not done.stdout:
        pytest.skip('the C library is not glibc')
    given_back, kept = map(int, done.stdout.split())
    assert kept < given_back / 10 or given_back < 100  # the latter where pages are huge


@pytest.mark.parametrize(('flags', 'keeps'), [([], True), (['--give-back-memory'], False)])
def test_memory_is_kept_unless_asked_otherwise(monkeypatch, flags, keeps):
    calls = []
    monkeypatch.setattr(program, 'keep_freed_memory', lambda: calls.append('keep'))
    monkeypatch.setattr(program, 'train', lambda *arguments: calls.append(arguments))
    program.main('Trains.', ['demo.py', '--work-dir', 'runs', *flags])
    assert calls == ['keep'] * keeps + [('demo.py', 'runs', {}, False)]
