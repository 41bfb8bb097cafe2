from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from segearth import Segmenter
from segearth.errors import ConfigError, DataError, MissingFileError
from segearth.models.feature_upsampler import RELEASED_UPSAMPLER, build_feature_upsampler
from segearth.weights.encoders import get_record
from segearth.weights.records import UPSAMPLER_WEIGHTS
from simfeatup import UpsamplerError, build_upsampler
from simfeatup.upsamplers.bilateral import JointBilateral
from simfeatup.upsamplers.jbu import JBUOne, JBUStack
from simfeatup.upsamplers.naf import NAF

CLIP, DEMO = get_record('CLIP', 'ViT-B/16'), get_record('Demo')


def save(upsampler, path):
    save_file({name: value.contiguous() for name, value in upsampler.state_dict().items()}, path)
    return str(path)


@pytest.mark.parametrize('record', [get_record('CLIP', 'ViT-L/14'), None])
def test_channels_that_the_released_weights_are_not_for(record):
    assert isinstance(build_feature_upsampler(None, record, 768), JointBilateral)


def test_released_weights_are_asked_for_where_they_fit(weights_folder):
    with pytest.raises(MissingFileError, match='download_weights'):
        build_feature_upsampler(None, CLIP, 512)
    torch.save(build_upsampler('jbu_one', 512).state_dict(), weights_folder / RELEASED_UPSAMPLER['model_path'])
    assert isinstance(build_feature_upsampler(None, CLIP, 512), JBUOne)


@pytest.mark.parametrize('settings', [None, {'model_name': 'jbu_stack', 'model_path': 'clip_jbu_stack_cocostuff.ckpt'}])
def test_the_embedded_encoder_needs_no_weights(settings):
    assert isinstance(build_feature_upsampler(settings, DEMO, 128), JointBilateral)
    assert isinstance(build_feature_upsampler(settings, DEMO, 512), JointBilateral)  # released, but for another encoder


def test_the_upsampler_of_the_repository_is_used_where_it_is_named():
    settings = {'model_name': 'jbu_one', 'model_path': 'demo/demo_jbu_one.safetensors'}
    assert isinstance(build_feature_upsampler(settings, DEMO, 128), JBUOne)
    assert isinstance(build_feature_upsampler(settings, DEMO, 16), JointBilateral)


def test_own_weights_are_never_replaced(weights_folder):
    path = save(build_upsampler('jbu_stack', 16), weights_folder / 'mine.safetensors')
    settings = {'model_name': 'jbu_stack', 'model_path': path}
    assert isinstance(build_feature_upsampler(settings, DEMO, 16), JBUStack)
    with pytest.raises(UpsamplerError, match='16 channels'):
        build_feature_upsampler(settings, CLIP, 512)


def test_what_cannot_be():
    with pytest.raises(ConfigError, match='unknown keys'):
        build_feature_upsampler({'name': 'jbu_one'}, None, 16)
    with pytest.raises(ConfigError, match='unknown keys.*sigma_range'):
        build_feature_upsampler({'model_name': 'bilinear', 'sigma_range': 1}, None, 16)
    with pytest.raises(ConfigError, match='must be numbers'):
        build_feature_upsampler({'model_name': 'joint_bilateral', 'sigma_range': 'wide'}, None, 16)
    with pytest.raises(ConfigError, match='known: jbu_one'):
        build_feature_upsampler({'model_name': 'jbu'}, None, 16)
    with pytest.raises(ConfigError, match='needs model_path'):
        build_feature_upsampler({'model_path': ''}, None, 16)
    with pytest.raises(MissingFileError, match='download_weights'):
        build_feature_upsampler({'model_path': 'nowhere.ckpt'}, None, 16)


def test_the_filter_takes_its_widths():
    settings = {'model_name': 'joint_bilateral', 'sigma_range': 0.7, 'radius': 2}
    upsampler = build_feature_upsampler(settings, None, 16)
    assert (upsampler.layer.sigma_range, upsampler.layer.radius) == (0.7, 2)


def test_naf_by_name(weights_folder):
    """One file for the features of every encoder, the embedded ones included; the base config names another's file."""
    settings = {'model_name': 'naf', 'model_path': RELEASED_UPSAMPLER['model_path']}
    for given in (settings, {'model_name': 'naf'}):
        with pytest.raises(MissingFileError, match=r'download_weights.*NAF" \(from https://github.com/valeoai/NAF'):
            build_feature_upsampler(given, CLIP, 512)
    torch.save(build_upsampler('naf', 4).state_dict(), weights_folder / 'naf_release.pth')
    for record, dim in ((CLIP, 512), (DEMO, 128), (None, 768)):
        upsampler = build_feature_upsampler(settings, record, dim)
        assert isinstance(upsampler, NAF) and upsampler.dim == dim and not upsampler.training
    mine = save(build_upsampler('naf', 4), weights_folder / 'mine.safetensors')
    (weights_folder / 'naf_release.pth').unlink()
    assert isinstance(build_feature_upsampler({'model_name': 'naf', 'model_path': mine}, CLIP, 512), NAF)


