from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from PIL import Image

from segearth.evaluation.row import ResultRow

BASE = Path(__file__).resolve().parents[2] / 'configs' / 'base_config.py'
CONFIG = f"""
_base_ = {str(BASE)!r}
model = dict(_delete_=True, type='ColourSegmentor', name_path='./words.txt')
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='WHUDataset',
        data_root='scenes',
        data_prefix=dict(img_path='img', seg_map_path='lab'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(48, 32), keep_ratio=True),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    ),
)
"""
NUM_IMAGES = 5
WRONG = 6 * 8  # pixels of the first image whose label is turned round


@MODELS.register_module(force=True)
class ColourSegmentor(BaseSegmentor):
    """Stands in for the segmentor: bright is building. A frozen parameter, as there."""

    interrupt_after: int | None = None

    def __init__(self, name_path: str | None = None, bg_idx: int = 0) -> None:
        super().__init__(data_preprocessor={'type': 'SegDataPreProcessor', 'mean': [0] * 3, 'std': [1] * 3})
        self.weight = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.num_seen = 0

    def predict(self, inputs: torch.Tensor, data_samples: Sequence[SegDataSample]) -> Sequence[SegDataSample]:
        for image, sample in zip(inputs, data_samples, strict=True):
            self.num_seen += 1
            if self.num_seen == ColourSegmentor.interrupt_after:
                raise KeyboardInterrupt
            labels = torch.nn.functional.interpolate((image[None, :1] > 127).float(), size=sample.ori_shape)
            sample.set_data({'pred_sem_seg': PixelData(data=labels[0].long())})
        return data_samples

    def _forward(self, inputs, data_samples=None):
        raise NotImplementedError

    loss = encode_decode = extract_feat = _forward


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """Working directory with cfg_scenes.py and five scenes of 32 x 48; the first has one wrong block."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ColourSegmentor, 'interrupt_after', None)
    random = np.random.default_rng(0)
    for folder in ('img', 'lab'):
        (tmp_path / 'scenes' / folder).mkdir(parents=True)
    for index in range(NUM_IMAGES):
        label = np.kron(random.integers(0, 2, (4, 6)), np.ones((8, 8))).astype(np.uint8)
        noise = random.integers(0, 30, (32, 48, 3))
        Image.fromarray((label[..., None] * 200 + noise).astype(np.uint8)).save(tmp_path / f'scenes/img/{index}.png')
        if index == 0:
            label[:6, :8] = 1 - label[:6, :8]
        Image.fromarray(label).save(tmp_path / f'scenes/lab/{index}.png')
    (tmp_path / 'words.txt').write_text('background\nbuilding,house\n')
    (tmp_path / 'cfg_scenes.py').write_text(CONFIG)
    return tmp_path


@pytest.fixture
def interrupt_after(monkeypatch):
    """Makes the stand-in behave as if Ctrl-C was pressed at its n-th image."""
    return lambda number: monkeypatch.setattr(ColourSegmentor, 'interrupt_after', number)


def make_row(run: str = 'r1', **summary) -> ResultRow:
    first = {
        'CLIP': 'Demo',
        'VIT': 'any',
        'MODEL': 'SegEarth',
        'Dataset': 'X',
        'aAcc': 50.0,
        'mIoU': 40.5,
        'mAcc': None,
    }
    return ResultRow(run, {**first, 'Config': 'cfg_x', **summary}, [('a', 12.5, 30.0), ('b', None, None)])


@pytest.fixture(name='make_row')
def make_row_fixture():
    return make_row
