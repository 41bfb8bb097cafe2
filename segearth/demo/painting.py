"""What scenes are painted with: smooth random fields, ground covers, and the things that stand on them.

Each cover is told by its texture as much as by its colour.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from segearth.demo.classes import WORLD

COLOURS = WORLD['colours']
"""Reflected red, green, blue of the covers' variants, before the scene's own light, gain and gamma; of roofs by
families, of which a scene prefers one or two."""


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


def pick_colour(rng: Generator, colours: Sequence[Sequence[float]], spread: float = 0.05) -> np.ndarray:
    """One of `colours` with every channel moved by up to `spread`; (3,) float32."""
    colour = np.array(colours[int(rng.integers(len(colours)))]) + rng.uniform(-spread, spread, 3)
    return np.clip(colour, 0.03, 0.95).astype(np.float32)


def _shade(colour: np.ndarray, brightness: np.ndarray) -> np.ndarray:
    return colour * np.clip(1 + brightness, 0.1, None)[..., None]


def paint_grass(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    """Fine blades over slow patches of two greens; (H, W, 3) float32."""
    patches = fractal_noise(rng, shape, (170, 60, 20), 0.6)
    mix = 1 / (1 + np.exp(-1.5 * patches))[..., None]
    colour = pick_colour(rng, COLOURS['grass']) * mix + pick_colour(rng, COLOURS['grass']) * (1 - mix)
    blades = rng.standard_normal(shape, dtype=np.float32) * 0.06 + smooth_noise(rng, shape, 3) * 0.07
    return _shade(colour, 0.05 * patches + blades)


def paint_bareland(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    """Soil or rock, mottled at many scales; (H, W, 3) float32."""
    mottle = fractal_noise(rng, shape, (110, 48, 24, 12, 6), 0.85)
    strength = rng.uniform(0.06, 0.13)
    return _shade(pick_colour(rng, COLOURS['soil']), strength * mottle + 0.03 * rng.standard_normal(shape, np.float32))


def paint_water(rng: Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Smooth, with faint ripples; (H, W, 3) float32."""
    along, _ = rotated_frame(shape, rng.uniform(0, np.pi))
    bend = smooth_noise(rng, shape, 60) * 6
    ripples = np.sin((along + bend) * (2 * np.pi / (rng.uniform(6, 14) * scale))) * smooth_noise(rng, shape, 90)
    slow = fractal_noise(rng, shape, (260, 110), 0.6)
    return _shade(pick_colour(rng, COLOURS['water'], 0.04), 0.08 * slow + rng.uniform(0.01, 0.05) * ripples)


