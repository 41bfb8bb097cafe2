"""The command line of the training programs: what it does before it trains."""

from __future__ import annotations

import pytest

from segearth.training import program


@pytest.mark.parametrize(('flags', 'keeps'), [([], True), (['--give-back-memory'], False)])
def test_memory_is_kept_unless_asked_otherwise(monkeypatch, flags, keeps):
    calls = []
    monkeypatch.setattr(program, 'keep_freed_memory', lambda: calls.append('keep'))
    monkeypatch.setattr(program, 'train', lambda *arguments: calls.append(arguments))
    program.main('Trains.', ['demo.py', '--work-dir', 'runs', *flags])
    assert calls == ['keep'] * keeps + [('demo.py', 'runs', {}, False)]
