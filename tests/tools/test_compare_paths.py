from __future__ import annotations

import pytest
from mmengine.registry import init_default_scope

from segearth.errors import ConfigError
from segearth.evaluation.configuration import build_dataset, load_config
from segearth.evaluation.run import evaluate
from segearth.evaluation.settings_sweep import compare_scoring
from tools import compare_paths as program


@pytest.fixture
def settings(scenes):
    init_default_scope('mmseg')
    return load_config('cfg_mine.py', {'model.feature_up_cfg.model_name': 'joint_bilateral'})


def test_the_fast_path_is_the_plain_one_and_ranks_are_not(settings):
    dataset = build_dataset(settings.test_dataloader.dataset, None)
    plain, exact, full, low = compare_scoring(settings, dataset, [999, 1])
    names = ['plain path', 'few channels, exact', 'rank 999', 'rank 1']
    assert [entry.name for entry in (plain, exact, full, low)] == names
    assert plain.score_difference == 0 == plain.changed
    assert exact.score_difference < 1e-5
    assert full.score_difference < 1e-5  # more than there are tokens: nothing is left out
    assert low.score_difference > 1e-3
    assert {entry.pixels for entry in (plain, exact, full, low)} == {50 * 60 + 40 * 30}
    row = evaluate('cfg_mine.py', overrides={'model.feature_up_cfg.model_name': 'joint_bilateral'})
    assert exact.mean_iou == pytest.approx(row.summary['mIoU'], abs=0.005)


def test_without_the_plain_path(settings, capsys):
    program.main(['cfg_mine.py', '--without-plain', '--ranks', '2', '2', '--limit', '1'])
    printed = capsys.readouterr().out
    assert 'plain path' not in printed
    assert printed.count('rank 2') == 1
    assert '1 images; compared with: few channels, exact' in printed


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--ranks', '4', '0'], '--ranks 0'),
        (['--limit', '0'], '--limit 0'),
        (['--cfg-options', 'model.feature_up=False'], 'with an upsampler'),
    ],
)
def test_mistakes(scenes, arguments, message):
    with pytest.raises(ConfigError, match=message):
        program.main(['cfg_mine.py', *arguments])
