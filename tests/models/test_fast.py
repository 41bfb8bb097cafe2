"""The preset for speed: what it stands for, what wins against it, and that a map by blocks is the map in one piece."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from mmengine.config import Config

from segearth.commands import _parser, _segmenter_settings, main
from segearth.errors import ConfigError
from segearth.evaluation.row import build_row
from segearth.inference.settings import InferenceSettings
from segearth.inference.sliding_window import window_boxes
from segearth.maps.labelling import SegmenterModel, WindowGrid, label_block
from segearth.models import fast as preset
from segearth.models.build import resolve_precision
from segearth.models.open_vocabulary import build_segmenter
from segearth.models.segmentor import SegEarthSegmentation
from segearth.paths import find_file, weights_folders
from segearth.text.vocabulary import Vocabulary
from segearth.weights.encoders import ENCODERS

CPU = torch.device('cpu')
MINI = {'crop_size': (128, 128), 'stride': (104, 104), 'smooth_windows': True, 'score_rank': 16}
UPSAMPLER = {'model_name': 'joint_bilateral', 'radius': 3, 'sigma_spatial': 0.8 * 5 / 3}


@pytest.fixture
def build(tiny_clip):
    """Builds a segmenter with the tiny encoder, whose patches have 8 pixels."""

    def build(clip_type='Demo', **settings):
        vocabulary = Vocabulary.from_classes('road; water')
        return build_segmenter(vocabulary, clip_type, clip_path=str(tiny_clip), **settings)[0]

    return build


def test_it_equals_the_settings_that_it_stands_for(build, caplog):
    precision = preset.fast_precision('auto', CPU)
    with caplog.at_level(logging.INFO, 'segearth'):
        fast = build('Mini', fast=True)
    told = 'windows of 128 x 128 pixels at stride 104 x 104, smooth, joint_bilateral of radius 3, score_rank 16, '
    assert f'fast: {told}encoder in' in caplog.text
    spelled = build('Mini', precision=precision, feature_up_cfg=UPSAMPLER, **MINI)
    assert fast.settings == spelled.settings
    assert fast.encoder.dtype == spelled.encoder.dtype == resolve_precision(precision, 'cpu')
    image = torch.randint(0, 256, (1, 3, 150, 280), dtype=torch.uint8)
    assert torch.equal(fast(image)[0], spelled(image)[0])
    ordinary = build('Mini')
    assert ordinary.settings == InferenceSettings(crop_size=128, stride=64, cls_token_weight=0.0)
    assert ordinary.encoder.dtype == torch.float32


@pytest.mark.parametrize(('is_slow', 'expected'), [(True, 'fp32'), (False, 'bf16')])
def test_machines_that_map_together_compute_in_one_precision(monkeypatch, is_slow, expected):
    monkeypatch.setattr(preset, 'is_slow_on_cpu', lambda dtype: is_slow)
    decided = preset.decided_here({'fast': True, 'device': 'cpu', 'classes': 'road'})
    assert decided == {'fast': True, 'device': 'cpu', 'classes': 'road', 'precision': expected}
    assert preset.decided_here({'fast': True, 'device': 'cpu', 'precision': 'fp16'})['precision'] == 'fp16'
    assert preset.decided_here({'device': 'cpu'}) == {'device': 'cpu'}


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ({'stride': 112}, {'stride': (112, 112)}),
        ({'slide_stride': 64}, {'stride': (64, 64)}),
        ({'crop_size': 220}, {'crop_size': (220, 220), 'stride': (176, 176)}),
        ({'slide_crop': (64, 32), 'stride': 16}, {'crop_size': (64, 32), 'stride': (16, 16)}),
        ({'crop_size': 4}, {'crop_size': (4, 4), 'stride': (4, 4)}),
        ({'crop_size': 0}, {'is_whole': True}),
        ({'smooth_windows': False}, {'smooth_windows': False, 'crop_size': (224, 224)}),
        ({'score_rank': None}, {'score_rank': None, 'smooth_windows': True}),
        ({'cls_token_lambda': -0.1}, {'cls_token_weight': -0.1, 'stride': (176, 176)}),
    ],
)
def test_what_is_given_wins(build, given, expected):
    settings = build(fast=True, **given).settings
    assert {name: getattr(settings, name) for name in expected} == expected
    assert not build(fast=False, **given).settings.smooth_windows


def test_a_precision_that_is_given_wins(build, monkeypatch):
    assert build(fast=True, precision='fp32').encoder.dtype == torch.float32
    for is_slow, dtype in ((True, 'auto'), (False, 'bf16')):
        monkeypatch.setattr(preset, 'is_slow_on_cpu', lambda _, is_slow=is_slow: is_slow)
        assert preset.fast_precision('auto', CPU) == dtype
        assert preset.fast_precision('auto', torch.device('cuda')) == 'auto'  # fp16


@pytest.mark.parametrize('value', ['yes', 1, None, 0.5])
def test_other_values_are_refused(build, value):
    with pytest.raises(ConfigError, match='fast is .*; allowed: true or false'):
        build(fast=value)


def test_strides_that_leave_gaps_are_refused_as_ever(build):
    with pytest.raises(ConfigError, match='slide_stride is 300 with slide_crop 224'):
        build(fast=True, stride=300)(torch.zeros(1, 3, 500, 500))


@pytest.mark.parametrize('record', ENCODERS, ids=lambda record: record.name)
def test_windows_of_every_encoder_are_whole_patches(record):
    patch = record.patch_size
    if record.model_config:
        path = find_file(record.model_config, weights_folders(), 'config', '')
        patch = json.loads(Path(path).read_text())['vision_cfg']['patch_size']
    elif record.architecture:
        patch = open_clip.get_model_config(record.architecture)['vision_cfg'].get('patch_size', 16)
    made = preset.fast_settings(record, (patch, patch), {})
    usual, settings = InferenceSettings(**record.settings), InferenceSettings(**(dict(record.settings) | made))
    assert settings.crop_size[0] % patch == settings.stride[0] % patch == 0
    assert settings.crop_size == usual.crop_size and settings.stride < settings.crop_size
    pixels = [
        len(window_boxes(4096, 4096, each.crop_size, each.stride)) * each.crop_size[0] ** 2
        for each in (usual, settings)
    ]
    assert pixels[0] > 1.8 * pixels[1]


def test_a_config_states_the_papers_windows_and_may_be_fast(tiny_clip):
    model = {'classes': 'road; water', 'clip_type': 'Demo', 'clip_path': str(tiny_clip), 'fast': True}
    made = SegEarthSegmentation(**model, slide_crop=224, slide_stride=112).core.settings
    assert made == SegEarthSegmentation(**model).core.settings
    assert (made.crop_size, made.stride, made.smooth_windows) == ((224, 224), (176, 176), True)
    assert SegEarthSegmentation(**model, slide_crop=128, slide_stride=64).core.settings == made  # another encoder's
    assert not SegEarthSegmentation(**model, smooth_windows=False).core.settings.smooth_windows
    ordinary = {'slide_crop': 224, 'slide_stride': 112}
    assert preset.of_config(ordinary) == ordinary


def test_a_map_by_blocks_is_the_map_in_one_piece(build):
    model = SegmenterModel(build(fast=True, crop_size=40))
    picture = np.random.default_rng(0).integers(0, 256, (150, 130, 3), dtype=np.uint8)
    grid = WindowGrid((150, 130), model.crop_size, model.stride, model.is_smooth)
    whole = label_block(model, picture, np.ones((150, 130), bool), (0, 0, 150, 130), grid, True)
    for y1, x1, y2, x2 in grid.blocks(64):
        top, left, bottom, right = grid.region((y1, x1, y2, x2))
        part = picture[top:bottom, left:right]
        block = label_block(model, part, np.ones(part.shape[:2], bool), (y1, x1, y2, x2), grid, True)
        assert (block['labels'] == whole['labels'][y1:y2, x1:x2]).all()
        np.testing.assert_allclose(block['scores'], whole['scores'][y1:y2, x1:x2], atol=2e-3)


def test_a_resumed_map_must_be_as_fast(build):
    told = [SegmenterModel(build(fast=fast)).describe() for fast in (False, True)]
    assert told[0]['score_rank'] is None and told[1]['score_rank'] == 16
    assert [each['upsampler']['layer.radius'] for each in told] == [5, 3]
    others = [build(feature_up_cfg={'model_name': 'joint_bilateral', 'sigma_range': 0.3}), build(feature_up=False)]
    others = [SegmenterModel(each).describe()['upsampler'] for each in others]
    assert others[1] == {} and others[0] != told[0]['upsampler'] and others[0]['kind'] == 'JointBilateral'


def test_options_of_the_upsampler_that_are_given_win(build):
    def layer(**options):
        made = build(fast=True, feature_up_cfg={'model_name': 'joint_bilateral', **options}).upsampler.layer
        return made.radius, made.sigma_range

    assert layer(radius=4)[0] == 4 and layer(sigma_spatial=0.5)[0] == 5
    assert layer(sigma_range=0.3) == (3, 0.3)
    bilinear = build(fast=True, feature_up_cfg={'model_name': 'bilinear'}).upsampler
    assert type(bilinear).__name__ == 'Bilinear' and build(fast=True, feature_up=False).upsampler is None


def test_the_command_maps_fast(tiny_clip, write, tmp_path, caplog):
    scene = write('scene.tif', np.random.default_rng(0).integers(1, 255, (3, 64, 64)).astype(np.uint8))
    words = ['--classes', 'road; water', '--encoder', 'Demo', '--clip-path', str(tiny_clip)]
    with caplog.at_level(logging.INFO, 'segearth'):
        main(['predict', str(scene), '--out', str(tmp_path / 'out'), '--fast', *words])
    assert 'fast: windows of 224 x 224' in caplog.text


def test_the_command_maps_a_config_fast():
    arguments = _parser().parse_args(['predict', 'a.tif', '--out', 'out', '--config', 'cfg_demo', '--fast'])
    settings = _segmenter_settings(arguments)
    assert settings['fast'] is True and not {'slide_crop', 'slide_stride'} & set(settings)


def test_a_row_of_results_tells_it_apart(tiny_clip, tmp_path):
    model = {'classes': 'road; water', 'clip_type': 'Demo', 'clip_path': str(tiny_clip)}
    model |= {'slide_crop': 224, 'slide_stride': 112}
    (tmp_path / 'a.py').touch()
    rows = []
    for changes in ({}, {'fast': True}):
        settings = {'model': model | changes, 'test_dataloader': {'dataset': {'type': 'DemoDataset'}}}
        config = Config(settings, filename=tmp_path / 'a.py')
        rows.append(build_row('run', config, SegEarthSegmentation(**config.model), {}, [], {}).summary)
    assert [(row['Window'], row['Stride']) for row in rows] == [('224', '112'), ('224', '176')]
    assert [row['Fast'] for row in rows] == [False, True] and rows[0]['Precision'] == 'float32'
    assert rows[0]['Settings'] != rows[1]['Settings']
