"""The report for bug reports: whole, plain in a pipe, and never broken by what is broken."""

from __future__ import annotations

import sys

import pytest

from segearth import commands, doctor


def test_the_report(capsys, monkeypatch):
    monkeypatch.setenv('HF_TOKEN', 'a secret')
    monkeypatch.setenv('SEGEARTH_DATA', '/some/where')
    commands.main(['doctor'])
    text = capsys.readouterr().out
    lines = text.splitlines()
    for section, _, _ in doctor.CHECKS:
        assert any(line.startswith(f'{section}: ') for line in lines)
    assert 'unknown (' not in text
    ready = next(line for line in lines if line.startswith('weights: ready: '))
    assert 'Demo' in ready and 'DemoSAR' in ready
    assert 'environment: SEGEARTH_DATA: /some/where' in lines
    assert 'a secret' not in text and '\x1b' not in text
    assert any(line.startswith("fast paths: oneDNN's own operators: ") for line in lines)
    assert any(line.startswith('fast paths: numba: ') for line in lines)


def test_what_is_missing_stops_nothing(capsys, monkeypatch):
    for module in ('psutil', 'numba', 'huggingface_hub', 'segearth.weights.sources', 'segearth.models.residual_block'):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv('SIMFEATUP_SPARSE', 'perhaps')
    doctor.run([])
    lines = capsys.readouterr().out.splitlines()
    for name in ('memory', 'compiler', 'folders', 'encoders', 'encoder paths', 'upsampler paths'):
        assert sum(f': {name}: unknown (' in line for line in lines) == 1, name
    assert any(line.startswith('precision: bf16') for line in lines)


def test_what_is_turned_off_is_named(capsys, monkeypatch):
    monkeypatch.setenv('SEGEARTH_ONEDNN', '0')
    monkeypatch.setenv('SIMFEATUP_NUMBA', 'off')
    doctor.run([])
    text = capsys.readouterr().out
    assert "oneDNN's own operators: turned off by SEGEARTH_ONEDNN" in text
    assert 'numba: turned off by SIMFEATUP_NUMBA' in text


def test_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(doctor, 'CHECKS', (('things', 'thing', lambda: 'a [b]'),))
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True, raising=False)
    doctor.run([])
    assert 'a [b]' in capsys.readouterr().out


@pytest.mark.parametrize('run', [doctor.run, lambda arguments: commands.main(['doctor', *arguments])])
def test_help(run, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(['--help'])
    assert stopped.value.code == 0 and 'usage' in capsys.readouterr().out
