from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from simfeatup import UpsamplerError, build_upsampler, load_upsampler
from simfeatup.ops.operator import use_backend
from simfeatup.scoring import score, score_reference
from simfeatup.upsamplers.base import LinearUpsampler


def test_kernels_follow_the_formula():
    torch.manual_seed(0)
    upsampler = build_upsampler('joint_bilateral', 2, radius=1, sigma_spatial=0.7, sigma_range=0.5)
    guidance = torch.randn(1, 3, 5, 6)
    kernels = upsampler.layer.neighbour_weights(guidance)
    centre, right = guidance[0, :, 2, 3], guidance[0, :, 2, 4]
    expected = torch.exp(-(centre - right).square().sum() / 0.5 - 1 / (2 * 0.49))
    torch.testing.assert_close(kernels[0, 1, 2, 2, 3] / kernels[0, 1, 1, 2, 3], expected)
    torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(1, 5, 6))


@pytest.mark.parametrize('size', [(32, 48), (28, 42), (30, 31)])
def test_any_size_constants_and_scores(size):
    torch.manual_seed(0)
    upsampler = load_upsampler('joint_bilateral', 4, None)
    guidance = torch.randn(2, 3, *size)
    constant = torch.tensor([1.0, -2, 3, 0.5]).view(1, 4, 1, 1).expand(2, 4, 2, 3)
    torch.testing.assert_close(upsampler(constant, guidance), constant[..., :1, :1].expand(2, 4, *size))
    assert isinstance(upsampler, LinearUpsampler)
    features, texts = torch.randn(2, 4, 2, 3), F.normalize(torch.randn(3, 4), dim=1)
    fast, plain = (way(upsampler, features, guidance, texts) for way in (score, score_reference))
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ('size', 'grid', 'radius'), [((64, 48), (4, 3), 5), ((30, 37), (3, 4), 1), ((300, 20), (8, 9), 2)]
)
def test_compiled_kernels_are_the_plain_ones(size, grid, radius):
    torch.manual_seed(0)
    upsampler = build_upsampler('joint_bilateral', 2, radius=radius)
    guidance = torch.randn(2, 3, *size)
    compiled = upsampler.stages(guidance, grid)
    with use_backend('reference'):
        plain = upsampler.stages(guidance, grid)
    assert len(compiled) == len(plain)
    for ours, theirs in zip(compiled, plain, strict=True):
        torch.testing.assert_close(ours.kernels, theirs.kernels, atol=1e-6, rtol=1e-5)
        assert torch.equal(ours.rows, theirs.rows)
        assert torch.equal(ours.cols, theirs.cols)


def test_gradients_reach_the_guidance():
    torch.manual_seed(0)
    upsampler = build_upsampler('joint_bilateral', 1, radius=1)
    features, guidance = torch.randn(1, 1, 2, 2, dtype=torch.float64), torch.randn(1, 3, 4, 4, dtype=torch.float64)
    guidance.requires_grad_()
    with use_backend('reference'):
        assert torch.autograd.gradcheck(lambda image: upsampler(features, image), guidance)


def test_edges_of_the_image_stay():
    guidance = torch.zeros(1, 3, 32, 32)
    guidance[..., 16:] = 4
    features = torch.tensor([[0.0, 1.0], [0.0, 1.0]])[None, None]
    upsampled = build_upsampler('joint_bilateral', 1)(features, guidance)[0, 0, 16]
    smooth = build_upsampler('bilinear', 1)(features, guidance)[0, 0, 16]
    assert upsampled[17] - upsampled[14] > 2 * (smooth[17] - smooth[14])


def test_errors():
    with pytest.raises(UpsamplerError, match='sigmas above 0'):
        build_upsampler('joint_bilateral', 2, sigma_range=0)
    with pytest.raises(UpsamplerError, match='features of 2 channels'):
        build_upsampler('joint_bilateral', 2)(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 8, 8))
