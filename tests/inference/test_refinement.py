import pytest
import torch
import torch.nn.functional as F

from segearth.errors import ConfigError
from segearth.inference.refinement import REFINEMENTS, edge_weights, laplacian, propagate, solve_change
from segearth.inference.settings import InferenceSettings

SCALE = 50.0


def words(count=3, channels=8, seed=0):
    return F.normalize(torch.randn(count, channels, generator=torch.Generator().manual_seed(seed)), dim=-1)


def noise(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('grid', [(4, 5), (1, 6), (6, 1), (1, 1), (2, 2)])
def test_the_solution_is_that_of_the_dense_system(grid):
    scores, confidence = noise(2, 3, *grid), noise(2, 1, *grid, seed=2) + 0.05
    edges = edge_weights(noise(2, 1, *grid, seed=3), torch.eye(3), scores.argmax(1, keepdim=True))
    count = grid[0] * grid[1]
    units = torch.eye(count).reshape(1, count, *grid).expand(2, -1, -1, -1)
    matrices = laplacian(units, edges).flatten(2)  # (2, N, N), symmetric
    torch.testing.assert_close(matrices, matrices.mT)
    assert (matrices - torch.diag_embed(matrices.diagonal(dim1=1, dim2=2)) <= 0).all()
    weights = confidence.flatten(2)
    systems = (matrices + torch.diag_embed(weights[:, 0])).double()
    expected = torch.linalg.solve(systems, (weights * scores.flatten(2)).double().mT).mT
    solved = scores.flatten(2) + solve_change(scores, confidence, edges, num_steps=60).flatten(2)
    torch.testing.assert_close(solved, expected.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('size', [(40, 56), (3, 4), (1, 1), (2, 60)])
def test_constant_scores_stay_constant(size):
    scores = torch.tensor([0.2, 0.1, -0.1])[None, :, None, None].expand(2, -1, *size)
    assert torch.equal(propagate(scores, noise(2, 3, *size), words(), SCALE), scores)


def test_an_image_of_one_colour_is_no_edge():
    scores = noise(1, 3, 45, 45) * 0.1
    refined = propagate(scores, torch.full((1, 3, 45, 45), 0.3), words(), SCALE)
    assert refined.isfinite().all()
    assert refined.var() < scores.var()
    cells = [F.adaptive_avg_pool2d(part, 8) for part in (scores, refined)]
    assert cells[1].var() < 0.7 * cells[0].var()


def half_certain(width=112, height=56):
    """Scores (1, 2, H, W) that are certain of the first word on the left half, and of none on the right."""
    scores = torch.zeros(1, 2, height, width)
    scores[:, 0, :, : width // 2], scores[:, 1, :, width // 2 :] = 0.3, 0.001
    return scores


def test_a_strong_edge_stops_the_propagation():
    scores = half_certain()
    smooth, edge = torch.zeros(1, 3, 56, 112), torch.zeros(1, 3, 56, 112)
    edge[..., 56:] = 1
    spread, stopped = (propagate(scores, image, words(2), SCALE) - scores for image in (smooth, edge))
    beyond = slice(58, 75)
    assert spread[0, 0, :, beyond].mean() > 0.02
    assert stopped[0, :, :, beyond].abs().max() < 1e-3


def test_certain_pixels_keep_their_scores_more_than_uncertain_ones():
    scores = half_certain()
    change = (propagate(scores, torch.zeros(1, 3, 56, 112), words(2), SCALE) - scores).abs()
    assert change[0, 0, :, 56:].mean() > 2 * change[0, 0, :, :56].mean()
    labels = propagate(scores, torch.zeros(1, 3, 56, 112), words(2), SCALE).argmax(1)
    assert labels[0, :, :56].eq(0).all()


def test_windows_together_are_windows_one_by_one():
    scores, images = noise(3, 4, 37, 61), noise(3, 3, 37, 61, seed=5)
    together = propagate(scores, images, words(4), SCALE)
    alone = [propagate(*pair, words(4), SCALE) for pair in zip(scores.split(1), images.split(1), strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=0)
    turned = propagate(scores.mT, images.mT, words(4), SCALE).mT
    torch.testing.assert_close(together, turned, atol=1e-5, rtol=0)


@pytest.mark.parametrize('wrong', ['propagate', '', True, 3, ['context']])
def test_unknown_refinements_are_refused_with_those_that_are_known(wrong):
    with pytest.raises(ConfigError, match="refine is .*allowed: propagation, context"):
        InferenceSettings(refine=wrong)
    assert [InferenceSettings(refine=name).refine for name in REFINEMENTS] == [None, 'propagation', 'context']
