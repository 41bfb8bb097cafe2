"""The curve of accuracy against speed: what lies on the front, the windows of a way, and a run that goes on."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import measure_front as program
import numpy as np
import pytest
import torch
from studies.ablation_measures import Outcome

from segearth.errors import ConfigError
from segearth.inference.settings import InferenceSettings
from segearth.models.build import resolve_precision
from segearth.models.dense_clip import DenseCLIP
from segearth.models.fast import fast_precision, fast_settings
from segearth.weights.encoders import get_record

DEMO, MINI, VIT = program.SUBJECTS


def test_nothing_beats_what_lies_on_the_front_in_both():
    points = {'slow': (1, 80), 'worse': (2, 70), 'middle': (3, 80), 'equal': (3, 79), 'quick': (9, 60)}
    assert program.front(points) == ['middle', 'quick']
    assert program.front({**points, 'slow': (1, 81)}) == ['slow', 'middle', 'quick']


@pytest.mark.parametrize('subject', [DEMO, MINI])
def test_windows_of_the_ways_are_whole_patches(subject):
    for name, way in program.WAYS.items():
        changes = way.changes(subject)
        crop, stride = changes['model.slide_crop'], changes.get('model.slide_stride', 0)
        assert crop % subject.patch == stride % subject.patch == 0 and stride <= crop, name
    settings = fast_settings(get_record(subject.name), (subject.patch, subject.patch), {})
    spelled = program.WAYS['stride 4/5, smooth'].changes(subject)
    assert settings['crop_size'] == (spelled['model.slide_crop'],) * 2
    assert settings['stride'] == (spelled['model.slide_stride'],) * 2


def test_a_run_measures_what_is_missing_and_goes_on(tmp_path, monkeypatch, capsys):
    calls = []

    def measure(config, changes):
        calls.append(changes)
        return Outcome(np.ones((1, 2, 2, 2), np.int64)), ('a', 'b')

    monkeypatch.setattr(program, 'measure', measure)
    monkeypatch.setattr(program, 'keep_freed_memory', lambda limited=False: None)
    monkeypatch.setattr(program, 'make_scene', lambda side: torch.zeros(1, 3, side, side))
    monkeypatch.setattr(program, 'SUBJECTS', (DEMO,))
    path = tmp_path / 'figures.json'
    arguments = ['--figures', str(path), '--side', '224', '--ways']
    program.main([*arguments, 'no upsampling'])
    known = json.loads(path.read_text())
    assert known['accuracy'] == {'cfg_demo': {'no upsampling': [33.33, 33.33, 33.33]}}
    assert known['times']['Demo']['no upsampling'] > 0 and len(calls) == 1
    known['times']['Demo']['no upsampling'] = 1
    path.write_text(json.dumps(known))
    program.main([*arguments, 'no upsampling', 'fast, no upsampling'])
    again = json.loads(path.read_text())
    assert len(calls) == 2 and calls[1]['model.fast'] is True
    assert again['times']['Demo']['no upsampling'] == 1 and again['times']['Demo']['fast, no upsampling'] > 1
    program.main([*arguments, 'fast, no upsampling', '--accuracy'])
    program.main([*arguments, 'no upsampling', '--times'])
    assert len(calls) == 2 and json.loads(path.read_text())['times']['Demo']['no upsampling'] > 1
    with pytest.raises(ConfigError, match='--side, --threads and --repeats must be 1 or more'):
        program.main(['--repeats', '0'])


def test_table_and_curve(tmp_path, monkeypatch):
    page = tmp_path / 'page.md'
    page.write_text(f'before\n{program.MARKS[0]}\nold\n{program.MARKS[1]}\nafter\n')
    monkeypatch.setattr(program, 'PAGE', page)
    ways = ('default', 'fast')
    configs = [config for subject in program.SUBJECTS for config in subject.configs]
    accuracy = {Path(config).stem: {way: [50.0, 49.0, 51.0] for way in ways} for config in configs}
    times = {subject.name: {'default': 1_000_000, 'fast': 3_000_000} for subject in program.SUBJECTS}
    program.write_page({'accuracy': accuracy, 'times': times})
    text = page.read_text()
    assert text.startswith('before\n') and text.endswith('after\n') and 'old' not in text
    line = next(line for line in text.splitlines() if line.startswith('| fast '))
    assert '**50.0** (49.0 to 51.0) | 3.000 (3.0 x)' in line
    assert (tmp_path / 'performance_front.png').stat().st_size > 1000


def test_an_encoder_of_random_weights_is_as_fast(monkeypatch, tiny_clip_model):
    tower = DenseCLIP(copy.deepcopy(tiny_clip_model.visual))
    monkeypatch.setattr(program, 'random_encoder', lambda name, dtype: tower.to(dtype))
    made = program.build(VIT, program.WAYS['fast'].changes(VIT))
    assert made.settings == InferenceSettings(**fast_settings(get_record(VIT.name), (16, 16), {}))
    assert made.encoder.dtype == resolve_precision(fast_precision('auto', torch.device('cpu')), 'cpu')
    assert program.build(VIT, program.WAYS['no upsampling'].changes(VIT)).upsampler is None
