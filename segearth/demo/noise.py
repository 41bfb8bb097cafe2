"""Smooth random fields and warped Voronoi cells: the raw material of the generated scenes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.random import Generator


@lru_cache(maxsize=64)
def _interpolation_matrix(length: int, cell: float) -> np.ndarray:
    """Weights (length, knots) of cubic B-spline interpolation between knots `cell` pixels apart."""
    position = np.arange(length, dtype=np.float32) / cell
    knots = int(position[-1]) + 4
    distance = np.abs(position[:, None] + 1.0 - np.arange(knots, dtype=np.float32)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def smooth_noise(rng: Generator, shape: tuple[int, int], cell: float) -> np.ndarray:
    """Band-limited noise: a random grid interpolated by cubic B-splines.

    Args:
        rng: Source of randomness.
        shape: (H, W).
        cell: Distance of the grid's knots in pixels.

    Returns:
        (H, W) float32, mean about 0, standard deviation about 1.
    """
    rows, columns = _interpolation_matrix(shape[0], cell), _interpolation_matrix(shape[1], cell)
    grid = rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
    return (rows @ grid @ columns.T) * 2.1  # B-splines shrink white noise to about 1 / 2.1


def fractal_noise(rng: Generator, shape: tuple[int, int], cells: tuple[float, ...], decay: float = 0.7) -> np.ndarray:
    """Sum of :func:`smooth_noise` over `cells`, each weighted `decay` times the one before.

    Returns:
        (H, W) float32, mean about 0, standard deviation about 1.
    """
    weights = decay ** np.arange(len(cells))
    field = sum(weight * smooth_noise(rng, shape, cell) for weight, cell in zip(weights, cells, strict=True))
    return (field / np.sqrt((weights**2).sum())).astype(np.float32)


def voronoi_cells(
    rng: Generator, shape: tuple[int, int], num_cells: int, warp: float = 0.0, warp_cell: float = 90.0
) -> np.ndarray:
    """Index of the nearest of `num_cells` random points, borders bent by `warp` pixels.

    Returns:
        (H, W) int64, 0 <= index < num_cells.
    """
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    if warp:
        y = y + warp * fractal_noise(rng, shape, (warp_cell, warp_cell / 3), 0.4)
        x = x + warp * fractal_noise(rng, shape, (warp_cell, warp_cell / 3), 0.4)
    points = rng.uniform(0, 1, (num_cells, 2)).astype(np.float32) * np.array(shape, dtype=np.float32)
    best, index = np.full(shape, np.inf, np.float32), np.zeros(shape, np.int64)
    for i, (py, px) in enumerate(points):
        distance = (y - py) ** 2 + (x - px) ** 2
        closer = distance < best
        best[closer] = distance[closer]
        index[closer] = i
    return index


def rotated_frame(shape: tuple[int, int], angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates along and across a direction, both (H, W) float32 and zero at the centre.

    Args:
        shape: (H, W).
        angle: Direction in radians from the x axis towards the y axis.
    """
    y = np.arange(shape[0], dtype=np.float32)[:, None] - shape[0] / 2
    x = np.arange(shape[1], dtype=np.float32)[None, :] - shape[1] / 2
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cosine + y * sine, y * cosine - x * sine