def paint_cropland(rng: Generator, shape: tuple[int, int], scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Parcels with rows, each of one crop, direction and row distance; at `scale` 1 a pixel is about 0.25 m.

    Returned are colours (H, W, 3) float32 and row directions (H, W) float32, radians in [0, pi).
    """
    parcels = voronoi_cells(rng, shape, max(4, int(rng.integers(10, 22) * shape[0] * shape[1] / 896**2)), warp=6)
    num_parcels = int(parcels.max()) + 1
    colours = np.stack([pick_colour(rng, COLOURS['crop']) for _ in range(num_parcels)])
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


@dataclass(frozen=True)
class Strip:
    """A road or river: signed distance to its middle and position along it, both (H, W) in pixels."""

    across: np.ndarray
    along: np.ndarray
    width: float

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool."""
        return np.abs(self.across) < self.width / 2


def draw_curve(rng: Generator, shape: tuple[int, int], width: float, bend: float) -> Strip:
    """A strip across the whole scene whose middle swings sideways by `bend` pixels."""
    along, across = rotated_frame(shape, rng.uniform(0, np.pi))
    across = across - rng.uniform(-0.35, 0.35) * min(shape)
    length, phase = rng.uniform(700, 1400), rng.uniform(0, 2 * np.pi)
    argument = along * (2 * np.pi / length) + phase
    slope = bend * (2 * np.pi / length) * np.cos(argument)
    return Strip((across - bend * np.sin(argument)) / np.sqrt(1 + slope**2), along, width)


def draw_street_grid(shape: tuple[int, int], angle: float, period: tuple[float, float], width: float) -> list[Strip]:
    """Two families of parallel streets; blocks are `period` minus `width` wide along and across `angle`."""
    along, across = rotated_frame(shape, angle)
    u = (along + period[0] / 2) % period[0] - period[0] / 2
    v = (across + period[1] / 2) % period[1] - period[1] / 2
    return [Strip(u, across, width), Strip(v, along, width)]


def paint_road(rng: Generator, image: np.ndarray, strip: Strip, mask: np.ndarray, with_lines: bool) -> None:
    """Paints asphalt, lines and cars of `strip` where `mask` (H, W) holds, in place."""
    shape = mask.shape
    surface = pick_colour(rng, COLOURS['asphalt'], 0.03) + 0.012 * smooth_noise(rng, shape, 30)[..., None]
    surface = surface + 0.012 * rng.standard_normal(shape, dtype=np.float32)[..., None]
    if with_lines:
        line = np.array(((0.88, 0.88, 0.86), (0.85, 0.75, 0.35))[rng.integers(2)], np.float32)
        period = rng.uniform(22, 36)
        dashes = (np.abs(strip.across) < 1.3) & (strip.along % period < 0.55 * period)
        edges = np.abs(np.abs(strip.across) - 0.42 * strip.width) < 0.9
        surface[dashes | (edges & bool(rng.integers(2)))] = line
    image[mask] = surface[mask]
    lane, slot = np.abs(np.abs(strip.across) - 0.22 * strip.width), 60.0
    cells = np.floor(strip.along / slot).astype(np.int64) * 2 + (strip.across > 0)
    chosen = rng.random(int(cells.max() - cells.min()) + 1) < 0.10
    is_car = mask & (lane < 0.11 * strip.width) & (np.abs(strip.along % slot - slot / 2) < 8)
    is_car &= chosen[cells - cells.min()]
    image[is_car] = np.array(COLOURS['car'], np.float32)[(cells[is_car] // 2) % len(COLOURS['car'])]


Frame = tuple[tuple[slice, slice], np.ndarray, np.ndarray]
"""Box of a building within the scene, and coordinates along and across its ridge there."""


@dataclass(frozen=True)
class Building:
    """A footprint made of one rectangle or, with a wing, of an L; pixels, radians and metres."""

    y: float
    x: float
    half_length: float
    half_width: float
    angle: float
    height: float
    wing: float  # share of the length cut from one corner of the L, 0 for a rectangle
    roof: int  # 0 flat, 1 gable, 2 hip
    family: int

    def local_frame(self, shape: tuple[int, int]) -> Frame | None:
        """The building's place in a scene of some shape; None outside."""
        reach = int(np.hypot(self.half_length, self.half_width)) + 2
        y1, y2 = max(0, int(self.y) - reach), min(shape[0], int(self.y) + reach + 1)
        x1, x2 = max(0, int(self.x) - reach), min(shape[1], int(self.x) + reach + 1)
        if y1 >= y2 or x1 >= x2:
            return None
        dy, dx = np.mgrid[y1:y2, x1:x2].astype(np.float32)
        dy, dx = dy - self.y, dx - self.x
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        return (slice(y1, y2), slice(x1, x2)), dx * cosine + dy * sine, dy * cosine - dx * sine

    def footprint(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Where coordinates of a frame lie inside; bool."""
        inside = (np.abs(u) < self.half_length) & (np.abs(v) < self.half_width)
        if self.wing:
            inside &= ~((u > self.half_length * (1 - 2 * self.wing)) & (v > 0))
        return inside


def paint_building(
    rng: Generator, image: np.ndarray, building: Building, frame: Frame, light: tuple[float, float]
) -> None:
    """Paints one roof in place: sides of a gable or hip lit differently, tiles, or a flat top with a rim and boxes."""
    box, u, v = frame
    inside = building.footprint(u, v)
    colour = pick_colour(rng, COLOURS['roof'][building.family], 0.03)
    across_light = light[0] * np.cos(building.angle) - light[1] * np.sin(building.angle)
    along_light = light[1] * np.cos(building.angle) + light[0] * np.sin(building.angle)
    if building.roof == 0:
        shade = np.zeros_like(u)
        rim = (np.abs(u) > building.half_length - 3) | (np.abs(v) > building.half_width - 3)
        shade[rim] = 0.12
        for _ in range(rng.integers(0, 4)):
            cu, cv = rng.uniform(-0.6, 0.6, 2) * (building.half_length, building.half_width)
            level = rng.choice([-0.3, 0.25])
            shade[(np.abs(u - cu) < rng.uniform(3, 7)) & (np.abs(v - cv) < rng.uniform(3, 6))] = level
    else:
        shade = 0.22 * across_light * np.sign(v)
        if building.roof == 2:
            end = building.half_length - np.abs(u) < building.half_width - np.abs(v)
            shade = np.where(end, 0.22 * along_light * np.sign(u), shade)
        spacing = rng.uniform(4, 7)
        shade = shade + 0.05 * np.sign(np.sin(u * (2 * np.pi / spacing)))
        shade[np.abs(v) < 1] = 0.15
    grain = 0.025 * rng.standard_normal(u.shape, dtype=np.float32)
    image[box][inside] = (colour * np.clip(1 + shade + grain, 0.3, 1.6)[..., None])[inside]


def cast_shadow(height: np.ndarray, light: tuple[float, float], length: float) -> np.ndarray:
    """Pixels (H, W) that something higher hides from the sun.

    Heights (H, W) are in metres, ``light`` is a unit vector (y, x) towards the sun, and a shadow is ``length`` pixels
    long for each metre of height.
    """
    (num_rows, num_columns), step = height.shape, 3
    shadow = np.zeros(height.shape, bool)
    for distance in range(step, int(height.max() * length) + 1, step):
        dy, dx = round(-light[0] * distance), round(-light[1] * distance)
        if abs(dy) >= num_rows or abs(dx) >= num_columns:
            break
        to = slice(max(0, dy), num_rows + min(0, dy)), slice(max(0, dx), num_columns + min(0, dx))
        source = slice(max(0, -dy), num_rows + min(0, -dy)), slice(max(0, -dx), num_columns + min(0, -dx))
        shadow[to] |= height[source] - distance / length > height[to]
    return shadow


def paint_crowns(
    rng: Generator, shape: tuple[int, int], points: np.ndarray, radii: np.ndarray, light: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tree crowns as lit domes, at trunks (P, 2) with radii (P,) in pixels; `light` is a unit vector towards the sun.

    Returned are colours (H, W, 3) float32; dome (H, W) in [0, 1], 1 above a trunk and 0 outside of every crown; and
    distance to the nearest trunk divided by its crown's radius (H, W).
    """
    is_free, index = np.ones(shape, bool), np.zeros(shape, np.int64)
    is_free[points[:, 0], points[:, 1]] = False
    index[points[:, 0], points[:, 1]] = np.arange(len(points))
    nearest = ndimage.distance_transform_edt(is_free, return_distances=False, return_indices=True)
    crown = index[nearest[0], nearest[1]]
    y, x = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None, :]
    radius = radii.astype(np.float32)[crown]
    dy, dx = (y - nearest[0].astype(np.float32)) / radius, (x - nearest[1].astype(np.float32)) / radius
    reach = np.sqrt(dy**2 + dx**2) * (1 + 0.10 * smooth_noise(rng, shape, 7))
    dome = np.sqrt(np.clip(1 - reach**2, 0, 1))
    leaves = 0.14 * smooth_noise(rng, shape, 3)
    shade = 0.25 + 0.75 * dome + 0.55 * (light[0] * dy + light[1] * dx) * (reach < 1.2) + leaves
    tint = rng.uniform(0.75, 1.25, (len(points), 1)) * rng.uniform(0.9, 1.1, (len(points), 3))
    colours = pick_colour(rng, COLOURS['crown'], 0.04) * tint.astype(np.float32)
    slow = 1 + 0.08 * fractal_noise(rng, shape, (150,))
    return colours[crown] * (np.clip(shade, 0.12, 1.7) * slow)[..., None], dome, reach
