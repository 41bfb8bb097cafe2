from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from simfeatup import UpsamplerError
from simfeatup.adaptive_conv import adaptive_conv, reflect_indices, reflect_pad


def naive(features, kernels, rows, cols):
    taps = round(kernels.shape[1] ** 0.5)
    out = torch.zeros(*features.shape[:2], *kernels.shape[2:], dtype=features.dtype)
    for b in range(len(features)):
        for y, row in enumerate(rows):
            for x, col in enumerate(cols):
                patch = features[b, :, row : row + taps, col : col + taps]
                out[b, :, y, x] = (patch * kernels[b, :, y, x].reshape(taps, taps)).sum((1, 2))
    return out


def test_equals_naive_loop():
    torch.manual_seed(0)
    features, kernels = torch.randn(2, 3, 9, 7), torch.randn(2, 9, 7, 5)
    torch.testing.assert_close(adaptive_conv(features, kernels), naive(features, kernels, range(7), range(5)))


def test_equals_naive_loop_with_starts():
    torch.manual_seed(0)
    features, kernels = torch.randn(2, 3, 5, 6), torch.randn(2, 9, 7, 5)
    rows, cols = torch.tensor([0, 0, 1, 1, 2, 2, 2]), torch.tensor([3, 0, 1, 1, 2])
    expected = naive(features, kernels, rows.tolist(), cols.tolist())
    torch.testing.assert_close(adaptive_conv(features, kernels, rows, cols), expected)


def test_gradients():
    torch.manual_seed(0)
    features = torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    kernels = torch.randn(1, 9, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(adaptive_conv, (features, kernels))


@pytest.mark.parametrize(
    ('features', 'kernels', 'rows', 'message'),
    [
        ((1, 2, 5, 5), (2, 9, 3, 3), None, 'one batch size'),
        ((1, 2, 5, 5), (1, 8, 3, 3), None, 'a square number; got 8'),
        ((1, 2, 6, 5), (1, 9, 3, 3), None, 'padded to h = 5; got 6'),
        ((1, 2, 6, 5), (1, 9, 3, 3), [0, 1], 'one start for each of 3'),
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
