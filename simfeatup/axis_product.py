"""Maps resampled axis by axis: what jitter and blur are, each a matrix for the rows and one for the columns.

The matrices are nearly empty: a row of bilinear zoom has two entries, one of the blur five. On CPUs torch's sparse
products use that, twice as fast as dense ones; elsewhere, and where torch was built without them, dense products.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from simfeatup.proof import TOLERANCE, FastPath, pattern

warnings.filterwarnings('ignore', 'Sparse CSR tensor support is in beta')  # said once a process; nothing to do about it

SPARSE_DTYPES = (torch.float32, torch.float64)
SPARSE = FastPath('sparse products', 'SIMFEATUP_SPARSE', 'dense products, slower')


def axis_product(maps: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """``rows @ maps @ cols.T`` for every channel, with gradients for the maps.

    Args:
        maps: (B, C, h, w).
        rows: (H, h), constant; row y holds the shares of the input's rows in output row y.
        cols: (W, w), constant, likewise.

    Returns:
        (B, C, H, W); on CPUs with the channels last in memory.
    """
    if maps.device.type != 'cpu' or maps.dtype not in SPARSE_DTYPES:
        return rows @ maps @ cols.T
    return _AxisProduct.apply(maps, rows, cols)


class _AxisProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        ctx.save_for_backward(rows, cols)
        return _product(maps, rows, cols)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        rows, cols = ctx.saved_tensors
        return _product(grad, rows.T, cols.T), None, None


def _product(maps: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    proof = partial(_prove, maps.dtype)
    fast, plain = (partial(product, maps, rows, cols) for product in (_sparse_product, _dense_product))
    return SPARSE.run((maps.dtype,), proof, fast, plain, TOLERANCE)


def _prove(dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    rows, cols = pattern(4, 6, dtype=dtype), pattern(7, 5, dtype=dtype)
    rows[rows.abs() < 0.5] = 0
    rows[1] = 0
    for matrices in ((rows, cols), (rows.T, cols.T)):  # forward and backward
        maps = pattern(2, 3, *(matrix.shape[1] for matrix in matrices), dtype=dtype)
        yield _sparse_product(maps, *matrices), _dense_product(maps, *matrices)


def _dense_product(maps: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    with torch.autocast('cpu', enabled=False):
        return rows @ maps @ cols.T


def _sparse_product(maps: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    batch, channels, height, width = maps.shape
    maps = maps.permute(0, 2, 3, 1).contiguous()  # NCHW -> NHWC
    out = maps.new_empty(batch, len(rows), len(cols), channels)
    rows, cols = rows.to_sparse_csr(), _repeated(cols, height)
    with torch.autocast('cpu', enabled=False):
        for image, target in zip(maps, out, strict=True):
            narrow = cols @ image.view(height * width, channels)  # (h W, C)
            torch.mm(rows, narrow.view(height, -1), out=target.view(len(target), -1))
    return out.permute(0, 3, 1, 2)


def _repeated(matrix: Tensor, times: int) -> Tensor:
    """A matrix (N, n) for each of so many rows of an image: block-diagonal, (times N, times n), sparse."""
    block = matrix.to_sparse_csr()
    entries, offsets = block.values().numel(), torch.arange(times)[:, None]
    starts = (block.crow_indices()[:-1] + entries * offsets).flatten()
    starts = torch.cat([starts, starts.new_tensor([times * entries])])
    columns = (block.col_indices() + matrix.shape[1] * offsets).flatten()
    size = times * matrix.shape[0], times * matrix.shape[1]
    return torch.sparse_csr_tensor(starts, columns, block.values().repeat(times), size, check_invariants=False)
