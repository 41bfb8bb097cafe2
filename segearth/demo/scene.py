"""The generator: a seed in, an aerial scene with its labels and heights out.

A scene is laid out from large to small (land cover in warped Voronoi zones, lakes and rivers, street grids and roads,
buildings, trees), painted class by class, and last given the light, haze and noise of one flight, so that colour alone
does not tell a class. What the generator knows anyway (heights, directions of crop rows) is returned too, for
simulated sensors other than a camera.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from segearth.demo import painting
from segearth.demo.classes import BARELAND, BUILDING, CLASSES, CROPLAND, GRASS, ROAD, TREE, WATER, WORLD
from segearth.demo.painting import Building, Frame, Strip, fractal_noise

SCENE_SIZE = 896  # pixels, about 220 m at 0.25 m a pixel
_ZONES = (*CLASSES, 'town')
_TOWN = len(CLASSES)  # a zone of streets and buildings; becomes grass or bare ground between them
_KINDS = WORLD['scenes']  # shares of the zones' covers and chances of a river, of lakes and of main roads


@dataclass(frozen=True)
class Scene:
    """One generated aerial scene, north up, all layers (H, W)."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    labels: np.ndarray  # uint8 ids into segearth.demo.classes.CLASSES
    height: np.ndarray  # float32, metres of buildings and trees above the ground
    row_direction: np.ndarray  # float32, radians in [0, pi) of the crop rows; NaN where there is no cropland


def make_scene(seed: int, size: int = SCENE_SIZE) -> Scene:
    """Generates the scene of a seed, `size` pixels (64 or more) a side; the same numbers in, the same pixels out."""
    rng = np.random.default_rng([20, seed])
    shape = (size, size)
    kind = _KINDS[rng.integers(len(_KINDS))]
    scale = float(rng.uniform(0.85, 1.25))
    sun = rng.uniform(0, 2 * np.pi)
    light = (float(np.sin(sun)), float(np.cos(sun)))

    labels, zones, is_town = _lay_ground(rng, shape, kind)
    strips = _lay_roads(rng, labels, is_town, kind['roads'], scale)
    is_road = labels == ROAD
    buildings = _place_buildings(rng, labels, is_town, strips, scale)
    points, radii, is_forest_tree = _plant_trees(rng, labels, scale)

    image, row_direction = _paint_ground(rng, labels, zones, scale)
    for strip, mask in strips:
        painting.paint_road(rng, image, strip, mask & is_road, with_lines=strip.width > 20 and rng.random() < 0.75)
    height = np.zeros(shape, np.float32)
    for building, (box, u, v) in buildings:
        painting.paint_building(rng, image, building, (box, u, v), light)
        height[box][building.footprint(u, v)] = building.height
    if len(points):
        crowns, dome, reach = painting.paint_crowns(rng, shape, points, radii, light)
        alone = (reach < 1) & ~np.isin(labels, (BUILDING, ROAD, WATER)) & _grow(points[~is_forest_tree], shape, 40)
        labels[alone] = TREE
        is_tree = labels == TREE
        image[is_tree] = crowns[is_tree]
        height[is_tree] = (rng.uniform(5, 14) * dome)[is_tree]
    row_direction[labels != CROPLAND] = np.nan

    shadow = painting.cast_shadow(height, light, rng.uniform(1.2, 3.0))
    soft = ndimage.gaussian_filter(shadow.astype(np.float32), 0.8)
    image *= 1 - rng.uniform(0.35, 0.6) * soft[..., None]
    return Scene(_photograph(rng, image), labels.astype(np.uint8), height, row_direction)


