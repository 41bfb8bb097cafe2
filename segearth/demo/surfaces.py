"""Smooth random fields and warped cells, and the ground covers made of them.

Each cover is told by its texture as much as by its colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.random import Generator

Colour = tuple[float, float, float]

# Reflected red, green, blue of the cover's variants, before the scene's own light, gain and gamma
GRASS_COLOURS: tuple[Colour, ...] = ((0.30, 0.43, 0.20), (0.38, 0.45, 0.22), (0.46, 0.47, 0.26), (0.25, 0.37, 0.19))
SOIL_COLOURS: tuple[Colour, ...] = (
    (0.62, 0.53, 0.41), (0.50, 0.42, 0.33), (0.58, 0.56, 0.51), (0.60, 0.44, 0.33), (0.70, 0.64, 0.52),
)  # fmt: skip
WATER_COLOURS: tuple[Colour, ...] = (
    (0.13, 0.27, 0.38), (0.17, 0.36, 0.45), (0.16, 0.24, 0.20), (0.27, 0.29, 0.22), (0.10, 0.16, 0.22),
)  # fmt: skip
CROP_COLOURS: tuple[Colour, ...] = (
    (0.33, 0.46, 0.20), (0.46, 0.55, 0.25), (0.66, 0.60, 0.30), (0.60, 0.52, 0.34), (0.47, 0.37, 0.27),
    (0.24, 0.38, 0.20), (0.52, 0.46, 0.28), (0.70, 0.66, 0.42),
)  # fmt: skip
CROWN_COLOURS: tuple[Colour, ...] = ((0.20, 0.32, 0.15), (0.16, 0.27, 0.17), (0.29, 0.35, 0.16), (0.33, 0.30, 0.16))


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
    """Band-limited noise (H, W) float32, mean about 0, standard deviation about 1.

    It is a random grid, its knots `cell` pixels apart, interpolated by cubic B-splines.
    """
    rows, columns = _interpolation_matrix(shape[0], cell), _interpolation_matrix(shape[1], cell)
    grid = rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
    return (rows @ grid @ columns.T) * 2.1  # B-splines shrink white noise to about 1 / 2.1


def fractal_noise(rng: Generator, shape: tuple[int, int], cells: tuple[float, ...], decay: float = 0.7) -> np.ndarray:
    """Sum of :func:`smooth_noise` over `cells`, each weighted `decay` times the one before; brought to its scale."""
    weights = decay ** np.arange(len(cells))
    field = sum(weight * smooth_noise(rng, shape, cell) for weight, cell in zip(weights, cells, strict=True))
    return (field / np.sqrt((weights**2).sum())).astype(np.float32)


def voronoi_cells(rng: Generator, shape: tuple[int, int], num_cells: int, warp: float = 0.0) -> np.ndarray:
    """Index (H, W) int64 of the nearest of `num_cells` random points, borders bent by `warp` pixels."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    if warp:
        y = y + warp * fractal_noise(rng, shape, (90, 30), 0.4)
        x = x + warp * fractal_noise(rng, shape, (90, 30), 0.4)
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

    The direction `angle` is in radians, from the x axis towards the y axis.
    """
    y = np.arange(shape[0], dtype=np.float32)[:, None] - shape[0] / 2
    x = np.arange(shape[1], dtype=np.float32)[None, :] - shape[1] / 2
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cosine + y * sine, y * cosine - x * sine


def pick_colour(rng: Generator, colours: Sequence[Colour], spread: float = 0.05) -> np.ndarray:
    """One of `colours` with every channel moved by up to `spread`; (3,) float32."""
    colour = np.array(colours[int(rng.integers(len(colours)))]) + rng.uniform(-spread, spread, 3)
    return np.clip(colour, 0.03, 0.95).astype(np.float32)


def _shade(colour: np.ndarray, brightness: np.ndarray) -> np.ndarray:
    return colour * np.clip(1 + brightness, 0.1, None)[..., None]


def paint_grass(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    """Fine blades over slow patches of two greens; (H, W, 3) float32."""
    patches = fractal_noise(rng, shape, (170, 60, 20), 0.6)
    mix = 1 / (1 + np.exp(-1.5 * patches))[..., None]
    colour = pick_colour(rng, GRASS_COLOURS) * mix + pick_colour(rng, GRASS_COLOURS) * (1 - mix)
    blades = rng.standard_normal(shape, dtype=np.float32) * 0.06 + smooth_noise(rng, shape, 3) * 0.07
    return _shade(colour, 0.05 * patches + blades)


def paint_bareland(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    """Soil or rock, mottled at many scales; (H, W, 3) float32."""
    mottle = fractal_noise(rng, shape, (110, 48, 24, 12, 6), 0.85)
    strength = rng.uniform(0.06, 0.13)
    return _shade(pick_colour(rng, SOIL_COLOURS), strength * mottle + 0.03 * rng.standard_normal(shape, np.float32))


def paint_water(rng: Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Smooth, with faint ripples; (H, W, 3) float32."""
    along, _ = rotated_frame(shape, rng.uniform(0, np.pi))
    bend = smooth_noise(rng, shape, 60) * 6
    ripples = np.sin((along + bend) * (2 * np.pi / (rng.uniform(6, 14) * scale))) * smooth_noise(rng, shape, 90)
    slow = fractal_noise(rng, shape, (260, 110), 0.6)
    return _shade(pick_colour(rng, WATER_COLOURS, 0.04), 0.08 * slow + rng.uniform(0.01, 0.05) * ripples)


def paint_cropland(rng: Generator, shape: tuple[int, int], scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Parcels with rows, each of one crop, direction and row distance; at `scale` 1 a pixel is about 0.25 m.

    Returned are colours (H, W, 3) float32 and row directions (H, W) float32, radians in [0, pi).
    """
    parcels = voronoi_cells(rng, shape, max(4, int(rng.integers(10, 22) * shape[0] * shape[1] / 896**2)), warp=6)
    num_parcels = int(parcels.max()) + 1
    colours = np.stack([pick_colour(rng, CROP_COLOURS) for _ in range(num_parcels)])
    main = rng.uniform(0, np.pi)
    angles = main + rng.choice([0, np.pi / 2], num_parcels) + rng.normal(0, 0.25, num_parcels)
    angles = (angles % np.pi).astype(np.float32)
    periods = (rng.uniform(9, 22, num_parcels) * scale).astype(np.float32)
    strengths = rng.uniform(0.10, 0.30, num_parcels).astype(np.float32)
    along_x, along_y = rotated_frame(shape, 0.0)
    across = along_y * np.cos(angles)[parcels] - along_x * np.sin(angles)[parcels]
    wave = np.sin((across + 1.5 * smooth_noise(rng, shape, 40)) * (2 * np.pi / periods)[parcels])
    rows = np.tanh(2 * wave) * strengths[parcels]
    texture = 0.05 * smooth_noise(rng, shape, 90) + 0.05 * rng.standard_normal(shape, dtype=np.float32)
    return _shade(colours[parcels], rows + texture), angles[parcels]
