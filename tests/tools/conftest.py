from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from segearth.paths import PROJECT_ROOT

CONFIG = """
_base_ = '{root}/configs/cfg_demo.py'
model = dict(clip_path='{clip}', slide_crop=32, slide_stride=24, bg_idx=1, name_path='./own.txt')
test_pipeline = [
    dict(type='LoadOpticalImage'),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='LoadSegLabel'),
    dict(type='PackSegInputs'),
]
test_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(type='RoadValDataset', data_root='scenes', img_suffix='.png', pipeline=test_pipeline),
)
"""


@pytest.fixture
def scenes(tmp_path, monkeypatch, tiny_clip):
    """Road scenes of two sizes, a config and two files of class words."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for folder, top, channels in (('img_dir', 256, (3,)), ('ann_dir', 2, ())):
        (tmp_path / 'scenes' / folder).mkdir(parents=True)
        for index, size in enumerate(((50, 60), (40, 30))):
            array = random.integers(0, top, (*size, *channels), dtype=np.uint8)
            Image.fromarray(array).save(tmp_path / 'scenes' / folder / f'{index}.png')
    config = CONFIG.format(root=PROJECT_ROOT, clip=tiny_clip)
    (tmp_path / 'cfg_mine.py').write_text(config)
    (tmp_path / 'own.txt').write_text('background,field\nroad\n')
    (tmp_path / 'other.txt').write_text('ground\nroad,street,way\n')
    return tmp_path
