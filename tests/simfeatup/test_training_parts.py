from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from simfeatup import UpsamplerError, build_upsampler
from simfeatup.downsampler import AttentionDownsampler, blur
from simfeatup.jitter import apply_jitter, draw_jitter
from simfeatup.training import Recipe, SimFeatUp
from simfeatup.training.losses import (
    ImageReconstruction,
    LearnedScale,
    crf_loss,
    entropy,
    project,
    random_projection,
    scaled_squared_error,
    total_variation,
)
from tests.conftest import GOLDEN


@pytest.fixture(scope='module')
def golden():
    return {name: torch.from_numpy(array) for name, array in np.load(GOLDEN / 'simfeatup_training.npz').items()}


def test_downsampler_is_the_original(golden):
    downsampler = AttentionDownsampler(8, 16, 4).eval()
    prefix = 'attention_downsampler|'
    weights = {name.removeprefix(prefix): value for name, value in golden.items() if name.startswith(prefix)}
    downsampler.load_state_dict(weights)
    output = downsampler(golden['attention_downsampler_input'])
    expected = golden['attention_downsampler_output_without_dropout']
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


def test_jitter_is_the_original(golden):
    cases = [name for name in golden if re.match(r'jitter_\d', name)]
    assert len(cases) == 4
    for name in cases:
        values = dict(part.split('=') for part in name.split('|')[1:])
        output = apply_jitter(
            golden['jitter_input'], int(values['max_pad']), float(values['zoom']), int(values['y']),
            int(values['x']), bool(int(values['flip'])),
        )  # fmt: skip
        torch.testing.assert_close(output, golden[name], atol=1e-4, rtol=1e-4)


def test_total_variation_is_the_original(golden):
    value = total_variation(golden['total_variation_input'])
    torch.testing.assert_close(value, golden['total_variation'], atol=1e-4, rtol=1e-4)


def test_chain_has_right_gradients():
    torch.manual_seed(0)
    upsampler = build_upsampler('jbu_one', 3, radius=1, key_dim=2).double().eval()
    downsampler = AttentionDownsampler(3, 4, 2).double().eval()
    features = torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    guidance = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    temperature, weight = upsampler.up.range_temp, downsampler.w

    def chain(features, *_):
        return downsampler(apply_jitter(upsampler(features, guidance), 2, 1.3, 1, 3, True))

    assert torch.autograd.gradcheck(chain, (features, temperature, weight), atol=1e-6)


def test_downsampler_weights_and_grids():
    torch.manual_seed(0)
    downsampler = AttentionDownsampler(5, 4, (2, 3)).eval()
    features = torch.randn(2, 5, 8, 12)
    output, weights = downsampler.downsample(features)
    assert output.shape == (2, 5, 2, 3)
    torch.testing.assert_close(weights.sum((1, 2)), torch.ones(2, 2, 3))
    assert torch.equal(output, downsampler(features))
    constant = torch.ones(1, 5, 8, 12)
    torch.testing.assert_close(downsampler(constant), torch.ones(1, 5, 2, 3))
    assert not torch.equal(downsampler.train()(features), output)
    with pytest.raises(UpsamplerError, match='cells of 4 pixels'):
        downsampler(torch.zeros(1, 5, 3, 8))


def test_overlapping_cells():
    downsampler = AttentionDownsampler(1, 4, 3, with_blur=False).eval()
    with torch.no_grad():
        for parameter in downsampler.parameters():
            parameter.zero_()
    ramp = torch.arange(10.0).expand(1, 1, 10, 10)
    torch.testing.assert_close(downsampler(ramp)[0, 0, 0], torch.tensor([1.5, 4.5, 7.5]))


def test_blur_keeps_constants():
    torch.testing.assert_close(blur(torch.ones(1, 2, 6, 7)), torch.ones(1, 2, 6, 7))


def test_jitter_without_anything_is_the_identity():
    images = torch.randn(1, 2, 6, 9)
    torch.testing.assert_close(apply_jitter(images, 0, 1.0, 0, 0, False), images)
    torch.testing.assert_close(apply_jitter(images, 2, 1.0, 2, 2, True), images.flip(3))


