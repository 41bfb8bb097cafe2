from __future__ import annotations

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / 'images' / 'deeper'
    folder.mkdir(parents=True)
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 255, (40, 20 + 20 * index, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f'{index}.png')
    return tmp_path / 'images'


@pytest.fixture
def micro(photographs, tiny_clip) -> Config:
    """A training of seconds: 6 steps on 32 x 32 crops."""
    return Config(
        dict(
            default_scope='mmengine',
            model=dict(
                type='SimFeatUpModel',
                encoder=dict(clip_type='Demo', clip_path=str(tiny_clip)),
                upsampler=dict(name='jbu_one', radius=1, key_dim=4),
                size=32,
                recipe=dict(num_jitters=1, max_pad=4, projection_dim=4),
            ),
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type='StepSampler'),
                collate_fn=dict(type='default_collate'),
                dataset=dict(type='ImageFolder', root=str(photographs), size=32),
            ),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=6),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='NAdam', lr=1e-3)),
            param_scheduler=[dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=6)],
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=2, log_metric_by_epoch=False),
                param_scheduler=dict(type='ParamSchedulerHook'),
                sampler_seed=None,
                checkpoint=None,
            ),
            custom_hooks=[
                dict(type='SeedSteps', seed=3),
                dict(type='Monitor', interval=1),
                dict(type='Checkpoints', interval=2, keep=2),
                dict(type='Calibration', num_images=2),
                dict(type='ClipFirstSteps', num_steps=2, max_norm=1e-4),
            ],
            randomness=dict(seed=0),
            log_processor=dict(by_epoch=False),
            log_level='WARNING',
            load_from=None,
            resume=False,
        )
    )


@pytest.fixture(autouse=True)
def plain_torch(monkeypatch):
    """Compiling loops takes longer than these tests."""
    monkeypatch.setenv('SIMFEATUP_BACKEND', 'reference')
