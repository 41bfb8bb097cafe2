from __future__ import annotations

import copy

import open_clip
import pytest
import torch
from huggingface_hub import ModelCard
from mmengine.config import Config
from open_clip.model import CLIP
from open_clip.transformer import QuickGELU

from segearth.alignearth.model import AlignEarthModel, build_student
from segearth.errors import ConfigError
from segearth.models.build import build_encoder
from segearth.models.checkpoints import read_state_dict
from segearth.models.dense_clip import DenseCLIP
from segearth.training.engine import train
from tests.processes import start_forked


@pytest.fixture
def teacher(tiny_clip):
    return dict(clip_type='Demo', clip_path=str(tiny_clip))


@pytest.fixture
def settings(pictures, teacher) -> Config:
    return Config(
        dict(
            default_scope='mmengine',
            model=dict(type='AlignEarthModel', teacher=teacher, size=32, radius=1),
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type='StepSampler'),
                collate_fn=dict(type='default_collate'),
                dataset=dict(type='PairDataset', optical=str(pictures / 'optical'), sar=str(pictures / 'sar'), size=32),
            ),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=8),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=3e-3)),
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=4, log_metric_by_epoch=False),
                sampler_seed=None,
                checkpoint=None,
            ),
            custom_hooks=[
                dict(type='SeedSteps'),
                dict(type='Monitor', interval=1),
                dict(type='Pictures', interval=8, num_images=1),
                dict(type='Checkpoints', interval=4),
            ],
            log_processor=dict(by_epoch=False),
            log_level='WARNING',
            load_from=None,
            resume=False,
        )
    )


def test_training_teaches_the_student_and_exports_a_whole_model(settings, tmp_path, teacher):
    before = build_encoder(**teacher)
    model = train(settings, tmp_path / 'run')
    losses = [float(line.split(',')[2]) for line in (tmp_path / 'run' / 'history.csv').read_text().splitlines()[1:]]
    assert min(losses[4:]) < losses[0]
    for name, value in model.teacher.state_dict().items():
        assert torch.equal(value, before.visual.state_dict()[name])
    images = torch.randn(1, 3, 32, 32)
    for suffix in ('pt', 'safetensors'):
        student = build_encoder('Demo', clip_path=str(tmp_path / 'run' / f'last.{suffix}'))
        assert student.fingerprint == before.fingerprint
        torch.testing.assert_close(student.visual(images), model.student.eval()(images))
    assert not torch.allclose(student.visual(images)[1], before.visual(images)[1])
    folder = tmp_path / 'run' / 'model_8'
    student = build_encoder(f'local-dir:{folder}')
    torch.testing.assert_close(student.visual(images), model.student(images))
    theirs = open_clip.create_model(f'local-dir:{folder}').eval()
    torch.testing.assert_close(student.text(['a road']), theirs.encode_text(open_clip.tokenize(['a road'], 32)))
    card = ModelCard.load(folder / 'README.md')
    assert (card.data.library_name, card.data.license) == ('open_clip', '')
    for part in ("sensor='sar'", "attention='SegEarth'", '8 steps of 2', 'Apache-2.0', 'loss_dense at the end'):
        assert part in card.text
    assert str(tmp_path) not in card.text


def test_two_processes_train_as_one(settings, tmp_path):
    settings.optim_wrapper.optimizer = dict(type='SGD', lr=0.1)
    settings.train_cfg.max_iters = 3
    settings.custom_hooks = [hook for hook in settings.custom_hooks if hook['type'] != 'Pictures']
    train(copy.deepcopy(settings), tmp_path / 'one')
    settings.train_dataloader.batch_size = 1
    assert start_forked(lambda _: train(copy.deepcopy(settings), tmp_path / 'two', launcher='pytorch')) == [0, 0]
    one, two = (read_state_dict(tmp_path / run / 'last.pt') for run in ('one', 'two'))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize('trainable', ['all', 1, {'lora': 2}])
def test_what_trains_is_a_setting(teacher, trainable):
    torch.manual_seed(0)
    weights = dict(global_cosine=1, info_nce=1, dense=1, relational=1, blocks=1)
    model = AlignEarthModel(teacher, None, weights, blocks=(1,), trainable=trainable, size=32).train()
    batch = dict(
        optical=torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8),
        sar=torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8),
        valid=torch.ones(2, 32, 32, dtype=torch.bool),
    )
    losses = model(**batch)
    assert set(losses) == {f'loss_{name}' for name in weights}
    sum(losses.values()).backward()
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert moved
    assert all(name.startswith('student.') for name in moved)
    if trainable == 1:
        assert not any('resblocks.0' in name for name in moved)
    if trainable != 'all':
        assert 'student.visual.conv1.weight' not in moved
    if isinstance(trainable, dict):
        assert all(name.endswith(('.up', '.down')) for name in moved)


def test_adapters_are_merged_into_plain_weights(teacher, tmp_path):
    model = AlignEarthModel(teacher, trainable={'lora': 2}, size=32)
    with torch.no_grad():
        for name, parameter in model.student.named_parameters():
            if name.endswith('.up'):
                parameter.normal_(std=0.1)
    model.export(tmp_path, 'adapted')
    images = torch.randn(1, 3, 32, 32)
    plain = build_encoder('Demo', clip_path=str(tmp_path / 'adapted.pt')).visual
    torch.testing.assert_close(plain(images), model.student.eval()(images))


def test_the_activation_can_differ_from_the_teachers():
    """OpenAI's CLIP runs QuickGELU, the record AlignEarth GELU: the student is trained with what it is run with."""
    vision = {'image_size': 32, 'patch_size': 8, 'width': 32, 'head_width': 16, 'layers': 2}
    visual = CLIP(16, vision, {'width': 16, 'heads': 2, 'layers': 1}, quick_gelu=True).visual
    student = build_student(DenseCLIP(visual), {}, activation='gelu')
    assert {type(block.mlp.gelu) for block in student.visual.transformer.resblocks} == {torch.nn.GELU}
    assert {type(block.mlp.gelu) for block in visual.transformer.resblocks} == {QuickGELU}


@pytest.mark.parametrize(
    ('override', 'message'),
    [
        (dict(loss_weights={'l2': 1.0}), 'known: global_cosine'),
        (dict(loss_weights={'dense': 0.0}), 'one of them more than 0'),
        (dict(loss_weights={'blocks': 1.0}), 'numbers from 1 to 1'),
        (dict(trainable=5), 'from 1 to 2'),
        (dict(trainable='none'), "allowed: 'all'"),
        (dict(activation='relu'), 'known: gelu'),
        (dict(student={'layers': 2}), 'known: attention'),
        (dict(size=30), 'no multiple of the patch'),
    ],
)
def test_mistakes(teacher, override, message):
    with pytest.raises(ConfigError, match=message):
        AlignEarthModel(teacher, **{'size': 32, **override})
