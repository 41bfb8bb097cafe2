from __future__ import annotations

import pytest

from segearth.errors import ConfigError, MissingFileError
from segearth.evaluation.configuration import match_configs
from segearth.paths import PROJECT_ROOT
from segearth.published import ALL, GROUPS, NOT_IN_THE_PAPER, group_configs

SIZES = {'optical': 8, 'building': 4, 'road': 4, 'water': 1, 'sar': 9}


def test_every_config_is_in_one_group_and_none_is_missed():
    grouped = [path for group in GROUPS for path in group_configs(group)]
    assert {group: len(group_configs(group)) for group in GROUPS} == SIZES
    names = {path.stem for path in (PROJECT_ROOT / 'configs').glob('cfg_*.py')}
    everything = {name for name in names if not name.startswith(NOT_IN_THE_PAPER)}
    assert sorted(path.stem for path in grouped) == sorted(everything)
    assert grouped == group_configs(ALL)


def test_a_config_of_the_users_own_comes_last(tmp_path):
    for name in ('cfg_mine.py', 'cfg_wbs-si.py', 'cfg_loveda.py', 'cfg_demo.py', 'other.py'):
        (tmp_path / name).write_text('')
    assert [path.stem for path in group_configs(ALL, tmp_path)] == ['cfg_loveda', 'cfg_wbs-si', 'cfg_mine']
    assert [path.stem for path in group_configs('optical', tmp_path)] == ['cfg_loveda']
    with pytest.raises(MissingFileError, match="no configs of the group 'sar'"):
        group_configs('sar', tmp_path)
    with pytest.raises(ConfigError, match='optical, building, road, water, sar, all'):
        group_configs('radar')


def test_patterns_and_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'cfg_mine.py').write_text('')
    found = match_configs(['cfg_mine.py', 'cfg_*_road.py', str(tmp_path / 'cfg_m*.py'), 'configs/cfg_demo.py'])
    names = ['cfg_mine', 'cfg_deepglobe_road', 'cfg_massachusetts_road', 'cfg_spacenet_road', 'cfg_demo']
    assert [path.stem for path in found] == names
    with pytest.raises(MissingFileError, match="no config matches 'cfg_lunar.*'"):
        match_configs(['cfg_lunar*.py'])
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'sub' / 'cfg_mine.py').write_text('')
    with pytest.raises(ConfigError, match='two configs are called cfg_mine'):
        match_configs(['cfg_mine.py', 'sub/cfg_mine.py'])
