from __future__ import annotations

import logging

import pytest
import torch
from torch.nn import functional as F

from simfeatup import UpsamplerError, build_upsampler, load_upsampler
from simfeatup.scoring import score, score_reference
from simfeatup.upsamplers.naf import rotate
from simfeatup.upsamplers.neighbourhood import Neighbourhoods, cell_means


@pytest.fixture(scope='module')
def naf():
    torch.manual_seed(0)
    return build_upsampler('naf', 16).eval().requires_grad_(False)


def test_parameters():
    """Two branches of a convolution from 3 to 128 channels and two blocks of two norms and two convolutions."""
    block = [2 * (2 * 128 + 128 * 128 * side**2 + 128) for side in (1, 3)]
    expected = sum(3 * 128 * side**2 + 128 + 2 * size for side, size in zip((1, 3), block, strict=True))
    assert sum(parameter.numel() for parameter in build_upsampler('naf', 8).parameters()) == expected == 662_528


def test_a_pixel_by_hand(naf):
    """One pixel near a corner, head by head, from the definition: fewer cells than 9 x 9 there."""
    torch.manual_seed(1)
    features, guidance = torch.randn(1, 16, 10, 11), torch.randn(1, 3, 40, 44)
    queries = naf.queries(guidance)
    keys = F.avg_pool2d(queries, 4)
    y, x = 9, 41  # cell 2, 10
    expected = []
    for head in range(4):
        near = keys[head, :, :7, 6:].flatten(1)
        weights = (queries[head, :, y, x] @ near / 8).softmax(0)
        expected.append(features[0, 4 * head : 4 * head + 4, :7, 6:].flatten(1) @ weights)
    torch.testing.assert_close(naf(features, guidance)[0, :, y, x], torch.cat(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(('grid', 'size'), [((10, 9), (40, 36)), ((2, 3), (28, 42)), ((2, 1), (64, 32))])
@pytest.mark.parametrize('rank', [None, 1])
def test_scores(naf, grid, size, rank):
    torch.manual_seed(2)
    features, guidance = torch.randn(2, 16, *grid) + torch.randn(16, 1, 1), torch.randn(2, 3, *size)
    texts = F.normalize(torch.randn(3, 16), dim=1)
    exact = score_reference(naf, features, guidance, texts)
    found = score(naf, features, guidance, texts, rank)
    if rank is None:
        torch.testing.assert_close(found, exact, atol=1e-5, rtol=0)
    else:  # one factor for all scores of a pixel, at least 1: length is left out
        torch.testing.assert_close(found * exact[:, :1], exact * found[:, :1], atol=1e-5, rtol=0)
        lengths = found.square().sum(1) / exact.square().sum(1)
        assert lengths.min() > 0.999 and lengths.max() > 1.001


def test_constant_features_stay(naf):
    constant = torch.arange(16.0)[None, :, None, None]
    out = naf(constant.expand(1, 16, 5, 12), torch.randn(1, 3, 40, 96))
    torch.testing.assert_close(out, constant.expand_as(out))


def test_dtype_follows_the_input(naf):
    out = naf.double()(torch.ones(1, 16, 2, 2, dtype=torch.float64), torch.randn(1, 3, 8, 8, dtype=torch.float64))
    assert out.dtype == torch.float64
    naf.float()


def test_products_of_rotated_maps_depend_on_the_difference_of_places():
    torch.manual_seed(0)
    one, other = torch.randn(2, 64, 1, 1)
    left, right = (rotate(vector[None].expand(1, 64, 8, 6)) for vector in (one, other))
    near, moved = ((left[0, :, y, x] * right[0, :, y + 2, x + 1]).sum() for y, x in ((0, 0), (4, 3)))
    torch.testing.assert_close(near, moved, atol=1e-4, rtol=1e-4)
    elsewhere = (left[0, :, 0, 0] * right[0, :, 1, 1]).sum()
    assert (near - elsewhere).abs() > 1e-2
    torch.testing.assert_close(left.norm(dim=1), one.norm().expand(1, 8, 6))
    alone = rotate(one[None])  # one pixel, at 0
    torch.testing.assert_close(alone, one[None])


def test_names_of_another_program(tmp_path, caplog, naf):
    state = naf.state_dict()
    renamed = {f'encoder.{index}': value for index, value in enumerate(state.values())}
    torch.save({'state_dict': renamed}, tmp_path / 'theirs.pth')
    torch.save(state, tmp_path / 'ours.pth')
    with caplog.at_level(logging.WARNING):
        ours = load_upsampler('naf', 24, tmp_path / 'ours.pth')
        assert not caplog.records
        theirs = load_upsampler('naf', 24, tmp_path / 'theirs.pth')
    assert 'by their order' in caplog.text and 'unchecked' in caplog.text
    for found in (ours, theirs):
        assert all(torch.equal(value, state[name]) for name, value in found.state_dict().items())
    for wrong in (dict(list(renamed.items())[::-1]), renamed | {'more': torch.zeros(3)}):
        torch.save(wrong, tmp_path / 'wrong.pth')
        with pytest.raises(UpsamplerError, match='wrong.pth does not fit naf.*its layout is another'):
            load_upsampler('naf', 24, tmp_path / 'wrong.pth')
    with pytest.raises(UpsamplerError, match="'naf' needs a weight file"):
        load_upsampler('naf', 24, None)


def test_channels_that_no_head_can_share():
    with pytest.raises(UpsamplerError, match='over 4 heads; 10 channels'):
        build_upsampler('naf', 10)


@pytest.mark.parametrize(('grid', 'size'), [((4, 9), (16, 36)), ((3, 2), (7, 9)), ((4, 3), (3, 7)), ((1, 5), (4, 11))])
def test_neighbourhoods(grid, size):
    """Each pixel weighs the cells within the radius, and no others, whatever the sizes."""
    radius = 1
    cells = Neighbourhoods(grid, size, radius, torch.device('cpu'))
    queries, keys = torch.randn(2, 3, *size), torch.randn(2, 3, *grid)
    maps = torch.randn(2, 5, *grid)
    out = cells.stage(cells.weigh(cells.pixels(queries), cells.windows(keys))).apply(maps)
    for y in range(size[0]):
        for x in range(size[1]):
            row, col = y * grid[0] // size[0], x * grid[1] // size[1]
            near = (..., slice(max(row - radius, 0), row + radius + 1), slice(max(col - radius, 0), col + radius + 1))
            logits = torch.einsum('bd,bdyx->byx', queries[..., y, x], keys[near]).flatten(1)
            expected = torch.einsum('bn,bcn->bc', logits.softmax(1), maps[near].flatten(2))
            torch.testing.assert_close(out[..., y, x], expected, atol=1e-5, rtol=1e-5)


def test_places_in_cells():
    cells = Neighbourhoods((2, 3), (4, 3), 1, torch.device('cpu'))
    assert cells.positions()[0].tolist() == [[-0.25, 0.0], [0.25, 0.0]]
    assert cell_means(torch.arange(12.0).reshape(1, 1, 4, 3), (2, 3)).tolist() == [[[[1.5, 2.5, 3.5], [7.5, 8.5, 9.5]]]]
