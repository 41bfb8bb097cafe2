"""Sparse products of the axes against dense ones."""

from __future__ import annotations

import pytest
import torch

from simfeatup.ops.axis_product import axis_product


def matrices(dtype):
    rows, cols = torch.randn(5, 6, dtype=dtype), torch.randn(4, 3, dtype=dtype)
    rows[rows.abs() < 0.8], rows[2] = 0, 0  # few entries, one row without any
    return rows, cols


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_equals_dense_products(dtype, layout):
    torch.manual_seed(0)
    maps = torch.randn(2, 7, 6, 3, dtype=dtype).contiguous(memory_format=layout)
    rows, cols = matrices(dtype)
    torch.testing.assert_close(axis_product(maps, rows, cols), rows @ maps @ cols.T)


def test_gradients():
    torch.manual_seed(0)
    maps, axes = torch.randn(2, 2, 6, 3, dtype=torch.float64, requires_grad=True), matrices(torch.float64)
    assert torch.autograd.gradcheck(lambda maps: axis_product(maps, *axes), maps)


def test_autocast_leaves_it_alone():
    maps, (rows, cols) = torch.randn(1, 2, 6, 3), matrices(torch.float32)
    expected = axis_product(maps, rows, cols)
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(axis_product(maps, rows, cols), expected)
