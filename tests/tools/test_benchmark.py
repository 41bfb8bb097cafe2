from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import tools.benchmark as program
from segearth.errors import ConfigError

HOOKS = """
import torch

class Enlarge(torch.nn.Module):
    def forward(self, features, guidance):
        return torch.nn.functional.interpolate(features, guidance.shape[-2:])

def build(dim):
    return Enlarge()

def fail(dim):
    raise RuntimeError('no room')

name = 'Enlarge'
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the program on a small image, its workers as threads."""
    (tmp_path / 'own_hooks.py').write_text(HOOKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(program, 'ProcessPoolExecutor', lambda n, _, **settings: ThreadPoolExecutor(n, **settings))
    monkeypatch.setattr(program, 'keep_freed_memory', lambda limited=False: None)

    def main(*arguments):
        places = ['--encoder', 'Demo', '--repeats', '1', '--words', '2', '--out', str(tmp_path / 'out')]
        monkeypatch.setattr(sys, 'argv', ['benchmark.py', *places, *arguments])
        program.main()
        return tmp_path / 'out'

    return main


def test_table_and_files(run, monkeypatch, capsys):
    kept = []
    monkeypatch.setattr(program, 'keep_freed_memory', lambda limited=False: kept.append(limited))
    variants = ['none', 'naf', 'mine']
    out = run('--size', '64', '48', '--variants', *variants, '--hook', 'own_hooks:build')
    assert kept == [True] * 3
    printed = capsys.readouterr().out
    assert all(word in printed for word in (*variants, 'kernels', 'whole image', 'peak memory'))
    content = json.loads((out / 'benchmark.json').read_text())
    assert [result['name'] for result in content['results']] == variants
    assert [('kernels' in result['stages']) for result in content['results']] == [False, True, False]
    assert content['conditions']['size'] == [64, 48]
    assert (out / 'benchmark.png').stat().st_size > 1000


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--size', '0'], '--size takes one or two positive numbers'),
        (['--size', '64', '64', '64'], '--size takes one or two positive numbers'),
        (['--variants', 'wrong'], 'unknown variant .wrong.; known: jbu_one'),
        (['--variants', 'mine', '--hook', 'own_hooks'], "--hook is 'own_hooks'; expected module:function"),
        (['--variants', 'mine', '--hook', 'own_hooks:nothing'], 'expected module:function'),
        (['--variants', 'mine', '--hook', 'nowhere:build'], 'expected module:function'),
        (['--variants', 'mine', '--hook', 'own_hooks:name'], 'expected a function, not a str'),
        (['--variants', 'mine', '--hook', 'own_hooks:fail'], r'fail\(128\), .* failed \(RuntimeError: no room\)'),
    ],
)
def test_mistakes(run, arguments, message):
    with pytest.raises(ConfigError, match=message):
        run(*arguments)