def test_draws_are_valid_and_repeatable():
    generator = torch.Generator().manual_seed(3)
    draws = [draw_jitter((8, 12), 3, 2.0, generator) for _ in range(60)]
    images = torch.randn(1, 1, 8, 12)
    for jitter in draws:
        assert jitter(images).shape == images.shape
        assert 1 <= jitter.zoom <= 2
    assert {jitter.flip for jitter in draws} == {True, False}
    assert any(jitter.zoom == 1 for jitter in draws)
    generator = torch.Generator().manual_seed(3)
    assert draws == [draw_jitter((8, 12), 3, 2.0, generator) for _ in range(60)]


@pytest.mark.parametrize(('zoom', 'y', 'message'), [(0.9, 0, 'zoom of 1'), (1.0, 5, 'allowed: 0 to 4')])
def test_jitter_errors(zoom, y, message):
    with pytest.raises(UpsamplerError, match=message):
        apply_jitter(torch.zeros(1, 1, 6, 6), 2, zoom, y, 0, False)


def test_terms():
    torch.manual_seed(0)
    features = torch.randn(2, 6, 4, 5)
    scale = LearnedScale(6)(features)
    assert scale.shape == (2, 1, 4, 5)
    assert (scale > 0).all()
    one = torch.ones(2, 1, 4, 5)
    assert scaled_squared_error(features, features, one).item() == 0
    assert scaled_squared_error(features + 2, features, one).item() == pytest.approx(2)
    projection = random_projection(2, 6, 3, features)
    torch.testing.assert_close(projection.norm(dim=1), torch.ones(2, 3))
    assert project(features, projection).shape == (2, 3, 4, 5)
    assert project(features, None) is features
    images = ImageReconstruction(6)(features)
    assert images.shape == (2, 3, 4, 5)
    assert images.abs().max() < 1
    assert total_variation(torch.ones(1, 2, 4, 4)).item() == 0
    assert entropy(torch.full((1, 2, 2, 3, 3), 0.25)).item() == pytest.approx(math.log(4))


def test_crf_prefers_edges_of_the_image():
    torch.manual_seed(0)
    guidance = torch.zeros(1, 3, 16, 16)
    guidance[..., 8:] = 3
    along = torch.cat([guidance[:, :1], 3 - guidance[:, :1]], 1)
    assert crf_loss(guidance, along, 200) < crf_loss(guidance, along.transpose(2, 3), 200)


def test_objective_trains_the_upsampler_and_undoes_its_scale():
    torch.manual_seed(0)
    recipe = Recipe(2, max_pad=2, crf_weight=1.0, tv_weight=1.0, entropy_weight=1.0, projection_dim=2)
    objective = SimFeatUp(build_upsampler('jbu_one', 3, radius=1, key_dim=2), 3, 4, (4, 4), recipe)
    images = torch.randn(2, 3, 16, 16)

    def encode(images):
        return 5 * torch.nn.functional.avg_pool2d(images, 4)

    objective.calibrate(encode, images)
    losses = objective(encode, images)
    assert {name.removeprefix('loss_') for name in losses} == {'features', 'reconstruction', 'crf', 'tv', 'entropy'}
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in objective.parameters())
    objective.eval()
    released = build_upsampler('jbu_one', 3, radius=1, key_dim=2).eval()
    weights = objective.released_weights()
    released.load_state_dict({name.removeprefix('upsampler.'): value for name, value in weights.items()})
    expected = objective.feature_scale * objective.upsample(encode(images), images)
    torch.testing.assert_close(released(encode(images), images), expected)


def test_checkpointing_changes_memory_alone():
    torch.manual_seed(0)
    upsampler = build_upsampler('bilinear', 3)
    images, gradients = torch.randn(1, 3, 16, 16), []
    for with_checkpointing in (False, True):
        torch.manual_seed(1)
        objective = SimFeatUp(upsampler, 3, 4, (4, 4), Recipe(2, 2, with_checkpointing=with_checkpointing))
        sum(objective(lambda x: torch.nn.functional.avg_pool2d(x, 4), images).values()).backward()
        gradients.append([parameter.grad for parameter in objective.parameters()])
    torch.testing.assert_close(*gradients)


def test_objective_errors():
    with pytest.raises(UpsamplerError, match='1 or more'):
        SimFeatUp(build_upsampler('bilinear', 3), 3, 4, (4, 4), Recipe(num_jitters=0))
    with pytest.raises(UpsamplerError, match='without calibration'):
        objective = SimFeatUp(build_upsampler('bilinear', 3), 3, 4, (4, 4))
        objective.calibrate(lambda images: images, torch.zeros(1, 3, 16, 16))
