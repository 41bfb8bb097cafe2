from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import simfeatup
from simfeatup import UpsamplerError, build_upsampler
from simfeatup.upsamplers.base import stage_sizes
from tests.conftest import GOLDEN

DIM = 8
SIZES = [((2, 3), (32, 48)), ((3, 2), (42, 28)), ((1, 2), (32, 64)), ((3, 2), (7, 9))]


def make(name, dim=DIM, **options):
    torch.manual_seed(0)
    return build_upsampler(name, dim, **options).eval()


@pytest.mark.parametrize('name', ['jbu_one', 'jbu_stack', 'bilinear'])
def test_golden_arrays(name):
    golden = np.load(GOLDEN / 'upsamplers.npz')
    source, guidance, expected = (torch.from_numpy(golden[f'{name}_{key}']) for key in ('source', 'guidance', 'output'))
    state = {key.split('|')[1]: torch.from_numpy(golden[key]) for key in golden.files if key.startswith(f'{name}|')}
    upsampler = make(name, source.shape[1])
    upsampler.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(upsampler(source, guidance), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('name', simfeatup.UPSAMPLERS)
@pytest.mark.parametrize(
    ('grid', 'size'), [((2, 3), (32, 48)), ((3, 2), (42, 28)), ((1, 2), (32, 64)), ((3, 2), (7, 9))]
)
def test_any_size_and_batch(name, grid, size):
    upsampler = make(name)
    features, guidance = torch.randn(2, DIM, *grid), torch.randn(2, 3, *size)
    with torch.no_grad():
        out = upsampler(features, guidance)
        alone = upsampler(features[1:], guidance[1:])
    assert out.shape == (2, DIM, *size)
    torch.testing.assert_close(out[1:], alone)


def test_stage_sizes():
    assert stage_sizes((14, 14), (224, 224)) == [(28, 28), (56, 56), (112, 112), (224, 224)]
    assert stage_sizes((16, 16), (224, 224)) == [(32, 32), (64, 64), (128, 128), (224, 224)]
    assert len(stage_sizes((7, 7), (224, 224))) == 5
    assert stage_sizes((7, 7), (224, 224), 4) == [(14, 14), (28, 28), (56, 56), (224, 224)]
    assert stage_sizes((4, 4), (6, 30), 4) == [(6, 8), (6, 16), (6, 30), (6, 30)]
    assert stage_sizes((4, 4), (4, 4)) == [(4, 4)]


@pytest.mark.parametrize('name', ['jbu_one', 'jbu_stack'])
def test_constant_features_stay_constant(name):
    """Normalised kernels sum to one; the MLP's share and the last convolution are silenced."""
    upsampler = make(name)
    for key, parameter in upsampler.named_parameters():
        if 'fixup_proj' in key:
            parameter.data.zero_()
    features = torch.arange(1.0, DIM + 1).reshape(1, DIM, 1, 1).expand(1, DIM, 2, 3)
    with torch.no_grad():
        out = upsampler(features, torch.randn(1, 3, 32, 48))
    torch.testing.assert_close(out, features[..., :1, :1].expand_as(out))


def test_layer_against_the_equations():
    """One layer, pixel by pixel, from the definition."""
    layer = make('jbu_one', radius=2).up
    guidance, features = torch.randn(1, 3, 6, 8), torch.randn(1, DIM, 3, 4)
    with torch.no_grad():
        keys = F.pad(layer.range_proj(guidance), [2] * 4, mode='reflect')[0]
        resized = F.pad(F.interpolate(features, (6, 8), mode='bicubic'), [2] * 4, mode='reflect')[0]
        y, x = 1, 6
        patch = keys[:, y : y + 5, x : x + 5]
        similarity = (patch * keys[:, y + 2, x + 2, None, None]).sum(0).flatten()
        offsets = torch.linspace(-1, 1, 5)
        spatial = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / 2).flatten()
        kernel = similarity.softmax(0) * spatial
        kernel = kernel / kernel.sum()
        mlp_input = torch.cat([kernel, guidance[0, :, y, x]])[None, :, None, None]
        kernel = kernel + 0.1 * layer.fixup_proj(mlp_input).flatten()
        expected = (resized[:, y : y + 5, x : x + 5].flatten(1) * kernel).sum(1)
        torch.testing.assert_close(layer(features, guidance)[0, :, y, x], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('name', simfeatup.UPSAMPLERS)
def test_gradients_reach_every_parameter(name):
    upsampler = build_upsampler(name, DIM)
    features = torch.randn(2, DIM, 2, 2, requires_grad=True)
    upsampler(features, torch.randn(2, 3, 8, 8)).square().sum().backward()
    assert all(tensor.grad is not None for tensor in (features, *upsampler.parameters()))


@pytest.mark.parametrize(
    ('name', 'dim', 'options', 'message'),
    [
        ('jbu', 4, {}, "no upsampler 'jbu'. Known: jbu_one, jbu_stack, bilinear, joint_bilateral, naf"),
        ('jbu_one', 0, {}, 'positive integer; got 0'),
        ('jbu_one', '4', {}, "positive integer; got '4'"),
        ('jbu_one', 4, {'depth': 2}, 'no option depth. Its options: radius, key_dim'),
        ('bilinear', 4, {'radius': 2}, 'Its options: none'),
        ('jbu_one', 4, {'key_dim': 0}, 'at least one channel'),
        ('jbu_stack', 4, {'radius': 0}, 'radius of at least 1; got 0'),
    ],
)
def test_building_errors(name, dim, options, message):
    with pytest.raises(UpsamplerError, match=message.replace('(', r'\(')):
        build_upsampler(name, dim, **options)


@pytest.mark.parametrize(
    ('features', 'guidance', 'message'),
    [
        ((1, DIM + 1, 2, 2), (1, 3, 8, 8), '8 channels; got 9'),
        ((2, DIM, 2, 2), (1, 3, 8, 8), 'one batch size'),
        ((1, DIM, 2, 2), (1, 1, 8, 8), 'one batch size'),
        ((DIM, 2, 2), (1, 3, 8, 8), 'one batch size'),
    ],
)
def test_input_errors(features, guidance, message):
    for name in ('jbu_one', 'bilinear', 'carafe'):
        with pytest.raises(UpsamplerError, match=message):
            make(name)(torch.zeros(features), torch.zeros(guidance))
