"""A radar's view of a generated scene: mean backscatter by cover, geometry of what stands up, speckle.

Simple, and physical where it matters for learning: what is bright and dark, and why, is that of a real side-looking
radar; numbers are round. Not modelled: layover of roofs and crowns towards the radar, polarisation, moisture.

- Mean backscatter of a cover, in decibels: calm water and asphalt reflect away from the radar, vegetation scatters
  from its volume (Ulaby and Dobson, Handbook of Radar Scattering Statistics for Terrain, 1989; C band, VV, 30 to 40
  degrees, rounded).
- Texture: crowns and mottled ground vary as a Gamma distribution around their mean, the product model of K-distributed
  clutter (Jakeman and Pusey, 1976; Oliver and Quegan, Understanding Synthetic Aperture Radar Images, chapter 5).
- Double bounce between ground and wall: a bright line at the foot of walls that face the radar, falling off fast with
  the angle between the wall's normal and the look (Franceschetti et al., IEEE TGRS 40(8), 2002).
- Shadow behind what stands up, ``h tan(incidence)`` long on the ground; only the noise floor is left there.
- Rows across the look direction return more than rows along it (Ulaby, Moore and Fung, Microwave Remote Sensing,
  volume 3, chapter on row direction).
- Speckle: multi-look intensity is the mean times Gamma(L, 1/L) (Oliver and Quegan, chapter 4).
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from segearth.demo.classes import BARELAND, BUILDING, CLASSES, CROPLAND, GRASS, TREE, WATER, WORLD
from segearth.demo.painting import cast_shadow, fractal_noise, smooth_noise
from segearth.demo.scene import Scene
from segearth.errors import ConfigError
from segearth.io.pictures import DB_RANGES

BACKSCATTER = {CLASSES.index(name): decibels for name, decibels in WORLD['backscatter'].items()}
"""Cover -> mean, and the standard deviations of it from scene to scene and of slow changes within a scene."""
PARCEL_DB = 1.8  # standard deviation between parcels: crop, growth, moisture
ROW_DB = 4.5  # rows across the look direction above rows along it
TEXTURE_ORDER = {TREE: 4.0, BARELAND: 12.0, GRASS: 20.0, BUILDING: 3.0}  # of the Gamma distribution; small is rough
WALL_DB, WALL_WIDTH, WALL_HEIGHT = 3.0, 3, 2.5  # brightness; pixels in front of the wall; metres that make a wall
WALL_SHARPNESS = 6  # power of the cosine between wall normal and look
NOISE_DB = -25.0  # noise equivalent backscatter, what shadow shows
INCIDENCE = (25.0, 40.0)  # degrees, drawn for each scene
PIXELS_PER_METRE = 4.0
CHANGES = ((CROPLAND, BARELAND), (TREE, BARELAND), (GRASS, WATER))  # harvested, cleared, flooded between the dates
LOWEST_DB, HIGHEST_DB = DB_RANGES[0]


@dataclass(frozen=True)
class SarScene:
    """A scene as the radar meets it, before speckle; all layers (H, W)."""

    intensity: np.ndarray  # float32, mean backscatter, linear
    labels: np.ndarray  # uint8, the covers at the radar's date
    changed: np.ndarray  # bool, where they differ from the optical date


def simulate_sar(scene: Scene, seed: int, num_changes: int = 3) -> SarScene:
    """Simulates the radar partner of a scene, in which some places have changed.

    The seed is that of look direction, incidence, texture and changes.
    """
    rng = np.random.default_rng([21, seed])
    angle, incidence = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(*INCIDENCE))
    look = (float(np.sin(angle)), float(np.cos(angle)))  # the way the wave goes over the ground, (y, x)
    labels, changed = _change(rng, scene.labels, num_changes)
    height = np.where(changed, 0, scene.height)

    table, strength = np.zeros((2, len(BACKSCATTER)), np.float32)
    for cover, (mean, spread, slow) in BACKSCATTER.items():
        table[cover], strength[cover] = mean + rng.normal(0, spread), slow
    decibels = table[labels] + strength[labels] * fractal_noise(rng, labels.shape, (120, 50, 20), 0.7)
    decibels = decibels + _rows(rng, labels, scene, look)
    texture = _texture(rng, labels)
    walls = _walls(height, look)
    intensity = 10 ** (decibels / 10) * texture + 10 ** (WALL_DB / 10) * walls
    towards_radar = (-look[0], -look[1])
    shadow = cast_shadow(height, towards_radar, PIXELS_PER_METRE * np.tan(incidence))
    soft = ndimage.gaussian_filter((shadow & (walls < 0.1)).astype(np.float32), 0.7)
    intensity = intensity * (1 - soft) + 10 ** (NOISE_DB / 10)
    return SarScene(intensity.astype(np.float32), labels, changed)


def add_speckle(intensity: np.ndarray, rng: Generator, looks: float) -> np.ndarray:
    """Multi-look speckle on a mean intensity (H, W)."""
    return (intensity * rng.gamma(looks, 1 / looks, intensity.shape)).astype(np.float32)


def sar_output(intensity: np.ndarray, kind: str = 'db') -> np.ndarray:
    """Linear intensity (H, W) as a sensor's product.

    Kinds: 'db', decibels as float32; 'amplitude', the square root as float32; 'picture', uint8 of the display range of
    :mod:`segearth.io.pictures`, never 0 because that means no data.
    """
    if kind == 'amplitude':
        return np.sqrt(intensity).astype(np.float32)
    if kind not in ('db', 'picture'):
        raise ConfigError(f'unknown kind {kind!r} of SAR output; known: db, amplitude, picture')
    decibels = 10 * np.log10(np.maximum(intensity, 1e-9)).astype(np.float32)
    if kind == 'db':
        return decibels
    levels = np.rint((decibels - LOWEST_DB) / (HIGHEST_DB - LOWEST_DB) * 255)
    return np.clip(levels, 1, 255).astype(np.uint8)


def misregister(image: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """An image (H, W, ...) moved by (down, right) pixels, its border repeated."""
    rows, columns = (np.clip(np.arange(image.shape[axis]) - shift[axis], 0, image.shape[axis] - 1) for axis in (0, 1))
    return image[rows][:, columns]


def _change(rng: Generator, labels: np.ndarray, num_changes: int) -> tuple[np.ndarray, np.ndarray]:
    """Round places in which one cover gives way to another; returns new labels and where they are new."""
    after = labels.copy()
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]].astype(np.float32)
    for _ in range(num_changes):
        before, later = CHANGES[rng.integers(len(CHANGES))]
        centre, radius = rng.uniform(0, 1, 2) * labels.shape, rng.uniform(20, 70)
        border = 1 + 0.25 * smooth_noise(rng, labels.shape, 40)
        inside = np.hypot(y - centre[0], x - centre[1]) < radius * border
        after[inside & (labels == before)] = later
    return after, after != labels


def _rows(rng: Generator, labels: np.ndarray, scene: Scene, look: tuple[float, float]) -> np.ndarray:
    """Decibels that parcels and their rows add; rows show as the stripes that the optical image has."""
    is_crop = (labels == CROPLAND) & np.isfinite(scene.row_direction)
    added = np.zeros(labels.shape, np.float32)
    if not is_crop.any():
        return added
    directions, parcel = np.unique(scene.row_direction[is_crop], return_inverse=True)  # a parcel has one direction
    normal_y, normal_x = np.cos(directions), -np.sin(directions)
    facing = np.abs(normal_y * look[0] + normal_x * look[1])  # 1: rows across the look
    offset = rng.normal(0, PARCEL_DB, len(directions)) + ROW_DB * (facing**4 - 0.4)
    grey = scene.image.mean(-1) / 255
    stripes = (grey - ndimage.uniform_filter(grey, 25))[is_crop]
    added[is_crop] = offset[parcel] + 12 * (0.3 + 0.7 * facing[parcel]) * stripes
    return added


def _texture(rng: Generator, labels: np.ndarray) -> np.ndarray:
    """Rough covers: Gamma factors of mean 1, alike over some pixels as crowns and clods are."""
    texture = np.ones(labels.shape, np.float32)
    for cover, order in TEXTURE_ORDER.items():
        is_cover = labels == cover
        if is_cover.any():
            grain = smooth_noise(rng, labels.shape, 9 if cover == TREE else 4)
            spread = order**-0.5  # standard deviation of Gamma(order, 1/order), here as a lognormal of that spread
            texture[is_cover] = np.exp(spread * grain - spread**2 / 2)[is_cover]
    return texture


def _walls(height: np.ndarray, look: tuple[float, float]) -> np.ndarray:
    """How strongly each pixel returns the double bounce: (H, W) in [0, 1]."""
    step = WALL_WIDTH
    dy, dx = (round(look[axis] * step) for axis in (0, 1))
    behind = misregister(height, (-dy, -dx))  # what stands a step farther from the radar
    is_foot = (behind - height > WALL_HEIGHT) & (height < WALL_HEIGHT)
    smooth = ndimage.gaussian_filter(height, 3)
    slope_y, slope_x = np.gradient(smooth)
    cosine = (slope_y * look[0] + slope_x * look[1]) / np.maximum(np.hypot(slope_y, slope_x), 1e-6)
    is_straight = ndimage.uniform_filter((height > WALL_HEIGHT).astype(np.float32), 2 * step + 1) > 0.2
    return np.where(is_foot & is_straight, np.clip(cosine, 0, 1) ** WALL_SHARPNESS, 0).astype(np.float32)