def _lay_ground(rng: Generator, shape: tuple[int, int], kind: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Zones and water: labels, zone index, and where towns are."""
    area = shape[0] * shape[1] / SCENE_SIZE**2
    num_zones = max(3, int(rng.integers(6, 12) * area))
    zones = painting.voronoi_cells(rng, shape, num_zones, warp=45)
    covers = rng.choice([_ZONES.index(name) for name in kind['zones']], num_zones, p=list(kind['zones'].values()))
    labels = covers[zones]
    is_town = labels == _TOWN
    labels[is_town] = rng.choice([GRASS, GRASS, BARELAND])
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    for _ in range(rng.binomial(3, kind['lakes'])):
        centre, radius = rng.uniform(0, 1, 2) * shape, rng.uniform(50, 130)
        shore = 1 + 0.3 * fractal_noise(rng, shape, (90, 40), 0.5)
        labels[np.hypot(y - centre[0], (x - centre[1]) * rng.uniform(0.7, 1.3)) < radius * shore] = WATER
    if rng.random() < kind['river']:
        river = painting.draw_curve(rng, shape, rng.uniform(50, 140), rng.uniform(40, 120))
        banks = 12 * fractal_noise(rng, shape, (120, 50), 0.5)
        labels[np.abs(river.across) < river.width / 2 + banks] = WATER
    return labels, zones, is_town & (labels != WATER)


def _lay_roads(
    rng: Generator, labels: np.ndarray, is_town: np.ndarray, num_main: int, scale: float
) -> list[tuple[Strip, np.ndarray]]:
    """Street grids of the towns, then main roads over everything; writes ROAD into `labels`."""
    shape, strips = labels.shape, []
    if is_town.any():
        angle, width = rng.uniform(0, np.pi / 2), rng.uniform(20, 32) * scale
        period = tuple(rng.uniform(190, 300, 2) * scale)
        for strip in painting.draw_street_grid(shape, angle, period, width):
            strips.append((strip, strip.mask & is_town))
    for _ in range(num_main + int(rng.integers(2))):
        strip = painting.draw_curve(rng, shape, rng.uniform(26, 42) * scale, rng.uniform(0, 90))
        strips.append((strip, strip.mask))
    for _, mask in strips:
        labels[mask] = ROAD
    return strips


def _place_buildings(
    rng: Generator, labels: np.ndarray, is_town: np.ndarray, strips: list[tuple[Strip, np.ndarray]], scale: float
) -> list[tuple[Building, Frame]]:
    """Buildings on lots along the towns' street grid, and a few farms elsewhere; writes BUILDING into `labels`."""
    shape = labels.shape
    angle = rng.uniform(0, np.pi)
    if is_town.any():  # the first strip of a grid runs across its `along` axis: read the angle from its gradient
        gradient = np.gradient(strips[1][0].along[:2, :2])
        angle = float(np.arctan2(gradient[0][0, 0], gradient[1][0, 0]))
    families = rng.choice(5, 2, replace=False)
    lot = rng.uniform(66, 96) * scale
    candidates = []
    steps = np.arange(-0.75 * shape[0], 0.75 * shape[0], 0.6 * lot)
    for u in steps:
        for v in steps:
            y = shape[0] / 2 + u * np.sin(angle) + v * np.cos(angle)
            x = shape[1] / 2 + u * np.cos(angle) - v * np.sin(angle)
            if 0 <= y < shape[0] and 0 <= x < shape[1] and is_town[int(y), int(x)] and rng.random() < 0.7:
                candidates.append((y, x, angle + rng.choice([0, np.pi / 2])))
    for _ in range(rng.integers(4, 13)):
        candidates.append((*(rng.uniform(0, 1, 2) * shape), rng.uniform(0, np.pi)))
    is_free = ~np.isin(labels, (ROAD, WATER))
    buildings = []
    for y, x, direction in candidates:
        for _ in range(4):  # a lot is often narrowed by a street: try again beside it
            length = rng.choice([rng.uniform(24, 40), rng.uniform(40, 58)], p=[0.7, 0.3]) * scale
            building = Building(
                y=y + rng.normal(0, 9), x=x + rng.normal(0, 9), half_length=length,
                half_width=length * rng.uniform(0.6, 0.95), angle=direction, height=float(rng.uniform(3, 15)),
                wing=float(rng.choice([0, rng.uniform(0.3, 0.55)], p=[0.65, 0.35])),
                roof=int(rng.choice(3, p=[0.35, 0.4, 0.25])), family=int(rng.choice(families)),
            )  # fmt: skip
            frame = building.local_frame(shape)
            if frame is None:
                continue
            box, u, v = frame
            around = (np.abs(u) < building.half_length + 6) & (np.abs(v) < building.half_width + 6)
            if is_free[box][around].all():
                is_free[box][around] = False
                labels[box][building.footprint(u, v)] = BUILDING
                buildings.append((building, frame))
                break
    return buildings


def _plant_trees(rng: Generator, labels: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Trunks of forests on a shaken grid and single trees elsewhere: points (P, 2), radii (P,), is of a forest (P,)."""
    shape = labels.shape
    spacing = rng.uniform(17, 30) * scale
    grid = np.stack(np.meshgrid(*(np.arange(0, side, spacing) for side in shape), indexing='ij'), -1).reshape(-1, 2)
    grid = grid + rng.uniform(-0.42, 0.42, grid.shape) * spacing
    grid = grid[(grid >= 0).all(1) & (grid < shape).all(1) & (rng.random(len(grid)) > 0.06)].astype(np.int64)
    forest = grid[labels[grid[:, 0], grid[:, 1]] == TREE]
    groups = rng.uniform(0, 1, (int(rng.integers(6, 26)), 1, 2)) * shape
    single = (groups + rng.normal(0, 26, (len(groups), 4, 2))).reshape(-1, 2)
    single = single[(single >= 0).all(1) & (single < shape).all(1)].astype(np.int64)
    single = single[np.isin(labels[single[:, 0], single[:, 1]], (GRASS, BARELAND))]
    points = np.concatenate([forest, single])
    radii = np.concatenate([
        rng.uniform(0.55, 0.8, len(forest)) * spacing,
        rng.uniform(11, 26, len(single)) * scale,
    ])  # fmt: skip
    return points, radii, np.arange(len(points)) < len(forest)


def _paint_ground(rng: Generator, labels: np.ndarray, zones: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Covers without the things on them: image (H, W, 3) float32 and the direction of the rows (H, W)."""
    shape = labels.shape
    image = painting.paint_grass(rng, shape)
    bare = labels == BARELAND
    image[bare] = painting.paint_bareland(rng, shape)[bare]
    tint = rng.uniform(0.82, 1.18, (int(zones.max()) + 1, 1)) * rng.uniform(0.95, 1.05, (int(zones.max()) + 1, 3))
    crops, row_direction = painting.paint_cropland(rng, shape, scale)
    is_crop, is_water = labels == CROPLAND, labels == WATER
    image[is_crop] = crops[is_crop]
    image *= tint.astype(np.float32)[zones]
    image[is_water] = painting.paint_water(rng, shape, scale)[is_water]
    return image, row_direction


def _grow(points: np.ndarray, shape: tuple[int, int], reach: int) -> np.ndarray:
    """Squares of side 2 `reach` + 1 around `points`; (H, W) bool."""
    mask = np.zeros(shape, bool)
    for y, x in points:
        mask[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = True
    return mask


def _photograph(rng: Generator, image: np.ndarray) -> np.ndarray:
    """Light, colour and sharpness of one flight: (H, W, 3) float32 in about [0, 1] to uint8."""
    grey = image.mean(-1, keepdims=True)
    image = grey + rng.uniform(0.35, 1.25) * (image - grey)
    image = image * rng.uniform(0.86, 1.14, 3).astype(np.float32)
    image = np.clip(image, 0, 1) ** np.float32(rng.uniform(0.7, 1.25)) * rng.uniform(0.8, 1.2) + rng.uniform(0, 0.06)
    blur = rng.uniform(0.0, 1.0)
    image = ndimage.gaussian_filter(image, (blur, blur, 0)) if blur > 0.3 else image
    image = image + rng.uniform(0.005, 0.03) * rng.standard_normal(image.shape, dtype=np.float32)
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
