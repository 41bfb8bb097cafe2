from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from simfeatup import UpsamplerError, build_upsampler
from simfeatup.training import start_as_filter


@pytest.fixture
def images():
    """Patches of few colours, a little noise."""
    generator = torch.Generator().manual_seed(1)
    patches = F.interpolate(torch.randn(2, 3, 8, 10, generator=generator), (64, 80))
    return patches + 0.05 * torch.randn(patches.shape, generator=generator)


def difference(upsampler, reference, images):
    features = torch.randn(2, 4, 4, 5, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return float((upsampler.eval()(features, images) - reference(features, images)).square().mean())


@pytest.mark.parametrize('name', ['jbu_one', 'jbu_stack'])
def test_starts_near_the_filter(name, images):
    torch.manual_seed(0)
    upsampler = build_upsampler(name, 4, radius=2)
    reference = build_upsampler('joint_bilateral', 4, radius=2)
    before = difference(upsampler, reference, images)
    divergence = start_as_filter(upsampler.train(), images, num_steps=100)
    assert upsampler.training
    assert 0 <= divergence < 0.1
    assert difference(upsampler, reference, images) < 0.1 * before
    assert not any(parameter.grad is not None and parameter.grad.any() for parameter in upsampler.parameters())


def test_the_same_every_time(images):
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        upsampler = build_upsampler('jbu_one', 4, radius=1, key_dim=4)
        start_as_filter(upsampler, images, num_steps=3)
        weights.append(upsampler.state_dict())
        torch.randn(5)  # the fit neither reads nor moves torch's own randomness
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize(
    ('name', 'size', 'message'), [('bilinear', (64, 80), 'Bilinear cannot start'), ('jbu_one', (64, 20), '28 pixels')]
)
def test_mistakes(name, size, message, images):
    with pytest.raises(UpsamplerError, match=message):
        start_as_filter(build_upsampler(name, 4), images[..., : size[0], : size[1]])


def test_at_least_one_step(images):
    with pytest.raises(UpsamplerError, match='num_steps of the start is 0'):
        start_as_filter(build_upsampler('jbu_one', 4), images, num_steps=0)
