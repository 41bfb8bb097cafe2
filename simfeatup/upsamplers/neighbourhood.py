"""Weights of every pixel for the feature cells around its own: what attention from pixels to cells is computed with.

The pixels of a cell all look at the same window of cells. So their weights are products of two small matrices a cell,
a row for each of its pixels and one for each cell of the window, and no map of the pixels is ever shifted.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from simfeatup.ops.folding import Stage


class Neighbourhoods:
    """Which pixels lie in each cell, and which cells lie around it.

    A grid (h, w) divides a size (H, W) in pixels; a window has the cells within ``radius`` on each axis, fewer at the
    borders. P pixels and T cells a window are the same numbers for all: where a cell has fewer pixels some stand there
    twice, and a window that would leave the grid is moved inside, what is then too far being masked.
    """

    def __init__(self, grid: Sequence[int], size: Sequence[int], radius: int, device: torch.device) -> None:
        self.grid, self.size, self.device = tuple(map(int, grid)), tuple(map(int, size)), device
        axes = list(zip(self.grid, self.size, strict=True))
        self.taps = [min(2 * radius + 1, length) for length, _ in axes]
        self._cells = [torch.arange(total, device=device) * length // total for length, total in axes]  # of each pixel
        self._counts = [-(-total // length) for length, total in axes]  # pixels of a cell
        firsts = [-(-torch.arange(length, device=device) * total // length) for length, total in axes]
        self._pixels = [
            (first[:, None] + torch.arange(count, device=device)).clamp_max(total - 1)
            for first, count, (_, total) in zip(firsts, self._counts, axes, strict=True)
        ]  # (h, count), of each cell
        self._places = [
            cells * count + torch.arange(total, device=device) - first[cells]
            for cells, count, first, (_, total) in zip(self._cells, self._counts, firsts, axes, strict=True)
        ]  # of each pixel among those of all cells
        self._starts = [
            (torch.arange(length, device=device) - radius).clamp(0, length - taps)
            for taps, (length, _) in zip(self.taps, axes, strict=True)
        ]  # first cell of each cell's window
        self._windows = [
            start[:, None] + torch.arange(taps, device=device)
            for start, taps in zip(self._starts, self.taps, strict=True)
        ]  # (h, taps)
        self._choices = [
            F.one_hot(cells.flatten(), length).float() for cells, length in zip(self._windows, self.grid, strict=True)
        ]
        steps = [cells - torch.arange(len(cells), device=device)[:, None] for cells in self._windows]
        self.offsets = self._over_windows(*steps)
        """Rows and columns (h * w, T, 2) from a cell to those of its window."""
        too_far = (self.offsets.abs() > radius).any(2)
        self._mask = torch.zeros(too_far.shape, device=device).masked_fill_(too_far, -torch.inf)[:, None]

    def positions(self) -> Tensor:
        """Rows and columns (h * w, P, 2) of each cell's pixels from its centre; a cell has the height and width 1."""
        axes = [
            (pixels + 0.5) * length / total - 0.5 - torch.arange(length, device=self.device)[:, None]
            for pixels, length, total in zip(self._pixels, self.grid, self.size, strict=True)
        ]
        return self._over_windows(*axes)

    def pixels(self, maps: Tensor) -> Tensor:
        """(B, D, H, W) -> the pixels of each cell, (B, h * w, P, D)."""
        rows, cols = self._pixels
        maps = maps.index_select(2, rows.flatten()).index_select(3, cols.flatten())
        maps = maps.unflatten(2, rows.shape).unflatten(4, cols.shape)  # (B, D, h, p, w, p)
        return maps.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)

    def windows(self, maps: Tensor) -> Tensor:
        """(B, D, h, w) -> the cells around each cell, (B, h * w, T, D)."""
        # By products with ones and zeros: the gradient of an indexing is a sum in no certain order.
        rows, cols = (choice.to(maps.dtype) for choice in self._choices)
        maps = rows @ maps @ cols.T
        maps = maps.unflatten(3, self._windows[1].shape).unflatten(2, self._windows[0].shape)
        return maps.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)

    def weigh(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Weights (B, h * w, P, T) of sum 1, the softmax of <query, key>: of pixels (..., P, D), cells (..., T, D)."""
        return (queries @ keys.mT).add_(self._mask.to(keys.dtype)).softmax(3)

    def stage(self, weights: Tensor) -> Stage:
        """The stage that applies weights (B, h * w, P, T)."""
        weights = weights.unflatten(3, self.taps).unflatten(2, self._counts).unflatten(1, self.grid)
        kernels = weights.permute(0, 1, 3, 5, 6, 2, 4).flatten(5, 6).flatten(1, 2)  # (B, h p, Ty, Tx, w p)
        rows, cols = self._places
        if kernels.shape[1] != len(rows):
            kernels = kernels.index_select(1, rows)
        if kernels.shape[4] != len(cols):
            kernels = kernels.index_select(4, cols)
        starts = (start[cells] for start, cells in zip(self._starts, self._cells, strict=True))
        return Stage(kernels.permute(0, 2, 3, 1, 4), *starts)

    def _over_windows(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Pairs (h * w, m * n, 2) of numbers of the rows (h, m) and of the columns (w, n)."""
        shape = len(rows), len(cols), rows.shape[1], cols.shape[1]
        pairs = [rows[:, None, :, None].expand(shape), cols[None, :, None, :].expand(shape)]
        return torch.stack(pairs, 4).flatten(2, 3).flatten(0, 1)


def cell_means(maps: Tensor, grid: Sequence[int]) -> Tensor:
    """(B, D, H, W) averaged over each cell of a grid (h, w): (B, D, h, w)."""
    return F.adaptive_avg_pool2d(maps, (int(grid[0]), int(grid[1])))
