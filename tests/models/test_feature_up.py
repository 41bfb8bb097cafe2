from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from segearth.errors import ConfigError, MissingFileError
from segearth.models.feature_upsampler import RELEASED_UPSAMPLER, build_feature_upsampler
from segearth.weights.encoders import get_record
from segearth.weights.records import UPSAMPLER_WEIGHTS
from simfeatup import UpsamplerError, build_upsampler
from simfeatup.upsamplers.bilateral import JointBilateral
from simfeatup.upsamplers.jbu import JBUOne, JBUStack

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


def test_the_table_names_each_file_once():
    files = [record.file for record in UPSAMPLER_WEIGHTS]
    assert len(set(files)) == len(files)


def test_upsamplers_without_weights_are_in_eval_mode():
    assert not build_feature_upsampler({'model_name': 'bilinear'}, None, 4).training
