"""Maps resampled axis by axis: what jitter and blur are, each a matrix for the rows and one for the columns.

The matrices are nearly empty: a row of bilinear zoom has two entries, one of the blur five. On CPUs torch's sparse
products use that, twice as fast as dense ones; elsewhere, and where torch was built without them, dense products.
"""

import torch
from torch import Tensor

from simfeatup.ops.operator import PATHS, Operator
from simfeatup.proof import pattern


def axis_product(maps: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """``rows @ maps @ cols.T`` for every channel, (B, C, h, w) -> (B, C, H, W), with gradients for the maps.

    Row y of the constant rows (H, h) holds the shares of the input's rows in output row y; cols (W, w) likewise.
    """
    if maps.dtype not in (torch.float32, torch.float64):  # sparse products know no others
        return rows @ maps @ cols.T
    return _PRODUCT(maps, rows, cols).permute(0, 3, 1, 2)


def _plain(maps: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    return (rows @ maps @ cols.T).permute(0, 2, 3, 1).contiguous()


def sparse(maps: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """The operator by sparse products: (B, H, W, C)."""
    return _sparse(maps.permute(0, 2, 3, 1), rows, cols)


def sparse_backward(grad: Tensor, maps: Tensor, rows: Tensor, cols: Tensor, needs: list[bool]) -> list[Tensor]:
    """Gradient of the maps from that of the result, (B, H, W, C)."""
    return [_sparse(grad, rows.T, cols.T).permute(0, 3, 1, 2)]


def _sparse(maps: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    maps = maps.contiguous()  # (B, h, w, C)
    batch, height, width, channels = maps.shape
    out = maps.new_empty(batch, len(rows), len(cols), channels)
    rows, cols = rows.to_sparse_csr(), _repeated(cols, height)
    for image, target in zip(maps, out, strict=True):
        narrow = cols @ image.view(height * width, channels)  # (h W, C)
        torch.mm(rows, narrow.view(height, -1), out=target.view(len(target), -1))
    return out


def _repeated(matrix: Tensor, times: int) -> Tensor:
    """A matrix (N, n) for each of so many rows of an image: block-diagonal, (times N, times n), sparse."""
    block = matrix.to_sparse_csr()
    entries, offsets = block.values().numel(), torch.arange(times, device=matrix.device)[:, None]
    starts = (block.crow_indices()[:-1] + entries * offsets).flatten()
    starts = torch.cat([starts, starts.new_tensor([times * entries])])
    columns = (block.col_indices() + matrix.shape[1] * offsets).flatten()
    size = times * matrix.shape[0], times * matrix.shape[1]
    return torch.sparse_csr_tensor(starts, columns, block.values().repeat(times), size, check_invariants=False)


def _example(sizes: tuple, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    rows, cols = pattern(4, 6, dtype=dtype, device=device), pattern(7, 5, dtype=dtype, device=device)
    rows[rows.abs() < 0.5] = 0
    rows[1] = 0
    return pattern(2, 3, 6, 5, dtype=dtype, device=device), rows, cols


_PATHS = {'cpu': PATHS['sparse']}
_PRODUCT = Operator(
    'axis_product(Tensor maps, Tensor rows, Tensor cols) -> Tensor',
    _plain, {'cpu': f'{__name__}:sparse'}, _example, paths=_PATHS,
)  # fmt: skip
_PRODUCT.differentiate(1, {'cpu': f'{__name__}:sparse_backward'})
