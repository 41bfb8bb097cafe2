from __future__ import annotations

import pytest

from segearth.paths import PROJECT_ROOT
from segearth.preparation.recipe import PROGRAMS
from segearth.published import published_images

TEXT = (PROJECT_ROOT / 'docs' / 'datasets.md').read_text(encoding='utf-8')
CONFIGS = sorted(path.name for path in (PROJECT_ROOT / 'configs').glob('cfg_*.py'))


@pytest.mark.parametrize('config', CONFIGS)
def test_each_config_has_a_row_with_its_count(config: str) -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith(f'| `{config}`')]
    if published_images(config):
        assert rows[0].rstrip(' |').split('| ')[-1] == str(published_images(config).count)
    else:
        assert config.startswith(('cfg_demo', 'cfg_real')) or 'not known' in rows[0]


def test_each_program_is_described() -> None:
    for program, recipes in PROGRAMS.items():
        assert f'{program}.py' in TEXT
        for name, recipe in recipes.items():
            assert name in TEXT
            assert recipe.data_folder in TEXT
            assert recipe.image_folder in TEXT or not recipe.is_benchmark
