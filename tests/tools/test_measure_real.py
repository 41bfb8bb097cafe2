"""Tables on real tiles: their counts, and a page of LoveDA's three where they are at hand."""

import measure_real
import numpy as np
import pytest
from studies.ablation_measures import Outcome


def test_a_line_has_the_mean_its_interval_and_the_classes_that_occur():
    counts = np.zeros((1, 4, 3, 3), np.int64)
    counts[..., 0, 0], counts[..., 0, 1], counts[..., 1, 1] = 30, 10, 40
    outcome = Outcome(counts, 1.25)
    assert measure_real.describe(outcome, ('land', 'water', 'snow')) == '77.5 (77.5 to 77.5): land 75, water 80; 1.2 s'
    assert measure_real.most_frequent(outcome) == pytest.approx(100 * (0 + 0.5) / 2)


def test_page_of_real_tiles(samples, tmp_path, monkeypatch):
    monkeypatch.setenv('SEGEARTH_SAMPLES', str(samples))
    tables = {'Encoder': {'Mini': {}}, 'Lambda': {'-0.3': {'model.cls_token_lambda': -0.3}}}
    monkeypatch.setattr(measure_real, 'TABLES', tables)
    page = tmp_path / 'real.md'
    measure_real.main(['configs/cfg_real_loveda.py', '--tables', *tables, '--page', str(page)])
    lines = page.read_text().splitlines()
    assert '| Encoder | loveda |' in lines and '## Lambda' in lines
    measured = [line for line in lines if line.startswith(('| Mini', '| -0.3'))]
    assert len(measured) == 2 and all('background' in line and 'water' in line for line in measured)
    assert any(line.startswith('| most frequent class everywhere | 7.9') for line in lines)