def test_anything_needs_no_file_and_takes_its_options():
    settings = {**RELEASED_UPSAMPLER, 'model_name': 'anything', 'num_steps': 3, 'learning_rate': 0.2}
    upsampler = build_feature_upsampler(settings, CLIP, 512)
    assert (upsampler.num_steps, upsampler.learning_rate, upsampler.training) == (3, 0.2, False)
    for wrong in ({'num_steps': '3'}, {'learning_rate': 'fast'}):
        with pytest.raises((ConfigError, UpsamplerError), match='must be numbers|num_steps=.3.'):
            build_feature_upsampler(settings | wrong, CLIP, 512)


OWN = """
import torch
from torch.nn import functional as F

class Enlarge(torch.nn.Module):
    def forward(self, features, guidance):
        return F.interpolate(features, guidance.shape[-2:])

def module(dim):
    return Enlarge()

def plain(dim):
    return lambda features, guidance: F.interpolate(features[:, :dim], guidance.shape[-2:])

def small(dim):
    return lambda features, guidance: features

def nothing(dim):
    return None

def half(dim):
    return lambda features, guidance: F.interpolate(features, guidance.shape[-2:]).half()

def of_one(dim):
    return lambda features: features

def array(dim):
    return lambda features, guidance: features.numpy()

def not_numbers(dim):
    return lambda features, guidance: F.interpolate(features, guidance.shape[-2:]) * float('nan')

def without_channels():
    return Enlarge()

number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Name of a module of the user's, new for each test."""
    name = f'own_{abs(hash(tmp_path))}'
    (tmp_path / f'{name}.py').write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.parametrize('function', ['module', 'plain', 'half'])
def test_an_upsampler_of_the_users_own(own, tiny_clip, function):
    feature_up = {**RELEASED_UPSAMPLER, 'model_name': f'{own}:{function}'}
    arguments = {'clip_type': 'Demo', 'clip_path': str(tiny_clip), 'resize': None}
    segmenter = Segmenter('water; road', **arguments, feature_up_cfg=feature_up)
    upsampler = segmenter.model.upsampler
    assert getattr(upsampler, 'training', False) is False
    image = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    scores = segmenter(image).scores
    nearest = Segmenter('water; road', **arguments, feature_up=False)
    nearest.model.upsampler = lambda features, guidance: torch.nn.functional.interpolate(features, guidance.shape[2:])
    np.testing.assert_allclose(scores, nearest(image).scores, atol=1e-2 if function == 'half' else 1e-6)


@pytest.mark.parametrize(
    ('function', 'kind', 'message'),
    [
        ('small', UpsamplerError, r'must make \(1, 16, 32, 32\), \(B, C, H, W\).*it made \(1, 16, 4, 4\)'),
        ('array', UpsamplerError, 'it made a ndarray, which is no tensor'),
        ('of_one', UpsamplerError, r'does not take \(features, guidance\)'),
        ('not_numbers', DataError, 'scores are not numbers'),
    ],
)
def test_results_that_cannot_be_scored(own, tiny_clip, function, kind, message):
    feature_up = {'model_name': f'{own}:{function}'}
    segmenter = Segmenter('water', 'Demo', clip_path=str(tiny_clip), resize=None, feature_up_cfg=feature_up)
    with pytest.raises(kind, match=message):
        segmenter(np.zeros((32, 32, 3), np.uint8))


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('nowhere.at_all:build', "model_name of feature_up_cfg is 'nowhere.at_all:build'; expected .*PYTHONPATH"),
        (':build', 'expected module:function that can be imported'),
        ('{own}:', "has no ''"),
        ('{own}:missing', "has no 'missing'"),
        ('{own}:number', 'expected a function, not a int'),
        ('{own}:nothing', 'it gave a NoneType'),
        ('{own}:without_channels', r'without_channels\(16\), for 16 channels, failed \(TypeError'),
    ],
)
def test_mistakes_in_its_name(own, name, message):
    with pytest.raises(ConfigError, match=message):
        build_feature_upsampler({'model_name': name.format(own=own)}, None, 16)


def test_a_model_folder_never_names_code(own, tmp_path):
    """What was downloaded may not run code, whatever its config says."""
    folder = tmp_path / 'model'
    folder.mkdir()
    save(build_upsampler('jbu_one', 16), folder / 'upsampler.safetensors')
    (folder / 'upsampler_config.json').write_text(json.dumps({'model_name': f'{own}:module'}))
    with pytest.raises(ConfigError, match='unknown upsampler .*:module. in local-dir:.*; known: jbu_one.*ifa$'):
        build_feature_upsampler({'model_path': f'local-dir:{folder}'}, None, 16)
    assert own not in sys.modules


def test_the_table_names_each_file_once():
    files = [record.file for record in UPSAMPLER_WEIGHTS]
    assert len(set(files)) == len(files)


def test_upsamplers_without_weights_are_in_eval_mode():
    assert not build_feature_upsampler({'model_name': 'bilinear'}, None, 4).training
