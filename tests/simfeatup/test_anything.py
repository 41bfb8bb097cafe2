from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from simfeatup import UpsamplerError, build_upsampler
from simfeatup.scoring import score, score_reference
from simfeatup.upsamplers.anything import RADIUS, START
from simfeatup.upsamplers.base import LinearUpsampler
from simfeatup.upsamplers.neighbourhood import cell_means

GRID = 4, 5


def picture(batch=1, grid=GRID, patch=8):
    """Images with edges inside cells, and some noise."""
    torch.manual_seed(0)
    images = torch.randn(batch, 3, grid[0] * patch, grid[1] * patch) * 0.03
    images[:, :, :, grid[1] * patch // 2 + 2 :] += 1
    images[:, 1, grid[0] * patch // 2 - 3 :] -= 1.5
    return images


def rebuilt(image, **options):
    """The image upsampled from its cell means."""
    return build_upsampler('anything', 3, **options)(cell_means(image, GRID), image)


@pytest.mark.parametrize('is_inference', [True, False])
def test_a_pixel_by_hand(is_inference, monkeypatch):
    """One pixel from the definition, with Gaussians of all four numbers."""
    upsampler = build_upsampler('anything', 2)
    image, features = picture(), torch.randn(1, 2, *GRID)
    gaussians = upsampler.fit(image, GRID)
    assert gaussians.shape == (1, 4, *GRID)
    sy, sx, sr, angle = *gaussians[0, :3].exp(), gaussians[0, 3]
    low = F.avg_pool2d(image, 8)[0]
    y, x = 13, 18
    places = torch.meshgrid(torch.arange(4) + 0.5, torch.arange(5) + 0.5, indexing='ij')
    down, right = (y + 0.5) / 8 - places[0], (x + 0.5) / 8 - places[1]
    along, across = right * angle.cos() + down * angle.sin(), down * angle.cos() - right * angle.sin()
    colour = (image[0, :, y, x, None, None] - low).square().sum(0)
    logits = -(along**2) / (2 * sx**2) - across**2 / (2 * sy**2) - colour / (2 * sr**2)
    logits[(places[0] - 1.5).abs() > RADIUS] = -torch.inf
    logits[(places[1] - 2.5).abs() > RADIUS] = -torch.inf
    expected = (features[0] * logits.flatten().softmax(0).view(GRID)).sum((1, 2))
    with torch.inference_mode(is_inference):
        found = upsampler(features.clone(), image.clone())[0, :, y, x]
    torch.testing.assert_close(found.clone(), expected, atol=1e-4, rtol=1e-4)


def test_the_fit_explains_the_image():
    image = picture(patch=4)
    errors = [(rebuilt(image, **options) - image).abs().mean() for options in ({'num_steps': 1}, {'num_steps': 50})]
    smooth = F.interpolate(cell_means(image, GRID), image.shape[2:], mode='bilinear')
    assert errors[1] < 0.95 * errors[0] and errors[1] < 0.5 * (smooth - image).abs().mean()


def test_images_are_fitted_each_for_itself_and_always_alike():
    upsampler = build_upsampler('anything', 2)
    images = torch.cat([picture(), 3 * picture().flip(3), torch.zeros(1, 3, 32, 40)])
    together = upsampler.fit(images, GRID)
    assert torch.equal(together, upsampler.fit(images, GRID))
    for image, gaussians in zip(images, together, strict=True):
        torch.testing.assert_close(upsampler.fit(image[None], GRID)[0], gaussians, atol=1e-3, rtol=1e-3)


def test_a_constant_image():
    upsampler = build_upsampler('anything', 2)
    gaussians = upsampler.fit(torch.full((1, 3, 32, 40), 0.7), GRID)
    expected = torch.tensor([*START, 1]).log()[None, :, None, None].expand_as(gaussians)
    torch.testing.assert_close(gaussians, expected)  # nothing to fit
    features = torch.randn(1, 2, *GRID)
    assert upsampler(features, torch.full((1, 3, 32, 40), 0.7)).isfinite().all()


@pytest.mark.parametrize(('grid', 'patch'), [((9, 8), 16), ((2, 3), 14), ((3, 1), 32)])
def test_scores_and_constants(grid, patch):
    upsampler = build_upsampler('anything', 8, num_steps=5)
    assert isinstance(upsampler, LinearUpsampler) and not upsampler.state_dict()
    image, texts = picture(2, grid, patch), F.normalize(torch.randn(3, 8), dim=1)
    features = torch.randn(2, 8, *grid)
    with torch.inference_mode():
        fast, plain = (way(upsampler, features, image, texts) for way in (score, score_reference))
        constant = upsampler(features[:, :, :1, :1].expand_as(features), image)
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(constant, features[:, :, :1, :1].expand_as(constant), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_dtype_follows_the_input(dtype):
    upsampler = build_upsampler('anything', 2, num_steps=1)
    assert upsampler(torch.ones(1, 2, *GRID, dtype=dtype), picture().to(dtype)).dtype == dtype


def test_gradients_reach_the_features_alone():
    features, image = torch.randn(1, 2, *GRID, requires_grad=True), picture().requires_grad_()
    build_upsampler('anything', 2, num_steps=1)(features, image).sum().backward()
    torch.testing.assert_close(features.grad.sum(), torch.tensor(2 * 32 * 40.0))
    assert image.grad is None


@pytest.mark.parametrize('options', [{'num_steps': 0}, {'num_steps': 2.5}, {'learning_rate': 0}])
def test_errors(options):
    with pytest.raises(UpsamplerError, match='whole number of 1 or more, and a learning_rate above 0; got'):
        build_upsampler('anything', 2, **options)
