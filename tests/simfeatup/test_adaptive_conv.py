from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from simfeatup import UpsamplerError
from simfeatup.ops.adaptive_conv import adaptive_conv, adaptive_conv_norm
from simfeatup.ops.axes import reflect_indices, reflect_pad
from simfeatup.ops.operator import use_backend

ROWS, COLS = torch.tensor([0, 0, 1, 1, 2, 2, 2]), torch.tensor([3, 0, 1, 1, 2])


@pytest.fixture(params=['reference', 'cpu'])
def backend(request):
    with use_backend(request.param):
        yield request.param



def naive(features, kernels, rows, cols):
    height, width = kernels.shape[1:3]
    out = torch.zeros(*features.shape[:2], *kernels.shape[3:], dtype=features.dtype)
    for b in range(len(features)):
        for y, row in enumerate(rows):
            for x, col in enumerate(cols):
                patch = features[b, :, row : row + height, col : col + width]
                out[b, :, y, x] = (patch * kernels[b, :, :, y, x]).sum((1, 2))
    return out


@pytest.mark.usefixtures('backend')
def test_equals_naive_loop():
    torch.manual_seed(0)
    features, kernels = torch.randn(2, 3, 9, 8), torch.randn(2, 3, 4, 7, 5)
    out = adaptive_conv(features, kernels)
    torch.testing.assert_close(out, naive(features, kernels, range(7), range(5)), atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures('backend')
@pytest.mark.parametrize('channels', [1, 300])
def test_equals_naive_loop_with_starts(channels):
    torch.manual_seed(0)
    features, kernels = torch.randn(2, channels, 5, 7), torch.randn(2, 3, 4, 7, 5)
    expected = naive(features, kernels, ROWS.tolist(), COLS.tolist())
    out = adaptive_conv(features, kernels, ROWS, COLS)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    maps, squares = adaptive_conv_norm(features, [(kernels, ROWS, COLS)], 1)
    torch.testing.assert_close(maps, expected[:, :1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(squares, expected[:, 1:].square().sum(1), atol=1e-4, rtol=1e-5)


@pytest.mark.usefixtures('backend')
@pytest.mark.parametrize('channels', [5, 70])
def test_stages_follow_each_other(channels):
    torch.manual_seed(0)
    features, first, second = torch.randn(2, channels, 5, 7), torch.randn(2, 3, 4, 7, 5), torch.randn(2, 2, 3, 6, 3)
    with use_backend('reference'):
        expected = adaptive_conv(adaptive_conv(features, first, ROWS, COLS), second)
    maps, squares = adaptive_conv_norm(features, [(first, ROWS, COLS), (second, None, None)], 4)
    torch.testing.assert_close(maps, expected[:, :4], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(squares, expected[:, 4:].square().sum(1), atol=1e-3, rtol=1e-5)
    with pytest.raises(UpsamplerError, match='needs features padded to 7; got 5'):
        adaptive_conv_norm(features, [(first, ROWS, COLS), (torch.randn(2, 2, 3, 6, 5), None, None)], 4)


@pytest.mark.usefixtures('backend')
def test_gradients():
    torch.manual_seed(0)
    features = torch.randn(1, 2, 5, 7, dtype=torch.float64, requires_grad=True)
    kernels = torch.randn(1, 3, 4, 7, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *args: adaptive_conv(*args, ROWS, COLS), (features, kernels))


def test_half_precision_and_layouts():
    torch.manual_seed(0)
    features = torch.randn(1, 8, 5, 7).to(memory_format=torch.channels_last)
    kernels = torch.randn(1, 7, 5, 3, 4).permute(0, 3, 4, 1, 2)
    with use_backend('reference'):
        expected = adaptive_conv(features, kernels, ROWS, COLS)
    torch.testing.assert_close(adaptive_conv(features, kernels, ROWS, COLS), expected)
    half = adaptive_conv(features.bfloat16(), kernels.bfloat16(), ROWS, COLS)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=0.1, rtol=0.05)


@pytest.mark.parametrize(
    ('features', 'kernels', 'rows', 'message'),
    [
        ((1, 2, 5, 5), (2, 3, 3, 3, 3), None, 'one batch size'),
        ((1, 2, 5, 5), (1, 9, 3, 3), None, 'one batch size'),
        ((1, 2, 6, 5), (1, 3, 3, 3, 3), None, 'padded to 5; got 6'),
        ((1, 2, 6, 5), (1, 3, 3, 3, 3), [0, 1], 'one start for each of 3'),
        ((1, 2, 6, 5), (1, 3, 3, 3, 3), [0, 1, 4], 'starts from 0 to 3'),
        ((1, 2, 6, 5), (1, 3, 3, 3, 3), [-1, 1, 2], 'starts from 0 to 3'),
    ],
)
def test_errors(features, kernels, rows, message):
    rows = None if rows is None else torch.tensor(rows)
    with pytest.raises(UpsamplerError, match=message):
        adaptive_conv(torch.zeros(features), torch.zeros(kernels), rows)


def test_reflection():
    maps = torch.randn(1, 1, 4, 5)
    torch.testing.assert_close(reflect_pad(maps, 3), F.pad(maps, [3] * 4, mode='reflect'))
    assert reflect_indices(5, 2).tolist() == [2, 1, 0, 1, 2, 3, 4, 3, 2]
    assert reflect_indices(2, 3).tolist() == [1, 0, 1, 0, 1, 0, 1, 0]
    assert reflect_indices(1, 2).tolist() == [0] * 5
    assert reflect_pad(maps[:, :, :1, :2], 5).shape == (1, 1, 11, 12)
